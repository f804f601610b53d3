"""When a recording began: by a manifest, by what its file states, or by its file's name.

The names that recorders write are read by `audioset_core.inputs.name_times`, other names by a
pattern that the person gives.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from functools import cache
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from audioset_core.errors import UserError
from audioset_core.file_headers.field_notes import (
    MANIFEST,
    NAME,
    START_ORDER,
    TOLERANCE_S,
    distance_s,
)
from audioset_core.inputs.name_times import (
    Series,
    fixed_zone,
    plausible,
    time_in_name,
    time_in_text,
)
from audioset_core.records import TimeRule

META_KEYS = ("recorded_at", "recording_start", "start_time", "datetime", "timestamp")
"""Keys of a manifest that may hold the start."""

START_FORMATS = (
    "understood are 2024-05-18T04:30:00+02:00 (ISO 8601), 2024-05-18 04:30, 20240518_043000, and "
    "Unix seconds or milliseconds"
)

ASSUMED = "UTC assumed"
NOT_UNDERSTOOD = "not understood"
DIFFERS, IMPLAUSIBLE = "differs", "is not plausible"

_DIRECTIVES = {
    "Y": r"\d{4}", "y": r"\d\d", "m": r"\d\d", "d": r"\d\d", "H": r"\d\d", "M": r"\d\d",
    "S": r"\d\d", "f": r"\d{1,6}", "j": r"\d{3}", "I": r"\d\d", "p": r"[AaPp][Mm]",
    "b": r"[A-Za-z]{3}", "z": r"(?:Z|[+-]\d\d:?\d\d)",
}  # fmt: skip
# The field of a date that each directive gives.
_FIELDS = {
    "Y": "year", "y": "year", "m": "month", "b": "month", "d": "day", "H": "hour", "M": "minute",
    "S": "second", "f": "microsecond", "z": "tzinfo",
}  # fmt: skip
_FROM_UTC = re.compile(r"(?:GMT|UTC|UT|Z)?\s*([+\u2212-])\s*(\d\d?)(?::?(\d\d))?", re.IGNORECASE)
_YEAR_FIRST = re.compile(
    r"(\d{4})[-/:.](\d\d?)[-/:.](\d\d?)(?:[T ]+(\d\d?):(\d\d)(?::(\d\d)(?:[.,](\d{1,9}))?)?)?"
    r"\s*(Z|UTC|GMT|[+-]\d\d(?::?\d\d)?)?"
)
# Unix time in seconds, milliseconds, microseconds, nanoseconds: each from 1973 on.
_UNITS = ((1e17, 1e9), (1e14, 1e6), (1e11, 1e3), (1e8, 1.0))


@dataclass(frozen=True, slots=True)
class StartTime:
    """When a recording began, its clock's distance from UTC, and how that is known."""

    unix_ms: int
    utc_offset_s: int
    found_by: str

    @property
    def local_day(self) -> str:
        """The day on the recorder's clock, in ISO 8601."""
        local = timedelta(milliseconds=self.unix_ms, seconds=self.utc_offset_s)
        return (datetime(1970, 1, 1) + local).date().isoformat()


_USUAL = TimeRule()


def start_time(
    path_text: str,
    meta: Mapping[str, Any] | None = None,
    rule: TimeRule = _USUAL,
    series: Series | None = None,
    told: Sequence[tuple[str, str | None]] = (),
) -> StartTime | None:
    """The start of a recording by the first in `START_ORDER` that states one.

    `series` holds what the names of the folder have in common; `told` is what the file's own notes
    state: where, and the time in ISO 8601, or None where that is not plausible. Who states another
    start than the first, or an implausible one, is named in `StartTime.found_by`.

    >>> start_time("site/20240518_043000.wav", rule=TimeRule(timezone="+02:00"))
    StartTime(unix_ms=1715999400000, utc_offset_s=7200, found_by='name, +02:00')
    """
    zone = find_zone(rule.timezone)
    found = [
        (MANIFEST, _from_meta(meta or {})),
        (NAME, _from_name(path_text, rule.pattern, series)),
    ]
    found += [(by, (datetime.fromisoformat(at), by)) for by, at in told if at and by in START_ORDER]
    stated = sorted(
        ((by, *each) for by, each in found if each), key=lambda each: START_ORDER.index(each[0])
    )
    if not stated:
        return None
    _, when, how = stated[0]
    how += "".join(f"; {not_understood(key)}" for key, _ in unread_starts(meta or {}))
    first = _in_zone(when, zone)
    others = ((by, distance_s(_in_zone(at, zone), first)) for by, at, _ in stated[1:])
    differing = {by for by, apart_s in others if apart_s > TOLERANCE_S}
    how += "".join(f"; {by} {DIFFERS}" for by in START_ORDER if by in differing)
    how += implausible(told)
    if when.tzinfo is not None:
        zone_name = "zone given there"
    else:
        when, zone_name = when.replace(tzinfo=zone or UTC), rule.timezone or ASSUMED
    offset = when.utcoffset() or timedelta()
    unix_ms = (when - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)
    return StartTime(unix_ms, round(offset.total_seconds()), f"{how}, {zone_name}")


