"""Spans of time as people type them: two moments, two days, or two times of every day."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, tzinfo

from audioset_core.errors import UserError
from db.query.time_spans import Span

_TIME = re.compile(r"([01]\d|2[0-4]):([0-5]\d)(?::([0-5]\d))?")
_DAY = re.compile(r"\d{4}-\d\d-\d\d")
_ALLOWED = "write 2024-05-18, 2024-05-18T04:30 or, for every day, 04:30"


def parse_span(first: str, last: str, zone: tzinfo) -> Span:
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
        raise UserError(f"--between: {text!r} is no time; {_ALLOWED}") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=zone)


def _unix_ms(moment: datetime) -> int:
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)
