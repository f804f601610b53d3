"""What labelling tasks share: options, job, shards, work list, watched folders. No Prefect.

The tasks themselves are one level up, one a file.
"""

PUBLIC = (
    "health_again",
    "job",
    "notes_again",
    "options",
    "shards",
    "start_times",
    "sun",
    "watched_folders",
    "worklist",
)
"""What other rooms may import."""
