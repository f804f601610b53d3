"""Scores against truth: files of truth, measures, confidence intervals.

Which stored scores are compared is decided in `tasks.evaluation`.
"""

PUBLIC = ("agreement", "calibration", "estimation", "metrics", "truth_files")
"""What other rooms may import."""
