"""Times on the command line: spans as people type them, and which time zone is meant."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, tzinfo

from sqlalchemy import Engine

from audioset_core.errors import UserError
from db.query.time_spans import DAY_MS, Span
from flows.asking import stated_zone
from flows.terminal import note

_TIME = re.compile(r"([01]\d|2[0-4]):([0-5]\d)(?::([0-5]\d))?")
_DAY = re.compile(r"\d{4}-\d\d-\d\d")
_ALLOWED = "write 2024-05-18, 2024-05-18T04:30 or, for every day, 04:30"


def asked_span(engine: Engine, between: tuple[str, str], timezone: str | None) -> Span:
    """The meaning of ``--between``, in the time zone given or stated before; prints which one.

    Raises:
        UserError: not times, or an unknown time zone.
    """
    from audioset_core.inputs.start_times import find_zone

    if timezone is None:
        timezone = stated_zone(engine)
    span = _parsed(*between, zone=find_zone(timezone) or UTC)
    if not span.is_daily:
        note(f"--between is in {timezone or 'UTC, since no --timezone is given'}")
    return span


def daily_span(between: tuple[str, str]) -> Span | None:
    """Two times of day on the recorder's clock; None for all the day, or for '' ''.

    Raises:
        UserError: not times of day.
    """
    if not any(between):
        return None
    span = _parsed(*between, zone=UTC)
    if not span.is_daily:
        raise UserError("--between takes two times of day here, such as 22:00 05:00")
    return span if (span.to_ms - span.from_ms) % DAY_MS else None


def note_assumed_zone(engine: Engine) -> None:
    """Print how many starts were taken as UTC because no time zone is known."""
    from audioset_core.inputs.start_times import ASSUMED, NOT_UNDERSTOOD, START_FORMATS
    from db.catalog.start_times import NOT_FOUND, times_found

    found = times_found(engine)
    n_assumed = sum(f.n_sources for f in found if (f.found_by or "").endswith(ASSUMED))
    n_unknown = sum(
        f.n_sources for f in found if f.found_by is None or f.found_by.startswith(NOT_FOUND)
    )
    n_unread = sum(f.n_sources for f in found if NOT_UNDERSTOOD in (f.found_by or ""))
    if n_assumed:
        note(f"no time zone is known for {n_assumed:,} files, so UTC: audioset times --timezone")
    if n_unknown:
        note(f"no start time is known for {n_unknown:,} files: audioset times --pattern")
    if n_unread:
        note(f"the manifest's start time of {n_unread:,} files is not understood; {START_FORMATS}")


def _parsed(first: str, last: str, zone: tzinfo) -> Span:
    """From `first` to before `last`; a last day is included whole.

    Moments without an offset of their own are in the zone; times of day are on the recorders' own
    clocks, whatever the zone.

    Raises:
        UserError: not a time, or the last is not after the first.
    """
    daily = _TIME.fullmatch(first), _TIME.fullmatch(last)
    if daily[0] and daily[1]:
        return Span(_of_day_ms(daily[0]), _of_day_ms(daily[1]), is_daily=True)
    if daily[0] or daily[1]:
        raise UserError(f"--between {first} {last}: one is a time of day, the other is not")
    begin, until = _moment(first, zone), _moment(last, zone)
    if _DAY.fullmatch(last):
        until += timedelta(days=1)
    span = Span(_unix_ms(begin), _unix_ms(until))
    if span.to_ms <= span.from_ms:
        raise UserError(f"--between {first} {last}: the end is not after the start")
    return span


def _of_day_ms(match: re.Match[str]) -> int:
    hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return ((hours * 60 + minutes) * 60 + seconds) * 1_000


def _moment(text: str, zone: tzinfo) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise UserError(f"--between: {text!r} is not a time; {_ALLOWED}") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=zone)


def _unix_ms(moment: datetime) -> int:
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)
