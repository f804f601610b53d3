"""Answers that read score files, and the same questions as DataFrames.

What is computed is in `audioset_core.scores`.
"""

PUBLIC = ("similar", "stored_scores")
"""What other rooms may import."""
