"""The commands of `audioset`, one a file; here those that label and tend a collection.

What several commands need is one level up.
"""

PUBLIC = ()
"""What other rooms may import."""
