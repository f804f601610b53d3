"""What the bytes of a recording tell before anything is decoded: kind, sizes, tags, notes.

Nothing here decodes sound, and nothing here knows a decoder.
"""

PUBLIC = ("field_notes", "file_view", "ogg_pages", "signatures", "stated_sizes")
"""What other rooms may import."""
