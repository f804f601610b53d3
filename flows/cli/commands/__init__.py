"""The commands of `audioset`, one a file.

What several commands need is one level up.
"""

PUBLIC = ()
"""What other rooms may import."""
