"""The AudioSet graph, and its files.

The ontology in SQL is in `db.catalog`.
"""

PUBLIC = ("graph",)
"""What other rooms may import."""
