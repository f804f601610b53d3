"""Several models' stored scores as a labelling of their own: the recipe, its calibration, the work.

No Prefect, and no model runs.
"""

PUBLIC = ("calibrate", "combine", "recipe")
"""What other rooms may import."""
