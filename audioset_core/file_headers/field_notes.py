"""What follows from a recording's own statements: when it began, where, and by which device.

`START_ORDER` is the one list of what counts before what.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from audioset_core.file_headers.statements import limited, with_moth
from audioset_core.records import Statement

MANIFEST, NAME = "manifest", "name"
_BY_RECORDERS = ("GUANO Timestamp", "AudioMoth comment", "wamd start time", "Vorbis RecordingStart")
_TIME_OF_DAY = "bext TimeReference"
START_ORDER = (
    MANIFEST,
    *_BY_RECORDERS,
    "bext OriginationDate",
    "iXML BEXT/BWF_ORIGINATION_DATE",
    NAME,
    "container com.apple.quicktime.creationdate",
    "ID3 TDRC",
    "INFO ICRD",
    "Vorbis DATE",
    "APE Record Date",
    "container date",
    "container creation_time",
)
"""What may state when a recording began; the first that does so plausibly counts.

What stands behind the name is written anew by many programs when they convert or export. The time
of a file's last change is never taken.
"""

TOLERANCE_S = 60.0
"""Starts differ where they are further apart; a name may lack the seconds."""
_FIRST_YEAR = 2000
"""A recorder's clock that was never set shows 1970; there were no such recorders before 2000."""
_FIRST_YEAR_OF_OTHERS = 1971
"""Archives hold older recordings; 1904, 1946 and 1970 are what an empty field is taken for."""
_RESET_DAYS = frozenset({(2000, 1, 1), (2001, 1, 1)})
"""Where clocks begin whose battery was away (2001: Apple's)."""
_AHEAD = timedelta(days=1)
"""The zone may be unknown."""

_PLACES = (
    "GUANO Loc Position", "wamd GPS", "wamd position", "iXML LOCATION/LOCATION_GPS",
    "Vorbis SensorLocation", "container com.apple.quicktime.location.ISO6709",
    "container location",
)  # fmt: skip
_DEVICES = (
    ("GUANO Make", "GUANO Model"), ("wamd model",), ("Vorbis Make", "Vorbis Model"),
    ("container com.apple.quicktime.make", "container com.apple.quicktime.model"),
    ("container make", "container model"), ("bext Originator",),
)  # fmt: skip
_SERIALS = (
    "GUANO Serial", "AudioMoth device", "wamd serial", "Vorbis SensorUid",
    "iXML BEXT/BWF_ORIGINATOR_REFERENCE", "bext OriginatorReference",
)  # fmt: skip

_NAMES = {name.casefold(): name for name in (*START_ORDER, *_PLACES, *_SERIALS)}
_MOTH_TIME = re.compile(
    r"at (?P<time>\d\d:\d\d:\d\d(?:\.\d+)?) (?P<d>\d\d)/(?P<m>\d\d)/(?P<Y>\d{4})"
    r"(?: \(UTC(?:(?P<sign>[+-])(?P<h>\d\d?)(?::(?P<min>\d\d))?)?\))?"
)
_DATE = re.compile(r"(\d{4})\D(\d\d)\D(\d\d)[T ]+(\d\d)\D(\d\d)(?:\D(\d\d))?(.*)", re.DOTALL)
_PLACE = re.compile(
    r"(?:WGS84,)?\s*([+-]?\d{1,3}(?:\.\d+)?)(?:[\s,]+([NS]\b)?[\s,]*|(?=[+-]))"
    r"([+-]?\d{1,3}(?:\.\d+)?)(?:[\s,]*([EW])\b)?(?:[\s,/+-].*)?"
)


@dataclass(frozen=True, slots=True)
class FieldNotes:
    """The notes. ``start`` is ISO 8601, with a zone where the file gives one.

    Latitude and longitude are degrees (WGS 84), both or neither. ``statements`` has everything
    that the file says, this included.
    """

    start: str | None = None
    found_by: str | None = None
    latitude_deg: float | None = None
    longitude_deg: float | None = None
    device: str | None = None
    serial: str | None = None
    statements: tuple[Statement, ...] = ()


def field_notes(said: Sequence[Statement], now: datetime | None = None) -> FieldNotes | None:
    """What the statements of a file come to; None without any. `now` is when the file was read."""
    if not said:
        return None
    judged = _judged([_known(each) for each in with_moth(said)], now or datetime.now(UTC))
    values: dict[str, str] = {}
    for each in judged:
        values.setdefault(each.name, each.value)
    first = _first_start(judged)
    places = (_place(values[name]) for name in _PLACES if name in values)
    latitude, longitude = next((place for place in places if place), (None, None))
    devices = (" ".join(values[n] for n in names if n in values) for names in _DEVICES)
    device = "AudioMoth" if "AudioMoth comment" in values else None
    return FieldNotes(
        first.start if first else None,
        first.name if first else None,
        latitude,
        longitude,
        next((each for each in devices if each), device),
        next((values[name] for name in _SERIALS if name in values), None),
        limited(judged),
    )


