"""From when to when a sound is heard: in its clip, and by the clock.

Times are whole milliseconds, in which SQLite and PostgreSQL divide alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Double,
    FromClause,
    Select,
    Subquery,
    and_,
    case,
    cast,
    func,
    literal_column,
    or_,
    select,
)

from db.query.current_labelling import with_facts
from db.schema.tables import clips, detections, labellings, models, nodes, parameter_sets

DAY_MS = 86_400_000
_SLACK_S = 1e-6

_MICROSECONDS: ColumnElement[float] = literal_column("1000000.0", Double)


@dataclass(frozen=True, slots=True)
class Span:
    """From one moment to before another: Unix milliseconds, or of each day if `is_daily`.

    A daily span is on the recorder's clock, and may pass midnight. `each_day`, a daily one, narrows
    a span of moments down to those times of the day.
    """

    from_ms: int
    to_ms: int
    is_daily: bool = False
    each_day: Span | None = None


def rounded_s(seconds: ColumnElement[float]) -> ColumnElement[float]:
    """Seconds as people write them: 6.24, not 6.239999999999999; to the microsecond."""
    whole: ColumnElement[float] = func.round(seconds * _MICROSECONDS, type_=Double)
    # SQLAlchemy's own division casts to a type that PostgreSQL does not know.
    return whole.op("/", return_type=Double())(_MICROSECONDS)


def start_s(row: Any, parameters: Any = parameter_sets) -> ColumnElement[float]:
    """Where a detection begins in its clip."""
    return rounded_s(row.c.start_patch * parameters.c.patch_hop_s)


def peak_s(row: Any, parameters: Any = parameter_sets) -> ColumnElement[float]:
    """Where the best patch of a detection begins in its clip."""
    return rounded_s(row.c.peak_patch * parameters.c.patch_hop_s)


def end_s(
    row: Any, clip: Any = clips, model: Any = models, parameters: Any = parameter_sets
) -> ColumnElement[float]:
    """Where a detection ends: with its last patch's window, or with the clip.

    The one place where SQL says so; in Python that is `audioset_core.scores.coverage.end_s`.
    """
    last = row.c.end_patch * parameters.c.patch_hop_s + model.c.window_s
    return rounded_s(case((last > clip.c.duration_s, clip.c.duration_s), else_=last))


def row_hop_s(parameters: Any = parameter_sets) -> ColumnElement[float]:
    """From one row of a score file to the next; rows may be coarser than detections."""
    return rounded_s(parameters.c.patch_hop_s * parameters.c.steps_per_row)


def row_window_s(model: Any = models, parameters: Any = parameter_sets) -> ColumnElement[float]:
    """How long a row of a score file lasts: as its steps together."""
    return rounded_s(model.c.window_s + parameters.c.patch_hop_s * (parameters.c.steps_per_row - 1))


def timed(*columns: Any, of: Any = detections) -> Select[Any]:
    """The columns of each detection (or interval), then start_s and end_s.

    Joined are labellings, clips, models and parameter_sets.
    """
    query = select(*columns, start_s(of).label("start_s"), end_s(of).label("end_s"))
    return with_facts(query.join_from(of, labellings, labellings.c.id == of.c.labelling_id))


def detected(*columns: Any) -> Select[Any]:
    """The columns, then the fields of `db.answer_records.Interval`, of each detection."""
    own = (nodes.c.mid, nodes.c.name, detections.c.peak, detections.c.mean)
    query = timed(*columns, *own, peak_s(detections).label("peak_s"))
    return query.join(nodes, nodes.c.id == detections.c.node_id)


def is_long_enough(
    begins_s: ColumnElement[float], ends_s: ColumnElement[float], least_s: float
) -> Any:
    """The condition that something is long enough; sums of hops are not exact."""
    return ends_s - begins_s >= least_s - _SLACK_S


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


def covered_seconds(found: Select[Any], key: str) -> Select[Any]:
    """(key, n_clips, seconds): how long the intervals of each key last together.

    What overlaps in a clip counts once. `found` has start_s, end_s, clip_id and the key.
    """
    row = newly_covered(found.subquery("found"), *dict.fromkeys((key, "clip_id"))).c
    n_clips = func.count(row.clip_id.distinct()).label("n_clips")
    return select(row[key], n_clips, func.sum(row.new_s).label("seconds")).group_by(row[key])


def in_span(
    span: Span, recording: Any, begins_s: ColumnElement[float], ends_s: ColumnElement[float]
) -> ColumnElement[bool]:
    """The condition that a part of a recording (a row of sources) overlaps the span."""
    began = recording.c.recorded_unix_ms
    from_ms, to_ms = unix_ms(began, begins_s), unix_ms(began, ends_s)
    if not span.is_daily:
        is_in = and_(began.is_not(None), from_ms < span.to_ms, to_ms > span.from_ms)
        if span.each_day is None:
            return is_in
        return and_(is_in, in_span(span.each_day, recording, begins_s, ends_s))
    width = (span.to_ms - span.from_ms) % DAY_MS or DAY_MS
    local = from_ms + recording.c.recorded_utc_offset_s * 1_000
    # How long after the last beginning of the span; a day is added to stay above zero.
    since = (local - span.from_ms + DAY_MS) % DAY_MS
    reaches_next = since + (to_ms - from_ms) > DAY_MS
    return and_(began.is_not(None), or_(since < width, reaches_next))


def unix_ms(began_ms: ColumnElement[int], seconds: Any) -> ColumnElement[int]:
    """A moment of a recording that began at another."""
    return began_ms + cast(func.round(seconds * 1_000.0), BigInteger)
