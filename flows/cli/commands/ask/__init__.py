"""Commands that ask what was heard: as tables, files, pictures and pages."""

PUBLIC = ()
"""What other rooms may import."""
