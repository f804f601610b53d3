"""Questions by subtree: the question, its conditions, the statements, the answers; the views.

Fixed reports are in `db.reports`.
"""

PUBLIC = (
    "ambiguous_classes",
    "answers",
    "current_labelling",
    "find",
    "hours",
    "occasions",
    "paths",
    "per_class",
    "places",
    "question",
    "statements",
    "subtrees",
    "sun",
    "time_spans",
    "totals",
    "views",
)
"""What other rooms may import."""
