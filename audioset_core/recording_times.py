"""When a recording began, from what a manifest says of it or from the name of its file.

Names as recorders write them: ``20240518_043000``, ``2024-05-18T04-30-00Z``,
``20240518T043000+0200``, AudioMoth's older eight hex digits of Unix seconds, or a pattern of one's
own.

Source: AudioMoth-Firmware-Basic, "The filename is the time in hexadecimal" (firmware before 1.2);
Wildlife Acoustics Song Meter user guides, PREFIX_YYYYMMDD_HHMMSS.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from functools import cache
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from audioset_core.errors import UserError

META_KEYS = ("recorded_at", "recording_start", "start_time", "datetime", "timestamp")
"""Keys of a manifest that may hold the start: ISO 8601, or Unix seconds."""

ASSUMED = "UTC assumed"

_STAMP = re.compile(
    r"(?<!\d)(?P<Y>\d{4})(?P<_d>[-_.]?)(?P<m>\d\d)(?P=_d)(?P<d>\d\d)[T_ .-]{0,2}"
    r"(?P<H>\d\d)(?P<_t>[-_.:]?)(?P<M>\d\d)(?P=_t)(?P<S>\d\d)(?:[.,](?P<f>\d{1,6})(?!\d))?"
    r"(?P<z>Z(?![A-Za-z])|[+-](?:0\d|1[0-4]):?(?:00|15|30|45)(?!\d))?(?!\d)"
)
_AUDIOMOTH = re.compile(r"[0-9A-Fa-f]{8}")
# Recorders with hex names: AudioMoth, sold since 2017. 20240518 read as hex is in 1987.
_HEX_YEARS = (2015, 2045)
_YEARS = (1970, 2199)
_DIRECTIVES = {
    "Y": r"\d{4}", "y": r"\d\d", "m": r"\d\d", "d": r"\d\d", "H": r"\d\d", "M": r"\d\d",
    "S": r"\d\d", "f": r"\d{1,6}", "j": r"\d{3}", "I": r"\d\d", "p": r"[AaPp][Mm]",
    "b": r"[A-Za-z]{3}", "z": r"(?:Z|[+-]\d\d:?\d\d)",
}  # fmt: skip
_FIXED_ZONE = re.compile(r"([+-])(\d\d):?(\d\d)")


@dataclass(frozen=True, slots=True)
class StartTime:
    """When a recording began, its clock's distance from UTC, and how that is known."""

    unix_ms: int
    utc_offset_s: int
    found_by: str


@dataclass(frozen=True, slots=True)
class TimeRule:
    """How the files below a folder (all, if it is empty) tell their time.

    `pattern` is as for `strptime`; None means the usual names. `timezone` None: UTC is assumed.
    """

    folder: str = ""
    pattern: str | None = None
    timezone: str | None = None


_USUAL = TimeRule()


def start_time(
    path_text: str, meta: Mapping[str, Any] | None = None, rule: TimeRule = _USUAL
) -> StartTime | None:
    """The start of a recording: by the manifest if it says so, else by the file's name."""
    zone = find_zone(rule.timezone)
    found = _from_meta(meta or {}) or _from_name(path_text, rule.pattern)
    if found is None:
        return None
    when, how = found
    if when.tzinfo is not None:
        zone_name = "zone given there"
    else:
        when, zone_name = when.replace(tzinfo=zone or UTC), rule.timezone or ASSUMED
    offset = when.utcoffset() or timedelta()
    unix_ms = (when - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)
    return StartTime(unix_ms, round(offset.total_seconds()), f"{how}, {zone_name}")


def rule_for(path_text: str, rules: tuple[TimeRule, ...]) -> TimeRule:
    """The rule of the nearest folder above the file; without any, the usual names in UTC."""
    fitting = [
        rule
        for rule in rules
        if not rule.folder or path_text.startswith(rule.folder.rstrip("/") + "/")
    ]
    return max(fitting, key=lambda rule: len(rule.folder), default=_USUAL)


