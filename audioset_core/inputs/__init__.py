"""Which recordings a person means: paths, globs, manifests; start times, sites, and the sun there.

Nothing here opens a recording.
"""

PUBLIC = (
    "coordinates",
    "delimited",
    "name_times",
    "site_changes",
    "sites",
    "start_times",
    "sun",
    "walk",
    "written_paths",
)
"""What other rooms may import."""
