"""What people judged: verdicts with their history, and the samples that were drawn for it.

What a sample proves is computed in `audioset_core.evaluation`.
"""

PUBLIC = ("review_sample", "reviews", "verdicts")
"""What other rooms may import."""
