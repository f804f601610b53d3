"""The body of a labelling run: pipeline and its preparation, shards, Dask, partitions, life cycle.

What a run reports is in `flows.run_report`.
"""

PUBLIC = (
    "alerts",
    "combining",
    "gpu_slot",
    "live_runs",
    "pipeline",
    "preparation",
    "relabelling",
    "shard_scheduler",
)
"""What other rooms may import."""
