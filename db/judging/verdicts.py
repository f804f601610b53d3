"""Verdicts of people: stored once, never altered; of one person the newest counts.

The clip, the class and the span (whole milliseconds, or None for the whole clip) say what was
judged. Reading the same file again adds only what could not be stored before.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from operator import attrgetter
from typing import Any

from sqlalchemy import Engine, Row, Select, exists, func, insert, select

from db.catalog.clips import clip_ids
from db.catalog.ontology import node_ids
from db.engine import reading, upsert, writing
from db.errors import DatabaseUserError
from db.paging import PAGE, batches, page_of, paged_rows, rows_where_in
from db.query.paths import first_source
from db.query.subtrees import node_id
from db.record_columns import columns_for
from db.schema.tables import clips, closure, nodes, sources
from db.schema.verdict_tables import VERDICTS, verdict_files, verdicts

UNKNOWN = "unknown"
"""Who judged, where it is not stated."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one person said: of a clip (its SHA-256), a class (MID) and a span (None: all of it)."""

    clip: str
    mid: str
    span_ms: tuple[int, int] | None
    verdict: str
    judged_by: str
    judged_at: datetime
    place: str


@dataclass(frozen=True, slots=True)
class VerdictFile:
    """A file that verdicts come from."""

    sha256: str
    name: str
    format: str


@dataclass(frozen=True, slots=True)
class FileSummary:
    """A file that was imported, and what its verdicts say."""

    name: str
    sha256: str
    format: str
    imported_at: datetime
    n_present: int
    n_absent: int
    n_unsure: int
    n_clips: int


@dataclass(frozen=True, slots=True)
class StoredVerdict:
    """A verdict with its history: whether it counts, and where it came from."""

    clip: str
    path_text: str
    mid: str
    name: str
    start_s: float | None
    end_s: float | None
    verdict: str
    judged_by: str
    judged_at: datetime
    file: str
    place: str
    is_newest: bool


def store_verdicts(
    engine: Engine, file: VerdictFile, found: Sequence[Verdict], now: datetime
) -> int:
    """Store what the file says and is not stored of it yet; how many that were.

    Raises:
        DatabaseUserError: a class is not in the ontology of the database.
    """
    with writing(engine) as conn:
        row = {"sha256": file.sha256, "name": file.name, "format": file.format, "imported_at": now}
        # Whoever imports the same file at the same time waits here.
        mark = upsert(conn, verdict_files).values(row)
        own = mark.on_conflict_do_update(
            index_elements=["sha256"], set_={"sha256": mark.excluded.sha256}
        )
        file_id = int(conn.execute(own.returning(verdict_files.c.id)).scalar_one())
        ids = node_ids(conn)
        if unknown := sorted({each.mid for each in found} - ids.keys()):
            raise DatabaseUserError(
                f"the ontology in the database has no node {', '.join(map(repr, unknown[:5]))}"
            )
        id_of = clip_ids(conn, sorted({each.clip for each in found}))
        known: set[tuple[Any, ...]] = set()
        for stored in conn.execute(_keys().where(verdicts.c.verdict_file_id == file_id)):
            # The same verdict without a name is not new.
            known |= {tuple(stored), (*stored[:-1], UNKNOWN)}
        rows = []
        for each in found:
            start_ms, end_ms = each.span_ms or (None, None)
            key = (id_of[each.clip], ids[each.mid], start_ms, end_ms, each.verdict,
                   each.place, each.judged_by)  # fmt: skip
            if key not in known:
                known.add(key)
                rows.append({
                    **dict(zip(_KEY, key, strict=True)),
                    "judged_at": each.judged_at, "verdict_file_id": file_id,
                })  # fmt: skip
        for batch in batches(rows):
            conn.execute(insert(verdicts), batch)
        return len(rows)


def iter_recordings(
    engine: Engine, page: int = PAGE
) -> Iterator[tuple[int, str, bytes, str | None]]:
    """(clip's id, clip, path, user id) of every place of every clip."""
    columns = (sources.c.id, clips.c.id, clips.c.sha256, sources.c.path, sources.c.user_id)
    query = select(*columns).join(clips, clips.c.id == sources.c.clip_id)
    for row in paged_rows(engine, page_of(query, sources.c.id, page), page):
        yield row[1], row[2], row[3], row[4]


