"""What people judged: verdicts with their history, and the samples that were drawn for it.

What a sample proves is computed in `audioset_core.evaluation`.
"""

PUBLIC = ("given", "review_sample", "reviews", "shared_reviews", "verdicts")
"""What other rooms may import."""
