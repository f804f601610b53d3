"""Files of weights: the layout of each published form, and reading it without running code.

Which file belongs to a model, and its conversion, are in `weights`.
"""

PUBLIC = ("layouts", "readers")
"""What other rooms may import."""
