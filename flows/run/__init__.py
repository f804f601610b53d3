"""The body of a labelling run: pipeline, shard scheduler, Dask, partitions, life cycle.

What a run tells is in `flows.run_report`.
"""

PUBLIC = ("lifecycle", "pipeline", "preparation", "relabelling", "shard_scheduler")
"""What other rooms may import."""
