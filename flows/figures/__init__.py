"""Pictures with matplotlib.

What is drawn comes from `audioset_core.previews` and from score files.
"""

PUBLIC = ("clip_figure", "clip_scores", "curve_figure")
"""What other rooms may import."""
