"""Patches to logits: the engines behind one interface, and the scorer that fills batches.

The networks themselves are in `models`, their weights in `weights`.
"""

PUBLIC = ("engines", "interface", "scorer")
"""What other rooms may import."""
