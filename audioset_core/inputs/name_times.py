"""When a recording began, from its file's name and those of its neighbours.

One name may have several readings: ``-0100`` after a time is a zone or a running number,
``20240518_0042`` is 00:42 or the 42nd recording, ``59230001`` is a time in hex or a number. The
names of a folder together decide which one is right (`Series`).

Source: AudioMoth-Firmware-Basic, "The filename is the time in hexadecimal" (firmware before 1.2);
Wildlife Acoustics Song Meter user guides, PREFIX_YYYYMMDD_HHMMSS, and with $ for triggered ones;
https://github.com/QutEcoacoustics/emu/issues/427 (milliseconds without a point),
https://github.com/HaroldMills/Vesper/issues/216 (_Z), https://github.com/Nachtzuster/BirdNET-Pi
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone

_DAY = r"(?<!\d)(?P<Y>\d{4})(?P<_d>[-_.]?)(?P<m>\d\d)(?P=_d)(?P<d>\d\d)"
_FRACTION = r"(?:[.,](?P<f>\d{1,9})(?!\d)|(?P<ms>\d{3})(?!\d))?"
_HALF = r"(?:[ \u202f]?(?P<p>[AaPp])\.?[Mm]\b)?"
_ZONE_DIGITS = r"(?:0\d|1[0-4]):?(?:00|15|30|45)(?!\d)"
_ZONE = rf"(?:[ _]?(?P<z>Z(?![A-Za-z0-9])|[+-]{_ZONE_DIGITS}|\+(?:0\d|1[0-4])(?!\d)))?(?!\d)"
_SHAPES = tuple(
    re.compile(shape)
    for shape in (
        # 20240518_043000, 2024-05-18T04-30-00Z, 20240518$043000, PXL_20240518_043000123
        rf"{_DAY}[T_ .$-]{{0,2}}(?P<H>\d\d)(?P<_t>[-_.:]?)(?P<M>\d\d)(?P=_t)(?P<S>\d\d)"
        rf"{_FRACTION}{_HALF}{_ZONE}",
        # 2024-05-18-birdnet-04:30:00, 2024-05-18-birdnet-RTSP_1-04:30:00, 2024-05-18 at 4.30.00 PM
        rf"{_DAY}(?:[-_ ]+[A-Za-z][A-Za-z0-9]*(?:_\d{{1,2}})?){{0,3}}[-_ ]+"
        rf"(?P<H>\d\d?)(?P<_t>[-_.:])(?P<M>\d\d)(?P=_t)(?P<S>\d\d){_FRACTION}{_HALF}{_ZONE}",
        # 20240518_0430, 2024-05-18T04:30+02:00
        rf"{_DAY}[T_ -]{{0,2}}(?P<H>\d\d)(?P<_t>[-_.:h]?)(?P<M>\d\d)(?P<S>)(?P<f>)(?P<ms>)"
        rf"{_HALF}{_ZONE}(?![A-Za-z0-9])",
    )
)
_SHORT = _SHAPES[-1]
_NUMBER_BEHIND = re.compile(r"[ _]?-(\d{1,6})(?!\d)")
_HEX = re.compile(r"[0-9A-Fa-f]{8}")
# Recorders with hex names: AudioMoth, sold since 2017. 20240518 read as hex is in 1987.
_HEX_YEARS = (2015, 2045)
_YEARS = (1970, 2199)
# More zones west of Greenwich than that in one folder are running numbers.
_MOST_ZONES = 3
# Its camera names files by UTC, wherever the phone is.
_OF_PIXEL = "PXL_"


@dataclass(slots=True)
class Series:
    """What the names in a folder have in common; `add` every name before asking."""

    _behind: set[str] = field(default_factory=set)
    _shorts: set[int] = field(default_factory=set)
    has_hex_names: bool = False
    """Whether eight hex digits are a time here: some name in the folder has letters in them."""

    def add(self, name: str) -> None:
        """Add a name of the folder."""
        stem = name.partition(".")[0]
        self.has_hex_names |= _in_hex(stem) is not None and not stem.isdecimal()
        for match, is_short in _matches(name):
            behind = _NUMBER_BEHIND.match(name, _end_of_time(match))
            if behind:
                self._behind.add(behind[1])
            if is_short:
                self._shorts.add(int(match["H"] + match["M"]))
            return

    @property
    def has_numbers_behind(self) -> bool:
        """Whether -0100 after a time is a running number: some name's number cannot be a zone."""
        are_zones = all(re.fullmatch(_ZONE_DIGITS, digits) for digits in self._behind)
        return not are_zones or len(self._behind) > _MOST_ZONES

    @property
    def has_numbers_for_times(self) -> bool:
        """Whether four digits after a day count recordings: 0001, 0002; or 0075, no time."""
        values = self._shorts
        if any(value // 100 > 23 or value % 100 > 59 for value in values):
            return True
        first, last = min(values, default=0), max(values, default=0)
        is_counted = first in (0, 1) and last - first + 1 == len(values)
        return values == {1} or (is_counted and len(values) > 1)


def needs_neighbours(name: str) -> bool:
    """Whether the meaning of this name depends on the other names in the folder."""
    if _in_hex(name.partition(".")[0]) is not None:
        return True
    return any(
        is_short or _NUMBER_BEHIND.match(name, _end_of_time(match))
        for match, is_short in _matches(name)
    )


def time_in_name(name: str, series: Series | None = None) -> tuple[datetime, str] | None:
    """(start, how it was found); the start has no zone where the name gives none.

    Without a series, the name is judged alone.

    >>> time_in_name("SMM01_20240518_043000.wav")
    (datetime.datetime(2024, 5, 18, 4, 30), 'name')
    >>> time_in_name("5F8D2C10.WAV")[0].isoformat()
    '2020-10-19T06:02:56+00:00'
    """
    if series is None:
        series = Series()
        series.add(name)
    for match, is_short in _matches(name):
        if is_short and series.has_numbers_for_times:
            continue
        when = _read(match, with_minus=not series.has_numbers_behind)
        if when is not None:
            if when.tzinfo is None and name.startswith(_OF_PIXEL):
                when = when.replace(tzinfo=UTC)
            return when, "name"
    stem = name.partition(".")[0]
    when = _in_hex(stem)
    if when is not None and (series.has_hex_names or not stem.isdecimal()):
        return when, "name in hex"
    return None


def time_in_text(text: str) -> datetime | None:
    """The time that a text states in the form used in file names; None if there is none."""
    for shape in _SHAPES:
        match = shape.fullmatch(text)
        when = _read(match, with_minus=True) if match else None
        if when is not None:
            return when
    return None


def plausible(when: datetime) -> datetime | None:
    """The time, if its year is plausible for a recording; else None."""
    return when if _YEARS[0] <= when.year <= _YEARS[1] else None


def fixed_zone(text: str) -> timezone | None:
    """A zone written as an offset from UTC: Z, +02:00, -0430, +01.

    >>> fixed_zone("-0430")
    datetime.timezone(datetime.timedelta(days=-1, seconds=70200))
    """
    if text == "Z":
        return UTC
    match = re.fullmatch(r"([+-])(\d\d)(?::?(\d\d))?", text)
    if not match:
        return None
    distance = timedelta(hours=int(match[2]), minutes=int(match[3] or 0))
    if distance >= timedelta(hours=24):
        return None
    return timezone(-distance if match[1] == "-" else distance)


def _matches(name: str) -> list[tuple[re.Match[str], bool]]:
    """What looks like a time, the most complete form first, and whether it lacks seconds."""
    return [(match, shape is _SHORT) for shape in _SHAPES for match in shape.finditer(name)]


def _end_of_time(match: re.Match[str]) -> int:
    return max(match.end(group) for group in ("M", "S", "f", "ms", "p"))


def _read(match: re.Match[str], *, with_minus: bool) -> datetime | None:
    part = match.groupdict()
    hour = int(part["H"])
    if part["p"]:
        if not 1 <= hour <= 12:
            return None
        hour = hour % 12 + 12 * (part["p"] in "Pp")
    fraction = (part["f"] or part["ms"] or "").ljust(6, "0")[:6]
    year, month, day, minute, second = (int(part[each] or 0) for each in "YmdMS")
    try:
        when = datetime(year, month, day, hour, minute, second, int(fraction))
    except ValueError:
        return None
    zone = part["z"]
    if zone and (with_minus or not zone.startswith("-")):
        when = when.replace(tzinfo=fixed_zone(zone))
    return plausible(when)


def _in_hex(stem: str) -> datetime | None:
    """The time in the name of an old AudioMoth's file, if the name can be one."""
    if not _HEX.fullmatch(stem):
        return None
    when = datetime.fromtimestamp(int(stem, 16), UTC)
    return when if _HEX_YEARS[0] <= when.year <= _HEX_YEARS[1] else None
