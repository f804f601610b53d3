"""Named threshold sets, intervals derived with them, questions to them.

How thresholds are fitted is in `tasks.evaluation`.
"""

PUBLIC = ("find", "sets")
"""What other rooms may import."""
