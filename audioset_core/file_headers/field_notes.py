"""Notes that a recorder wrote into its WAV file: when the recording began, and where.

Two forms are read: GUANO's chunk (Timestamp, Loc Position), and the comment of AudioMoth's firmware
(``Recorded at 19:30:00 18/05/2024 (UTC) by AudioMoth ...``). Everything else is ignored.

Source: GUANO Metadata Specification 1.0, https://guano-md.org; AudioMoth-Firmware-Basic,
``setHeaderComment``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime

from audioset_core.file_headers.file_view import FileView
from audioset_core.file_headers.stated_sizes import riff_chunks

_MOST_BYTES = 1 << 16
_FIRST_YEAR = 2000
"""A clock that was never set shows 1970; there were no such recorders before this year."""
_AUDIOMOTH = re.compile(
    r"Recorded at (?P<time>\d\d:\d\d:\d\d(?:\.\d{3})?) (?P<d>\d\d)/(?P<m>\d\d)/(?P<Y>\d{4})"
    r"(?: \(UTC(?:(?P<sign>[+-])(?P<h>\d\d?)(?::(?P<min>\d\d))?)?\))?.* by AudioMoth",
)


@dataclass(frozen=True, slots=True)
class FieldNotes:
    """The notes. ``start`` is ISO 8601, with a zone where the recorder gives one.

    Latitude and longitude are degrees (WGS 84), both or neither.
    """

    start: str | None = None
    found_by: str | None = None
    latitude_deg: float | None = None
    longitude_deg: float | None = None


def field_notes(view: FileView) -> FieldNotes | None:
    """The notes in a WAV file (RIFF, RF64 or BW64); None if there are none."""
    found = None
    for name, size, body in riff_chunks(view):
        if name == b"guan":
            return _of_guano(_text(view, body, size)) or found
        if name == b"LIST" and view.read(body, 4) == b"INFO":
            found = _of_comment(_text(view, body, size)) or found
    return found


def _text(view: FileView, at: int, size: int) -> str:
    return view.read(at, min(size, _MOST_BYTES)).decode("utf-8", "replace")


def _of_guano(text: str) -> FieldNotes | None:
    lines = (line.partition(":") for line in text.replace("\0", "").splitlines())
    said = {key.strip().casefold(): value.strip() for key, colon, value in lines if colon}
    start = _start(said.get("timestamp", ""))
    latitude, longitude = _place(said.get("loc position", ""))
    if start is None and latitude is None:
        return None
    return FieldNotes(start, "GUANO Timestamp" if start else None, latitude, longitude)


def _of_comment(text: str) -> FieldNotes | None:
    match = _AUDIOMOTH.search(text)
    if match is None:
        return None
    # AudioMoth's clock is in UTC; the first firmware does not write that.
    zone = f"{match['sign'] or '+'}{int(match['h'] or 0):02d}:{match['min'] or '00'}"
    start = _start(f"{match['Y']}-{match['m']}-{match['d']}T{match['time']}{zone}")
    return FieldNotes(start, "AudioMoth comment") if start else None


def _start(text: str) -> str | None:
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        return None
    return when.isoformat() if when.year >= _FIRST_YEAR and len(text) > len("2024-05-18") else None


def _place(text: str) -> tuple[float | None, float | None]:
    match = re.fullmatch(r"([+-]?\d{1,3}(?:\.\d+)?)[\s,]+([+-]?\d{1,3}(?:\.\d+)?)", text)
    if match is None:
        return None, None
    latitude, longitude = float(match[1]), float(match[2])
    is_place = abs(latitude) <= 90 and abs(longitude) <= 180
    return (latitude, longitude) if is_place else (None, None)
