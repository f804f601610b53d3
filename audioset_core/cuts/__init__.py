"""Pieces of recordings as files of their own: every channel, every sample as it is stored.

Which pieces, and what they are called, is decided in `flows.cli`.
"""

PUBLIC = ("recording_cuts", "sound_file")
"""What other rooms may import."""
