"""The lake, a Parquet copy of the results: its tables, kept up to date, and checked. No Prefect."""

PUBLIC = ("check", "update")
"""What other rooms may import."""
