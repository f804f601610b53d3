"""Which days of which places still lack their sun, and storing them."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import Engine, select

from db.engine import reading, upsert, writing
from db.query.sun import placed_starts
from db.query.time_spans import DAY_MS
from db.schema.tables import sun_periods

PlaceDay = tuple[int, int, int]
"""Latitude and longitude in hundredths of a degree, and a UTC day counted from 1970."""


def days_without_sun(engine: Engine) -> list[PlaceDay]:
    """The days on which something was recorded at a place, and whose periods are not stored."""
    part = placed_starts().subquery("placed")
    first, last = part.c.recorded_unix_ms // DAY_MS, part.c.ends_unix_ms // DAY_MS
    place = (part.c.latitude_cdeg, part.c.longitude_cdeg)
    starts = sun_periods.c.starts_unix_ms
    stored = select(
        sun_periods.c.latitude_cdeg, sun_periods.c.longitude_cdeg, starts // DAY_MS
    ).where(starts % DAY_MS == 0)  # fmt: skip
    with reading(engine) as conn:
        wanted = {
            (latitude, longitude, day)
            for latitude, longitude, begin, end in conn.execute(
                select(*place, first, last).distinct()
            )
            for day in range(begin, end + 1)
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
