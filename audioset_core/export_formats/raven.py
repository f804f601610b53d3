"""Raven's selection tables: a tab-separated row per selection, which names its sound file.

`Begin Path` and `File Offset (s)` let Raven open the sound from the table. The selection spans
the recording's whole band. Sources: Raven Pro 1.6 User's Manual, chapters 6 and E; the columns
that crowsetta and opensoundscape read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from audioset_core.export_formats.rows import Event, Recording
from audioset_core.export_formats.text import number, one_line

_COLUMNS = (
    "Selection", "View", "Channel", "Begin Time (s)", "End Time (s)", "Low Freq (Hz)",
    "High Freq (Hz)", "Begin Path", "File Offset (s)", "Annotation", "MID", "Score", "Mean Score",
)  # fmt: skip


def raven_texts(recording: Recording, events: Iterable[Event]) -> Iterator[str]:
    """The selection table of one recording, numbered from 1."""
    yield "\t".join(_COLUMNS) + "\n"
    high_hz = number(recording.sample_rate_hz / 2)
    path = _field(recording.path_text)
    for n, event in enumerate(events, start=1):
        start_s = number(event.start_s)
        cells = (
            str(n), "Spectrogram 1", "1", start_s, number(event.end_s), "0.0", high_hz, path,
            start_s, _field(event.name), event.mid, number(event.peak), number(event.mean),
        )  # fmt: skip
        yield "\t".join(cells) + "\n"


def _field(text: str) -> str:
    """Raven has no quoting, but other readers take a leading quotation mark for one."""
    line = one_line(text)
    return "'" + line[1:] if line.startswith('"') else line
