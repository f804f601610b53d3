"""Which days of which places still lack their sun, and storing them."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import Engine, func, select

from db.engine import reading, upsert, writing
from db.query.sun import places_and_days
from db.query.time_spans import DAY_MS
from db.schema.tables import clips, sun_periods

PlaceDay = tuple[int, int, int]
"""Latitude and longitude in hundredths of a degree, and a UTC day counted from 1970."""


def days_without_sun(engine: Engine) -> list[PlaceDay]:
    """The days on which something was recorded at a place, and whose periods are not stored."""
    starts = sun_periods.c.starts_unix_ms
    stored = select(
        sun_periods.c.latitude_cdeg, sun_periods.c.longitude_cdeg, starts // DAY_MS
    ).where(starts % DAY_MS == 0)  # fmt: skip
    with reading(engine) as conn:
        longest_s = conn.execute(select(func.max(clips.c.duration_s))).scalar() or 0.0
        wanted = {
            (latitude, longitude, day)
            for latitude, longitude, first, last in conn.execute(places_and_days(longest_s))
            for day in range(first, last + 1)
        }
        return sorted(wanted.difference(map(tuple, conn.execute(stored)))) if wanted else []


def store_sun(engine: Engine, rows: Iterable[tuple[int, int, str, int, int]]) -> None:
    """Store (latitude, longitude, phase, begin, end), in one transaction; hundredths of a degree,
    and Unix milliseconds. What another process has stored meanwhile is the same."""
    names = ("latitude_cdeg", "longitude_cdeg", "phase", "starts_unix_ms", "ends_unix_ms")
    values = [dict(zip(names, row, strict=True)) for row in rows]
    if values:
        with writing(engine) as conn:
            conn.execute(upsert(conn, sun_periods).on_conflict_do_nothing(), values)
