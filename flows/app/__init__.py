"""The page of ``audioset app``: search, recordings, the collection, judging and teaching.

Pages are rendered here; ``static`` has what the browser loads beside them, all from this package.
"""

PUBLIC = ("serving",)
"""What other rooms may import."""
