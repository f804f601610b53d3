"""Recordings of every muxer and encoder that FFmpeg has here, as written and in every plight."""
