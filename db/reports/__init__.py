"""Fixed reports: one clip, the collection, model comparison, curves, samples, export rows.

Questions that a person composes are in `db.query`.
"""

PUBLIC = (
    "clip",
    "collection",
    "export_rows",
    "health",
    "lake_rows",
    "model_comparison",
    "model_coverage",
    "recorded_hours",
    "redactable",
    "score_curves",
)
"""What other rooms may import."""
