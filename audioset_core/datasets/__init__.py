"""`label_dataset`: waveforms in memory to score files, with a journal to go on from.

Recordings that are files are labelled by the flows, not here.
"""

PUBLIC = ("label_dataset",)
"""What other rooms may import."""
