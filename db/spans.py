"""Conditions on where and when: a file's path, and the clock on the wall while a sound was heard.

Times are whole milliseconds, in which SQLite and PostgreSQL divide alike.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    FromClause,
    Subquery,
    and_,
    case,
    cast,
    func,
    or_,
    select,
)

from db.errors import DatabaseUserError
from db.tables import clips, models, parameter_sets

DAY_MS = 86_400_000
_WILDCARDS = {"*": ".*", "?": "."}


@dataclass(frozen=True, slots=True)
class Span:
    """From one moment to before another: Unix milliseconds, or of each day if `is_daily`.

    A daily span is on the recorder's clock, and may pass midnight.
    """

    from_ms: int
    to_ms: int
    is_daily: bool = False


def start_s(row: Any) -> ColumnElement[float]:
    """Where a detection begins in its clip; needs parameter_sets."""
    return row.c.start_patch * parameter_sets.c.patch_hop_s  # type: ignore[no-any-return]


def end_s(row: Any, clip: Any = clips) -> ColumnElement[float]:
    """Where a detection ends, within its clip; needs parameter_sets, models and the clip."""
    last = row.c.end_patch * parameter_sets.c.patch_hop_s + models.c.window_s
    return case((last > clip.c.duration_s, clip.c.duration_s), else_=last)


def newly_covered(part: FromClause, *group: str) -> Subquery:
    """The rows of `part`, with `new_s`: the seconds that no earlier row of their group covers.

    `part` has start_s, end_s and the columns by which it is grouped. Summed up over a group, that
    is the length of the union of its intervals.
    """
    # How far what came before reaches: only what lies beyond is new.
    before_s = func.max(part.c.end_s).over(
        partition_by=[part.c[name] for name in group],
        order_by=(part.c.start_s, part.c.end_s),
        rows=(None, -1),
    )
    row = select(part, before_s.label("before_s")).subquery("with_before")
    new_s = case(
        (row.c.before_s.is_(None), row.c.end_s - row.c.start_s),
        (row.c.before_s <= row.c.start_s, row.c.end_s - row.c.start_s),
        (row.c.before_s < row.c.end_s, row.c.end_s - row.c.before_s),
        else_=0.0,
    )
    return select(row, new_s.label("new_s")).subquery("covered")


def in_span(
    span: Span, recording: Any, begins_s: ColumnElement[float], ends_s: ColumnElement[float]
) -> ColumnElement[bool]:
    """The condition that a part of a recording (a row of sources) overlaps the span."""
    began = recording.c.recorded_unix_ms
    from_ms, to_ms = began + _ms(begins_s), began + _ms(ends_s)
    if not span.is_daily:
        return and_(began.is_not(None), from_ms < span.to_ms, to_ms > span.from_ms)
    width = (span.to_ms - span.from_ms) % DAY_MS or DAY_MS
    local = from_ms + recording.c.recorded_utc_offset_s * 1_000
    # How long after the last beginning of the span; a day is added to stay above zero.
    since = (local - span.from_ms + DAY_MS) % DAY_MS
    reaches_next = since + (to_ms - from_ms) > DAY_MS
    return and_(began.is_not(None), or_(since < width, reaches_next))


def at_paths(globs: Sequence[str], recording: Any) -> ColumnElement[bool]:
    """The condition that a source's path fits any of the globs."""
    return or_(*(recording.c.path_text.regexp_match(glob_regex(glob)) for glob in globs))


def glob_regex(glob: str) -> str:
    """A regular expression that Python and PostgreSQL read alike.

    ``*`` is any text, ``?`` any character, ``[abc]`` one of them. A relative glob fits from any
    folder on, and a folder stands for all that is below it.

    Raises:
        DatabaseUserError: it is none.
    """
    # Every second part is a wildcard.
    parts = re.split(r"(\*|\?|\[!?[^\]/]+\])", glob.rstrip("/"))
    text = "".join(_wildcard(p) if n % 2 else re.escape(p) for n, p in enumerate(parts))
    expression = f"{'^' if glob.startswith('/') else '(^|/)'}{text}(/.*)?$"
    try:
        re.compile(expression)
    except re.error as error:
        raise DatabaseUserError(f"{glob!r} is no pattern for paths: {error}") from None
    return expression


def _wildcard(part: str) -> str:
    if part in _WILDCARDS:
        return _WILDCARDS[part]
    is_negated = part.startswith("[!")
    inner = re.sub(r"([^\w-])", r"\\\1", part[2 if is_negated else 1 : -1].replace("--", "-"))
    return f"[{'^' if is_negated else ''}{inner}]"


def _ms(seconds: ColumnElement[float]) -> ColumnElement[int]:
    return cast(func.round(seconds * 1_000.0), BigInteger)
