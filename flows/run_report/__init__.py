"""What a run reports: summary, drift, Prefect artifacts, progress, Markdown.

Nothing here labels.
"""

PUBLIC = ("drift", "prefect_artifacts", "progress", "safe_markdown", "sound_events", "summary")
"""What other rooms may import."""
