"""When clips were recorded: the same bytes at two times count on both days."""

from __future__ import annotations

from sqlalchemy import ColumnElement, Select, func, select

from db.query.paths import is_trusted
from db.schema.tables import sources


def occasions(
    *conditions: ColumnElement[bool], clip_id: ColumnElement[int] | int | None = None
) -> Select[tuple[int, int, int]]:
    """(clip_id, recorded_unix_ms, recorded_utc_offset_s), once for each start that is known.

    Of the files that are asked about the clip (`db.query.paths.is_trusted`); they have to
    fulfil the conditions.
    """
    offset_s = func.max(sources.c.recorded_utc_offset_s).label("recorded_utc_offset_s")
    query = (
        select(sources.c.clip_id, sources.c.recorded_unix_ms, offset_s)
        .where(sources.c.clip_id.is_not(None), sources.c.recorded_unix_ms.is_not(None))
        .where(is_trusted(), *conditions)
        .group_by(sources.c.clip_id, sources.c.recorded_unix_ms)
    )
    return query if clip_id is None else query.where(sources.c.clip_id == clip_id)