def distance_s(one: datetime, other: datetime) -> float:
    """Seconds between two starts; where one has no zone, in its own clock or in UTC, the nearer."""
    if (one.tzinfo is None) == (other.tzinfo is None):
        return abs((one - other).total_seconds())
    zoned, bare = (one, other) if one.tzinfo else (other, one)
    readings = (zoned.replace(tzinfo=None), zoned.astimezone(UTC).replace(tzinfo=None))
    return min(abs((reading - bare).total_seconds()) for reading in readings)


def _known(said: Statement) -> Statement:
    """The statement by its usual key; programs write keys in any case."""
    name = _NAMES.get(said.name.casefold())
    return replace(said, key=name.partition(" ")[2]) if name else said


def _judged(said: Sequence[Statement], now: datetime) -> list[Statement]:
    """The statements; those of a start with it, or with why it is not used, or what differs."""
    judged = [_with_start(each, now) for each in said]
    first = _first_start(judged)
    if first is None or first.start is None:
        return judged
    when = datetime.fromisoformat(first.start)
    for at, each in enumerate(judged):
        start = datetime.fromisoformat(each.start) if each.start else None
        if each.name == _TIME_OF_DAY and first.name.startswith("bext"):
            start = _nearest(each.value.rpartition(": ")[2], when)
        if start and distance_s(start, when) > TOLERANCE_S:
            judged[at] = replace(each, doubt=f"{first.name} says {first.start}")
    return judged


def _first_start(judged: Sequence[Statement]) -> Statement | None:
    usable = [each for each in judged if each.start]
    return min(usable, key=lambda each: START_ORDER.index(each.name), default=None)


def _nearest(clock: str, when: datetime) -> datetime | None:
    """The moment nearest to another that has this time of day."""
    days = (when.date() + timedelta(days=n) for n in (-1, 0, 1))
    try:
        starts = [datetime.fromisoformat(f"{day}T{clock}") for day in days]
    except ValueError:
        return None
    return min(starts, key=lambda start: distance_s(start, when.replace(tzinfo=None)))


def _with_start(said: Statement, now: datetime) -> Statement:
    name = said.name
    if name not in START_ORDER:
        return said
    when = _time(said.value, is_moth=said.source == "AudioMoth")
    if when is None:
        is_promised = START_ORDER.index(name) < START_ORDER.index(NAME)
        return replace(said, doubt="not understood") if is_promised else said
    first_year = _FIRST_YEAR if name in _BY_RECORDERS else _FIRST_YEAR_OF_OTHERS
    ahead = when if when.tzinfo else when.replace(tzinfo=UTC)
    if when.year < first_year:
        return replace(said, doubt=f"not used: before {first_year}, so the clock was not set")
    if (when.year, when.month, when.day) in _RESET_DAYS:
        return replace(said, doubt="not used: a clock that was reset begins on this day")
    if when.year > now.year + 1 or ahead > now + _AHEAD:
        return replace(said, doubt=f"not used: in the future when it was read ({now:%Y-%m-%d})")
    return replace(said, start=when.isoformat())


def _time(text: str, *, is_moth: bool) -> datetime | None:
    """A day and a time, with the zone that is given."""
    if is_moth:
        match = _MOTH_TIME.search(text)
        if match is None:
            return None
        # AudioMoth's clock is in UTC; the first firmware does not write that.
        zone = f"{match['sign'] or '+'}{int(match['h'] or 0):02d}:{match['min'] or '00'}"
        text = f"{match['Y']}-{match['m']}-{match['d']}T{match['time']}{zone}"
    elif (match := _DATE.fullmatch(text)) is not None:
        day, time = "-".join(match.groups()[:3]), ":".join((*match.groups()[3:5], match[6] or "00"))
        text = f"{day}T{time}{match[7].replace('UTC', 'Z').replace(' ', '')}"
    try:
        return datetime.fromisoformat(text) if len(text) > len("2024-05-18") else None
    except ValueError:
        return None


def _place(text: str) -> tuple[float, float] | None:
    match = _PLACE.fullmatch(text)
    if match is None:
        return None
    latitude = -float(match[1]) if match[2] == "S" else float(match[1])
    longitude = -float(match[3]) if match[4] == "W" else float(match[3])
    is_place = abs(latitude) <= 90 and abs(longitude) <= 180
    # Receivers without a position write zeros.
    return (latitude, longitude) if is_place and (latitude or longitude) else None
