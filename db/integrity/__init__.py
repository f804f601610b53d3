"""Where tables disagree with themselves or with files, and repair.

The check as a whole is in `tasks.store_check`.
"""

PUBLIC = ("audit", "closure", "repair")
"""What other rooms may import."""
