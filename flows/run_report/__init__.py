"""What a run reports: summary, drift, Prefect artifacts, progress, Markdown.

Nothing here labels.
"""

PUBLIC = ("drift", "markdown", "prefect_artifacts", "progress", "summary")
"""What other rooms may import."""
