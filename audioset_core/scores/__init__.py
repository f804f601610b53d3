"""What is computed from logits over time: pooling, thresholds, coverage, ranking, similarity.

Nothing here reads a file or a database.
"""

PUBLIC = (
    "combination",
    "coverage",
    "pooling",
    "ranking",
    "similarity",
    "threshold_csv",
    "thresholds",
)
"""What other rooms may import."""
