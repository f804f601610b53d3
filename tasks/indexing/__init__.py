"""Indexes of stored vectors, for `audioset similar`: built, and kept up to date. No Prefect."""

PUBLIC = ("update",)
"""What other rooms may import."""
