"""Files of weights: how each published form is laid out, and reading them without running code.

Which file belongs to a model, and its conversion, are in `weights`.
"""

PUBLIC = ("layouts", "readers")
"""What other rooms may import."""
