"""WebVTT: labels as captions, which browsers, mpv and VLC show while a recording plays.

Source: www.w3.org/TR/webvtt1 (a cue ends after it begins; `&`, `<` and `>` are escaped).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from audioset_core.export_formats.file_names import uri
from audioset_core.export_formats.rows import Event, Recording
from audioset_core.export_formats.text import one_line

_ESCAPES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})


def webvtt_texts(recording: Recording, events: Iterable[Event]) -> Iterator[str]:
    """Captions of one recording: class and peak score; times to the millisecond."""
    # A comment must not hold an arrow; the address of a file holds no '>'.
    made = one_line(f"{recording.model} {recording.model_version}").replace("-->", "")
    yield f"WEBVTT\n\nNOTE\n{uri(recording.path)}\n{made}\n"
    for event in events:
        start_ms = round(event.start_s * 1000)
        end_ms = max(round(event.end_s * 1000), start_ms + 1)
        # Two line ends would end the cue, but a name is one line.
        name = one_line(event.name).translate(_ESCAPES)
        yield f"\n{_clock(start_ms)} --> {_clock(end_ms)}\n{name} {event.peak:.2f}\n"


def _clock(time_ms: int) -> str:
    seconds, ms = divmod(time_ms, 1000)
    minutes, s = divmod(seconds, 60)
    hours, m = divmod(minutes, 60)
    return f"{hours:02d}:{m:02d}:{s:02d}.{ms:03d}"
