"""A model's weights: finding, downloading, reading, converting, and proof against TensorFlow.

Networks and the layouts of their weights are in `models`.
"""

PUBLIC = ("conversion_proof", "convert", "locate", "proxies")
"""What other rooms may import."""
