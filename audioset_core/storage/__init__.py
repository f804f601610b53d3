"""Durable files: atomic writes, `.npy` score files, and the check of one.

The rows that name the files are in `db`.
"""

PUBLIC = ("atomic_files", "score_file_check", "score_files")
"""What other rooms may import."""