def _in_zone(when: datetime, zone: tzinfo | None) -> datetime:
    return when if when.tzinfo or zone is None else when.replace(tzinfo=zone)


def implausible(told: Sequence[tuple[str, str | None]]) -> str:
    """The remark on what the file states, where that cannot be right."""
    wrong = dict.fromkeys(by for by, at in told if at is None and by in START_ORDER)
    return "".join(f"; {by} {IMPLAUSIBLE}" for by in wrong)


def rule_for(path_text: str, rules: tuple[TimeRule, ...]) -> TimeRule:
    """The pattern and the zone of the nearest folders above the file that have one.

    Without any, the usual names are read, in UTC.

    >>> rules = (TimeRule(timezone="UTC"), TimeRule("/data/berlin", timezone="Europe/Berlin"))
    >>> rule_for("/data/berlin/a.wav", rules).timezone
    'Europe/Berlin'
    """
    fitting = [
        rule
        for rule in rules
        if not rule.folder or path_text.startswith(rule.folder.rstrip("/") + "/")
    ]
    fitting.sort(key=lambda rule: -len(rule.folder))
    return TimeRule(
        folder=fitting[0].folder if fitting else "",
        pattern=next((rule.pattern for rule in fitting if rule.pattern), None),
        timezone=next((rule.timezone for rule in fitting if rule.timezone), None),
    )


