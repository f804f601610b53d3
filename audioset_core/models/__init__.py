"""The models that label: networks, classes, layouts of their weights, and the registry.

What finds and converts weights is in `weights`; what runs a network is in `inference`.
"""

PUBLIC = ("classes", "folding", "registry")
"""What other rooms may import."""
