"""Durable files: atomic writes, `.npy` score files, the check of one, indexes of vectors, a lake's.

The rows that name the files are in `db`.
"""

PUBLIC = (
    "atomic_files",
    "index_files",
    "lake_files",
    "score_file_check",
    "score_files",
    "vector_index",
)
"""What other rooms may import."""
