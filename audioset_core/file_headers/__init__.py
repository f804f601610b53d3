"""What can be read from the bytes of a recording without decoding: format, sizes, tags, notes.

Nothing here decodes sound, and nothing here knows a decoder.
"""

PUBLIC = ("field_notes", "file_view", "ogg_pages", "signatures", "stated_sizes", "statements")
"""What other rooms may import."""
