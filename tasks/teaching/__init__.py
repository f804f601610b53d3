"""Teaching classes: the examples that people gave, and the heads that are fitted to them.

No Prefect. What taught heads say of a collection is computed in `tasks.combining`.
"""

PUBLIC = ("lacking", "learning", "patches", "teach")
"""What other rooms may import."""
