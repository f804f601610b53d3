"""Labellings made of stored ones: several models' scores combined, or taught heads on embeddings.

No Prefect, and no model runs.
"""

PUBLIC = ("calibrate", "combine", "recipe", "taught")
"""What other rooms may import."""
