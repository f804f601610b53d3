"""Which recordings a person means: paths, globs, manifests; and what names tell of their start.

Nothing here opens a recording.
"""

PUBLIC = ("delimited", "name_times", "start_times", "walk", "written_paths")
"""What other rooms may import."""
