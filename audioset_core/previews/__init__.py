"""Waveforms, spectrograms and short MP3s of a recording, for pictures and pages.

The pictures and pages themselves are in `flows.figures` and `flows.pages`.
"""

PUBLIC = ("columns", "snippets", "spans", "spectrogram_png", "waveform_overview", "zoom_columns")
"""What other rooms may import."""