def clip_facts(engine: Engine, ids: Sequence[int]) -> dict[int, tuple[str, float]]:
    """(clip, duration in seconds) by the clip's id."""
    query = select(clips.c.id, clips.c.sha256, clips.c.duration_s)
    with reading(engine) as conn:
        rows = rows_where_in(conn, query, clips.c.id, ids)
        return {row.id: (row.sha256, row.duration_s) for row in rows}


def newest(rows: Iterable[Row[Any]]) -> Iterator[Row[Any]]:
    """Of rows of `verdicts` those that count: the newest of a clip, class, span and person."""
    counting: dict[tuple[Any, ...], Row[Any]] = {}
    for row in sorted(rows, key=attrgetter("judged_at", "id")):
        counting[row.clip_id, row.node_id, row.start_ms, row.end_ms, row.judged_by] = row
    yield from counting.values()


def imported_files(engine: Engine) -> list[FileSummary]:
    """Every file that was imported, the newest first."""
    said = {f"n_{name}": func.count().filter(verdicts.c.verdict == name) for name in VERDICTS}
    n_clips = func.count(verdicts.c.clip_id.distinct())
    query = (
        select(*columns_for(FileSummary, verdict_files, n_clips=n_clips, **said))
        .outerjoin(verdicts, verdicts.c.verdict_file_id == verdict_files.c.id)
        .group_by(verdict_files.c.id)
        .order_by(verdict_files.c.id.desc())
    )
    with reading(engine) as conn:
        return [FileSummary(*row) for row in conn.execute(query)]


def find_verdicts(
    engine: Engine, *, under: str | None = None, clip: str | None = None, history: bool = False
) -> list[StoredVerdict]:
    """Verdicts on classes below a node and on a clip, by clip and span; all if `history`.

    Raises:
        DatabaseUserError: unknown MID.
    """
    query = (
        select(verdicts, clips.c.sha256, nodes.c.mid, nodes.c.name, nodes.c.position,
               verdict_files.c.name.label("file"), _path().label("path_text"))
        .join(clips, clips.c.id == verdicts.c.clip_id)
        .join(nodes, nodes.c.id == verdicts.c.node_id)
        .join(verdict_files, verdict_files.c.id == verdicts.c.verdict_file_id)
    )  # fmt: skip
    if clip is not None:
        query = query.where(clips.c.sha256 == clip)
    with reading(engine) as conn:
        if under is not None:
            root = node_id(conn, under)
            query = query.where(
                exists().where(
                    closure.c.ancestor_id == root, closure.c.descendant_id == verdicts.c.node_id
                )
            )
        rows = conn.execute(query).all()
    counting = {row.id for row in newest(rows)}
    rows = [row for row in rows if history or row.id in counting]
    rows.sort(
        key=lambda r: (r.sha256, r.start_ms or 0, r.end_ms or 0, r.position, r.judged_at, r.id)
    )
    return [
        StoredVerdict(
            row.sha256, row.path_text or "", row.mid, row.name, _seconds(row.start_ms),
            _seconds(row.end_ms), row.verdict, row.judged_by, row.judged_at, row.file, row.place,
            row.id in counting,
        )
        for row in rows
    ]  # fmt: skip


_KEY = ("clip_id", "node_id", "start_ms", "end_ms", "verdict", "place", "judged_by")


def _keys() -> Select[Any]:
    return select(*(verdicts.c[name] for name in _KEY))


def _path() -> Any:
    """One of the clip's paths: of those that are there the oldest, if any is."""
    shown = sources.alias("shown")
    first = first_source(clips.c.id, of=sources.alias("first")).correlate(clips).scalar_subquery()
    return select(shown.c.path_text).where(shown.c.id == first).correlate(clips).scalar_subquery()


def _seconds(time_ms: int | None) -> float | None:
    return None if time_ms is None else time_ms / 1000
