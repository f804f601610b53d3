"""Which stored score files a computation has to read.

Reading and computing are in `flows.analysis` and `audioset_core.scores`.
"""

PUBLIC = ("combinable", "comparable", "indexed", "labelled", "ranked", "teachable")
"""What other rooms may import."""
