"""Scores against truth, fitting thresholds, deriving intervals. No Prefect.

Measures are in `audioset_core.evaluation`.
"""

PUBLIC = ("derive_intervals", "fit_thresholds", "import_verdicts", "score_truth", "verdict_truth")
"""What other rooms may import."""