def unread_starts(meta: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """(key, value) of start times that are not understood, unless another key gives the start."""
    if _from_meta(meta) is None:
        given = comparable_keys(meta)
        yield from ((key, given[key]) for key in META_KEYS if given.get(key) not in (None, ""))


def not_understood(key: str) -> str:
    """The remark on a recording whose start in the manifest could not be read."""
    return f"manifest's {key} {NOT_UNDERSTOOD}"


@cache
def find_zone(name: str | None) -> tzinfo | None:
    """A time zone by its name (Europe/Berlin, UTC) or by its offset from UTC (+02:00).

    >>> find_zone("Europe/Berlin")
    zoneinfo.ZoneInfo(key='Europe/Berlin')

    Raises:
        UserError: there is no zone of that name.
    """
    if name is None:
        return None
    if re.fullmatch(r"[+-]\d\d:?\d\d", name):
        fixed = fixed_zone(name)
        if fixed is not None:
            return fixed
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        distance = _FROM_UTC.fullmatch(name.strip())
        if distance and int(distance[2]) < 24:
            meant = (
                f"{distance[1].replace(chr(0x2212), '-')}{distance[2]:0>2}:{distance[3] or '00'}"
            )
            raise UserError(f"unknown time zone {name!r}; did you mean {meant}?") from None
        from difflib import get_close_matches

        by_folded = {each.casefold(): each for each in available_timezones()}
        close = get_close_matches(name.casefold(), by_folded, n=3, cutoff=0.5)
        nearest = ", ".join(by_folded[each] for each in close) or "Europe/Berlin"
        message = f"unknown time zone {name!r}; nearest: {nearest}"
        raise UserError(f"{message}; or give an offset such as +02:00") from None


@cache
def compiled(pattern: str) -> re.Pattern[str]:
    """A `strptime` pattern as an expression that may match anywhere in a name.

    >>> bool(compiled("%d-%m-%y").search("owl 18-05-24.wav"))
    True

    Raises:
        UserError: an unknown directive, or a pattern without a day.
    """
    parts = re.split(r"%(.)", pattern)
    expression, seen = re.escape(parts[0]), set[str]()
    for directive, text in zip(parts[1::2], parts[2::2], strict=True):
        if directive not in _DIRECTIVES or directive in seen:
            allowed = " ".join(f"%{each}" for each in _DIRECTIVES)
            message = f"unknown directive %{directive} in the pattern {pattern!r}"
            raise UserError(f"{message}; allowed, each once: {allowed}")
        seen.add(directive)
        expression += f"({_DIRECTIVES[directive]}){re.escape(text)}"
    has_day = seen & {"Y", "y"} and ("j" in seen or ("d" in seen and seen & {"m", "b"}))
    if not has_day or pattern.endswith("%"):
        raise UserError(f"the pattern {pattern!r} has no day, as %Y%m%d_%H%M%S has")
    return re.compile(expression)


def _from_meta(meta: Mapping[str, Any]) -> tuple[datetime, str] | None:
    given = comparable_keys(meta)
    for key in (key for key in META_KEYS if key in given):
        when = _as_time(given[key])
        if when is not None:
            return when, f"manifest's {key}"
    return None


def comparable_keys(meta: Mapping[str, Any]) -> dict[str, Any]:
    """A manifest's metadata by keys in their comparable form: ``Recorded at`` is recorded_at."""
    return {
        re.sub(r"[\s-]+", "_", key.strip()).casefold(): meta[key] for key in reversed(list(meta))
    }


def _as_time(value: Any) -> datetime | None:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    text = str(value).strip()
    try:
        if re.fullmatch(r"\d+(\.\d+)?(e\+?\d+)?", text):
            return _of_digits(text)
        return _of_text(text)
    except (ValueError, OverflowError, OSError):
        return None


def _of_digits(text: str) -> datetime | None:
    """A day and perhaps a time without marks between, or Unix time."""
    if text.isdecimal() and len(text) in (8, 12, 14, 17):
        when = time_in_text(text) if len(text) > 8 else datetime.fromisoformat(text)
        if when is not None and plausible(when):
            return when
    number = float(text)
    for least, per_second in _UNITS:
        if number >= least:
            return plausible(datetime.fromtimestamp(number / per_second, UTC))
    return None


def _of_text(text: str) -> datetime | None:
    try:
        return plausible(datetime.fromisoformat(text))
    except ValueError:
        pass
    match = _YEAR_FIRST.fullmatch(text)
    if match is None:
        return time_in_text(text)
    *parts, fraction, zone = match.groups()
    year, month, day, hour, minute, second = (int(part or 0) for part in parts)
    micros = int((fraction or "0").ljust(6, "0")[:6])
    when = plausible(datetime(year, month, day, hour, minute, second, micros))
    if when is None or zone is None:
        return when
    return when.replace(tzinfo=UTC if zone in ("UTC", "GMT") else fixed_zone(zone))


def _from_name(
    path_text: str, pattern: str | None, series: Series | None
) -> tuple[datetime, str] | None:
    """By the pattern and by the usual forms; of two that agree, the usual, which may give more."""
    name = path_text.rpartition("/")[2]
    usual = time_in_name(name, series)
    if pattern is None:
        return usual
    own = _by_pattern(path_text if "/" in pattern else name, pattern)
    if own is None or usual is None:
        return own or usual
    return usual if _agree(own[0], usual[0], pattern) else own


def _agree(own: datetime, usual: datetime, pattern: str) -> bool:
    """Whether the usual reading agrees with everything that the pattern states."""
    if "z" in _directives(pattern):
        return own == usual if usual.tzinfo else False
    told = {_FIELDS[each] for each in _directives(pattern) if each in _FIELDS}
    told |= {"month", "day"} if "j" in _directives(pattern) else set()
    told |= {"hour"} if "I" in _directives(pattern) else set()
    return all(getattr(own, name) == getattr(usual, name) for name in told)


def _directives(pattern: str) -> set[str]:
    return set(re.findall(r"%(.)", pattern))


def _by_pattern(text: str, pattern: str) -> tuple[datetime, str] | None:
    for match in compiled(pattern).finditer(text):
        try:
            when = plausible(datetime.strptime(match.group(), pattern))
        except ValueError:
            continue
        if when is not None:
            return when, f"name as {pattern}"
    return None
