"""Copies of recordings without speech: where voices are, and the samples there made silent.

Which recordings, and the table of what was done, is in `flows.cli`.
"""

PUBLIC = ("copies", "settings", "voice")
"""What other rooms may import."""
