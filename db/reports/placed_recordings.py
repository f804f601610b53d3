"""Where recordings were made, for packages: sites, the days of their recorders, and one file each.

A recording can be published if it is known where and when it was made. Of a clip's files, the first
one that has both stands for it: another copy would have every observation twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import ColumnElement, Connection, and_, or_, select

from db.query.paths import first_source
from db.query.question import Question
from db.record_columns import columns_for
from db.reports.export_rows import RecordingRow
from db.schema.tables import site_rules, sites, sources


@dataclass(frozen=True, slots=True)
class Stay:
    """A rule of a site that holds on some days (ISO, both included): a recorder stayed there."""

    kind: str
    value: str
    first_day: str | None
    last_day: str | None

    def has(self, row: RecordingRow, day: str) -> bool:
        """Whether a recording of that day was made during the stay."""
        own = self.value.rstrip("/")
        is_own = (
            (row.serial or "").casefold() == own.casefold()
            if self.kind == "serial"
            else row.path_text == own or row.path_text.startswith(f"{own}/")
        )
        return is_own and (self.first_day or day) <= day <= (self.last_day or day)

    @property
    def days(self) -> str:
        """From when to when, in words."""
        first, last = self.first_day, self.last_day
        if first and last:
            return f"{first} to {last}"
        return f"from {first}" if first else f"until {last}"


@dataclass(frozen=True, slots=True)
class Place:
    """A site, and the stays whose days are stated, the earliest first."""

    name: str
    latitude_deg: float
    longitude_deg: float
    stays: Sequence[Stay] = ()

    def days_of(self, row: RecordingRow) -> str:
        """The days of the stay in which a recording was made; "" where none are stated."""
        local_s = (row.recorded_unix_ms or 0) // 1000 + (row.recorded_utc_offset_s or 0)
        day = (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=local_s)).date().isoformat()
        return next((stay.days for stay in self.stays if stay.has(row, day)), "")


def places(conn: Connection) -> dict[int, Place]:
    """Every site by its id."""
    dated = or_(site_rules.c.first_day.is_not(None), site_rules.c.last_day.is_not(None))
    query = select(site_rules.c.site_id, *columns_for(Stay, site_rules)).where(dated)
    stays: dict[int, list[Stay]] = {}
    for site_id, *rule in conn.execute(query.order_by(site_rules.c.first_day, site_rules.c.id)):
        stays.setdefault(site_id, []).append(Stay(*rule))
    rows = conn.execute(select(sites))
    return {
        row.id: Place(row.name, row.latitude_deg, row.longitude_deg, stays.get(row.id, ()))
        for row in rows
    }


def stands_for_clip(question: Question, *, is_true: bool = True) -> ColumnElement[bool]:
    """The condition that a row of sources has a site and a start, and is its clip's first such.

    Without `is_true`, that it is not.
    """
    other = sources.alias("placed")
    has_place = other.c.site_id.in_(select(sites.c.id))
    is_placed = and_(has_place, other.c.recorded_unix_ms.is_not(None))
    query = first_source(sources.c.clip_id, question.paths, is_placed, of=other)
    first = query.correlate(sources).scalar_subquery()
    return sources.c.id == first if is_true else sources.c.id.is_distinct_from(first)
