"""Which recordings a person means: paths, globs, manifests; and start times from file names.

Nothing here opens a recording.
"""

PUBLIC = ("delimited", "name_times", "start_times", "walk", "written_paths")
"""What other rooms may import."""
