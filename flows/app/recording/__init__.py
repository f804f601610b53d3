"""The page of one recording, and what its script asks for: pictures, scores and sound of spans."""

PUBLIC = ("overviews", "routes")
"""What other rooms may import."""
