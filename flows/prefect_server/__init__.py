"""Prefect's own server and its settings: for one command, and for `audioset serve`.

What a flow does is not known here.
"""

PUBLIC = ("serve", "settings")
"""What other rooms may import."""
