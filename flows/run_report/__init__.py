"""What a run tells: summary, drift, Prefect artifacts, progress.

Nothing here labels.
"""

PUBLIC = ("drift", "markdown", "prefect_artifacts", "progress", "summary")
"""What other rooms may import."""
