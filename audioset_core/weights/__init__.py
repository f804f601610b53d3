"""A model's weights: found, downloaded, read, converted, and proved against TensorFlow.

Networks and the layouts of their weights are in `models`.
"""

PUBLIC = ("conversion_proof", "convert", "locate", "proxies")
"""What other rooms may import."""