@cache
def find_zone(name: str | None) -> tzinfo | None:
    """A time zone by its name (Europe/Berlin, UTC) or as a fixed distance (+02:00).

    Raises:
        UserError: there is none of that name.
    """
    if name is None:
        return None
    fixed = _FIXED_ZONE.fullmatch(name)
    if fixed:
        sign, hours, minutes = fixed.groups()
        distance = timedelta(hours=int(hours), minutes=int(minutes))
        if distance < timedelta(hours=24):
            return timezone(-distance if sign == "-" else distance)
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        from difflib import get_close_matches

        by_folded = {each.casefold(): each for each in available_timezones()}
        close = get_close_matches(name.casefold(), by_folded, n=3, cutoff=0.5)
        nearest = ", ".join(by_folded[each] for each in close) or "Europe/Berlin"
        message = f"no time zone is called {name!r}; nearest: {nearest}"
        raise UserError(f"{message}; or give a distance such as +02:00") from None


@cache
def compiled(pattern: str) -> re.Pattern[str]:
    """What a `strptime` pattern matches, anywhere in a name.

    Raises:
        UserError: a directive that is not known, or no day in it.
    """
    parts = re.split(r"%(.)", pattern)
    expression, seen = re.escape(parts[0]), set[str]()
    for directive, text in zip(parts[1::2], parts[2::2], strict=True):
        if directive not in _DIRECTIVES or directive in seen:
            allowed = " ".join(f"%{each}" for each in _DIRECTIVES)
            message = f"%{directive} in the pattern {pattern!r} is not understood"
            raise UserError(f"{message}; allowed, each once: {allowed}")
        seen.add(directive)
        expression += f"({_DIRECTIVES[directive]}){re.escape(text)}"
    has_day = seen & {"Y", "y"} and ("j" in seen or ("d" in seen and seen & {"m", "b"}))
    if not has_day or pattern.endswith("%"):
        raise UserError(f"the pattern {pattern!r} tells no day, as %Y%m%d_%H%M%S does")
    return re.compile(expression)


def _from_meta(meta: Mapping[str, Any]) -> tuple[datetime, str] | None:
    for key in META_KEYS:
        when = _as_time(meta.get(key))
        if when is not None:
            return when, f"manifest's {key}"
    return None


def _as_time(value: Any) -> datetime | None:
    try:
        if isinstance(value, str) and not re.fullmatch(r"\d+(\.\d+)?", value.strip()):
            return _plausible(datetime.fromisoformat(value.strip()))
        if isinstance(value, str | int | float) and not isinstance(value, bool):
            return _plausible(datetime.fromtimestamp(float(value), UTC))
    except (ValueError, OverflowError, OSError):
        pass
    return None


def _from_name(path_text: str, pattern: str | None) -> tuple[datetime, str] | None:
    name = path_text.rpartition("/")[2]
    if pattern is not None:
        return _by_pattern(path_text if "/" in pattern else name, pattern)
    for match in _STAMP.finditer(name):
        when = _stamp(match)
        if when is not None:
            return when, "name"
    stem = name.partition(".")[0]
    if _AUDIOMOTH.fullmatch(stem):
        when = datetime.fromtimestamp(int(stem, 16), UTC)
        if _HEX_YEARS[0] <= when.year <= _HEX_YEARS[1]:
            return when, "name in hex"
    return None


def _stamp(match: re.Match[str]) -> datetime | None:
    part = match.groupdict()
    micros = int((part["f"] or "0").ljust(6, "0"))
    numbers = [int(part[each]) for each in "YmdHMS"]
    try:
        when = _plausible(datetime(*numbers, micros))  # type: ignore[arg-type,call-arg]
    except ValueError:
        return None
    zone = part["z"]
    if when is None or zone is None:
        return when
    return when.replace(tzinfo=UTC if zone == "Z" else find_zone(zone))


def _by_pattern(text: str, pattern: str) -> tuple[datetime, str] | None:
    for match in compiled(pattern).finditer(text):
        try:
            when = _plausible(datetime.strptime(match.group(), pattern))
        except ValueError:
            continue
        if when is not None:
            return when, f"name as {pattern}"
    return None


def _plausible(when: datetime) -> datetime | None:
    return when if _YEARS[0] <= when.year <= _YEARS[1] else None
