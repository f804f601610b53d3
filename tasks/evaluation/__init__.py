"""Scores against truth, fitting thresholds, deriving intervals. No Prefect.

Measures are in `audioset_core.evaluation`.
"""

PUBLIC = (
    "derive_intervals", "fit_thresholds", "import_verdicts", "review_estimate", "score_truth",
    "verdict_truth",
)  # fmt: skip
"""What other rooms may import."""
