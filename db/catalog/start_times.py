"""When recordings began, as stored with their sources, and the rules by which that was found."""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Engine,
    Row,
    bindparam,
    delete,
    func,
    insert,
    or_,
    select,
    update,
)

from audioset_core.records import Statement, TimeRule
from db.catalog.clips import notes_of
from db.engine import reading, writing
from db.paging import page_of, pages
from db.schema.tables import clips, sources, time_rules

_PAGE = 2_000
_FOLDERS_AT_ONCE = 50

NOT_FOUND = "not found"
"""How `recorded_by` begins where no start was found."""


@dataclass(frozen=True, slots=True)
class UntimedSource:
    """A file, and what is known that may state when it was recorded."""

    path_digest: bytes
    path_text: str
    meta: dict[str, Any] | None
    stored: tuple[int | None, int | None, str | None, int | None, str | None] = (None,) * 5
    """What was found before: Unix milliseconds, distance from UTC, how, the site, and by whom."""
    told: tuple[tuple[str, str | None], ...] = ()
    """Where in the file a start is stated, and the start in ISO 8601; None: not a plausible one."""
    clip_id: int | None = None
    serial: str | None = None
    place: tuple[float, float] | None = None
    """Latitude and longitude that the file states."""


@dataclass(frozen=True, slots=True)
class SourceTime:
    """When and where a file was recorded; the numbers are None where that could not be found."""

    path_digest: bytes
    unix_ms: int | None
    utc_offset_s: int | None
    found_by: str
    site_id: int | None = None
    site_by: str | None = None

    @property
    def found(self) -> tuple[int | None, int | None, str, int | None, str | None]:
        """As `UntimedSource.stored`."""
        return self.unix_ms, self.utc_offset_s, self.found_by, self.site_id, self.site_by


@dataclass(frozen=True, slots=True)
class TimesFound:
    """How many starts were found in one way, the first of them, and the last."""

    found_by: str | None
    n_sources: int
    first_unix_ms: int | None
    last_unix_ms: int | None


def sources_to_time(engine: Engine, *, again: bool = False) -> Iterator[list[UntimedSource]]:
    """Sources whose start was not looked for yet, in pages; all of them if `again`.

    No transaction stays open between pages.
    """
    yield from _pages(engine, [] if again else [sources.c.recorded_by.is_(None)])


def sources_in_folders(engine: Engine, folders: Set[str]) -> Iterator[list[UntimedSource]]:
    """All sources right in the folders, looked at or not, in pages."""
    conditions = []
    if len(folders) <= _FOLDERS_AT_ONCE:  # else it is quicker to look at everything
        prefixes = (sources.c.path_text.startswith(f"{f}/", autoescape=True) for f in folders)
        conditions.append(or_(*prefixes))
    for page in _pages(engine, conditions):
        yield [source for source in page if source.path_text.rpartition("/")[0] in folders]


def sources_in_doubt(
    engine: Engine, words: Sequence[str], limit: int
) -> tuple[int, list[UntimedSource]]:
    """How many sources have one of the words in how their start was found, and some of them."""
    is_doubted = or_(*(sources.c.recorded_by.contains(word, autoescape=True) for word in words))
    with reading(engine) as conn:
        n = conn.execute(select(func.count()).select_from(sources).where(is_doubted)).scalar_one()
    return n, next(_pages(engine, [is_doubted]), [])[:limit] if n else []


def _pages(
    engine: Engine, conditions: Sequence[ColumnElement[bool]]
) -> Iterator[list[UntimedSource]]:
    query = select(
        sources.c.id, sources.c.path_digest, sources.c.path_text, sources.c.meta,
        sources.c.recorded_unix_ms, sources.c.recorded_utc_offset_s, sources.c.recorded_by,
        sources.c.site_id, sources.c.site_by, clips.c.told_start, clips.c.told_by,
        sources.c.clip_id, clips.c.serial, clips.c.latitude_deg, clips.c.longitude_deg,
    ).select_from(sources.outerjoin(clips, clips.c.id == sources.c.clip_id))  # fmt: skip
    query = page_of(query.where(*conditions), sources.c.id, _PAGE)
    for rows in pages(engine, query, _PAGE):
        with reading(engine) as conn:
            known = [row.clip_id for row in rows if row.clip_id is not None]
            notes = notes_of(conn, known, of_start=True)
        yield [_untimed(row, notes.get(row.clip_id)) for row in rows]


def _untimed(row: Row[Any], notes: Sequence[Statement] | None) -> UntimedSource:
    _, digest, text, meta, *stored, told, told_by, clip_id, serial, latitude, longitude = row
    # Clips that were labelled before every statement was kept have one start.
    stated: tuple[tuple[str, str | None], ...] = ((told_by, told),) if told else ()
    if notes is not None:
        stated = tuple((note.name, note.start) for note in notes)
    place = None if latitude is None or longitude is None else (latitude, longitude)
    return UntimedSource(digest, text, meta, tuple(stored), stated, clip_id, serial, place)


def store_times(engine: Engine, times: Sequence[SourceTime]) -> None:
    """Store when and where recordings were made, in one transaction."""
    statement = (
        update(sources)
        .where(sources.c.path_digest == bindparam("key"))
        .values(
            recorded_unix_ms=bindparam("unix_ms"),
            recorded_utc_offset_s=bindparam("utc_offset_s"),
            recorded_by=bindparam("found_by"),
            site_id=bindparam("its_site"),
            site_by=bindparam("its_site_by"),
        )
    )
    # In the order of the digests, as everywhere, or two writers could wait for each other.
    rows: list[dict[str, Any]] = [
        {"key": t.path_digest, "unix_ms": t.unix_ms, "utc_offset_s": t.utc_offset_s}
        | {"found_by": t.found_by, "its_site": t.site_id, "its_site_by": t.site_by}
        for t in sorted(times, key=lambda t: t.path_digest)
    ]
    if rows:
        with writing(engine) as conn:
            conn.execute(statement, rows)


def stored_rules(engine: Engine) -> list[TimeRule]:
    """The rules that were stated, by folder."""
    columns = (time_rules.c.folder, time_rules.c.pattern, time_rules.c.timezone)
    with reading(engine) as conn:
        rows = conn.execute(select(*columns).order_by(time_rules.c.folder, time_rules.c.id))
        return [TimeRule(*row) for row in rows]


def store_rule(engine: Engine, rule: TimeRule, now: datetime) -> None:
    """Store the rule of a folder. What is None keeps its stored value, "" deletes that."""
    with writing(engine) as conn:
        is_same = time_rules.c.folder == rule.folder
        columns = (time_rules.c.pattern, time_rules.c.timezone)
        before = conn.execute(select(*columns).where(is_same)).first()
        pattern, timezone = before or (None, None)
        conn.execute(delete(time_rules).where(is_same))
        row = {
            "folder": rule.folder,
            "pattern": pattern if rule.pattern is None else rule.pattern or None,
            "timezone": timezone if rule.timezone is None else rule.timezone or None,
        }
        conn.execute(insert(time_rules), row | {"stated_at": now})


def times_found(engine: Engine) -> list[TimesFound]:
    """How the starts were found, the most frequent way first."""
    n_sources = func.count()
    started = sources.c.recorded_unix_ms
    query = (
        select(sources.c.recorded_by, n_sources, func.min(started), func.max(started))
        .group_by(sources.c.recorded_by)
        .order_by(n_sources.desc(), sources.c.recorded_by)
    )
    with reading(engine) as conn:
        return [TimesFound(*row) for row in conn.execute(query)]
