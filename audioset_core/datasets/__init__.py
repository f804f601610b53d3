"""`label_dataset`: waveforms in memory to score files; a journal lets a later call continue.

Recordings that are files are labelled by the flows, not here.
"""

PUBLIC = ("label_dataset",)
"""What other rooms may import."""
