"""Which recordings a person means: paths, globs, manifests; start times from file names; and sites.

Nothing here opens a recording.
"""

PUBLIC = (
    "coordinates",
    "delimited",
    "name_times",
    "site_changes",
    "sites",
    "start_times",
    "walk",
    "written_paths",
)
"""What other rooms may import."""
