"""Day, dawn, dusk or night, where and when something was recorded: as a condition, and counted.

A recording's place is that of its site; without a site, the one that its file states.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import (
    ColumnElement,
    CompoundSelect,
    Connection,
    Integer,
    Select,
    and_,
    cast,
    exists,
    func,
    or_,
    select,
)

from db.query.current_labelling import represents_clip
from db.query.occasions import occasions
from db.query.time_spans import DAY_MS, unix_ms
from db.schema.tables import clips, labellings, sites, sources, sun_periods

CENTIDEGREES = 100
_PLACE = ("latitude", "longitude")
_SUN = sun_periods.alias("sun")


def in_phases(
    phases: Sequence[str], recording: Any, begins_s: ColumnElement[float], ends_s: Any
) -> ColumnElement[bool]:
    """The condition that a part of a recording, a row of sources or occasions, overlaps a phase.

    Without a place or a start it does not.
    """
    began = recording.c.recorded_unix_ms
    from_ms, to_ms = unix_ms(began, begins_s), unix_ms(began, ends_s)
    is_in = and_(_overlaps(recording, from_ms, to_ms), _SUN.c.phase.in_(phases))
    return and_(began.is_not(None), exists().where(is_in).correlate_except(_SUN))


def phase_at(recording: Any, begins_s: ColumnElement[float]) -> ColumnElement[str]:
    """The phase at a moment of a recording; NULL without a place or a start."""
    at_ms = unix_ms(recording.c.recorded_unix_ms, begins_s)
    query = select(_SUN.c.phase).where(_overlaps(recording, at_ms, at_ms + 1))
    return query.correlate_except(_SUN).scalar_subquery()


def _overlaps(recording: Any, from_ms: Any, to_ms: Any) -> ColumnElement[bool]:
    """The condition that a row of sun_periods is of a recording's place, and overlaps a span."""
    return and_(
        *(_SUN.c[f"{name}_cdeg"] == _of(recording, name) for name in _PLACE),
        _SUN.c.starts_unix_ms < to_ms,
        _SUN.c.ends_unix_ms > from_ms,
        # None is longer than a day: the key is read from there on.
        _SUN.c.starts_unix_ms > from_ms - DAY_MS - 1,
    )


def _of(recording: Any, name: str) -> ColumnElement[int]:
    """A coordinate of a row of sources or occasions, in hundredths of a degree."""
    site, clip = sites.alias("its_site"), clips.alias("its_clip")
    of_site = select(_rounded(site, name)).where(site.c.id == recording.c.site_id)
    of_clip = select(_rounded(clip, name)).where(clip.c.id == recording.c.clip_id)
    return func.coalesce(
        of_site.correlate_except(site).scalar_subquery(),
        of_clip.correlate_except(clip).scalar_subquery(),
    )


def _rounded(table: Any, name: str) -> ColumnElement[int]:
    return cast(func.round(table.c[f"{name}_deg"] * CENTIDEGREES), Integer)


def places_and_days(longest_s: float) -> CompoundSelect[Any]:
    """(latitude_cdeg, longitude_cdeg, first_day, last_day) of every file with a place and a start,
    each once; UTC days since 1970. Recordings are taken to last as long as the longest of all, so
    that the clip of a file at a site need not be read."""
    began = sources.c.recorded_unix_ms
    days = began // DAY_MS, (began + round(longest_s * 1_000)) // DAY_MS

    def at(place: Any, *condition: ColumnElement[bool]) -> Select[Any]:
        its = (_rounded(place, name) for name in _PLACE)
        return select(*its, *days).select_from(sources).where(began.is_not(None), *condition)

    of_clip = clips.c.id == sources.c.clip_id, clips.c.latitude_deg.is_not(None)
    return at(sites, sites.c.id == sources.c.site_id).union(
        at(clips, sources.c.site_id.is_(None), *of_clip)
    )


def count_without_sun(conn: Connection, *of_files: ColumnElement[bool]) -> int:
    """Labelled recordings, of the files that are asked about, with no place or no start."""
    stated = select(clips.c.id).where(clips.c.latitude_deg.is_not(None))
    has_place = or_(sources.c.site_id.is_not(None), sources.c.clip_id.in_(stated))
    placed = select(sources.c.clip_id).where(
        sources.c.clip_id.is_not(None), sources.c.recorded_unix_ms.is_not(None), has_place,
        *of_files,
    )  # fmt: skip
    query = (
        select(func.count())
        .select_from(labellings)
        .where(represents_clip(None), labellings.c.clip_id.not_in(placed))
    )
    if of_files:
        asked = select(sources.c.clip_id).where(sources.c.clip_id.is_not(None), *of_files)
        query = query.where(labellings.c.clip_id.in_(asked))
    return conn.execute(query).scalar_one()


def spans_in_phases(
    conn: Connection, phases: Sequence[str], clip_id: int, *of_files: ColumnElement[bool]
) -> list[tuple[float, float]]:
    """From where to where in a clip a phase lasts, in seconds, at any of its occasions."""
    its = occasions(*of_files, clip_id=clip_id).subquery("its")
    began = its.c.recorded_unix_ms
    length = select(clips.c.duration_s).where(clips.c.id == clip_id).scalar_subquery()
    is_its = _overlaps(its, began, unix_ms(began, length))
    query = select(_SUN.c.starts_unix_ms - began, _SUN.c.ends_unix_ms - began)
    query = query.join_from(its, _SUN, is_its).where(_SUN.c.phase.in_(phases))
    return [(begin / 1000, end / 1000) for begin, end in conn.execute(query)]
