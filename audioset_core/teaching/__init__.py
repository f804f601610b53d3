"""Classes that people teach: heads fitted on embeddings of a model, and what such heads say.

Which recordings are examples is decided in `tasks.teaching`.
"""

PUBLIC = ("choice", "fit", "heads")
"""What other rooms may import."""
