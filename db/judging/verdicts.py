"""Verdicts of people: stored once, never altered; of one person the newest counts.

The clip, the class and the span (whole milliseconds, or None for the whole clip) say what was
judged. Reading the same file again adds only what could not be stored before.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Double,
    Engine,
    Select,
    Subquery,
    and_,
    exists,
    func,
    insert,
    literal,
    select,
)

from db.catalog.clips import clip_ids
from db.catalog.ontology import node_ids
from db.engine import reading, upsert, writing
from db.errors import DatabaseUserError
from db.paging import PAGE, batches, paged_rows, rows_where_in
from db.query.paths import first_source
from db.query.subtrees import node_id
from db.record_columns import columns_for
from db.schema.tables import clips, closure, nodes, sources
from db.schema.verdict_tables import VERDICTS, WITHDRAWN, verdict_files, verdicts

UNKNOWN = "unknown"
"""Who judged, where it is not stated."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one person said: of a clip (its SHA-256), a class (MID) and a span (None: all of it).

    `place`: where in its file it stood; of one that was given in the app, its own name.
    """

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
        file_id = lock_file(conn, file, now)
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


def lock_file(conn: Connection, file: VerdictFile, now: datetime) -> int:
    """The id of the file's row. Whoever stores verdicts of the same file meanwhile waits."""
    row = {"sha256": file.sha256, "name": file.name, "format": file.format, "imported_at": now}
    mark = upsert(conn, verdict_files).values(row)
    own = mark.on_conflict_do_update(
        index_elements=["sha256"], set_={"sha256": mark.excluded.sha256}
    )
    return int(conn.execute(own.returning(verdict_files.c.id)).scalar_one())


def iter_recordings(
    engine: Engine, page: int = PAGE
) -> Iterator[tuple[int, str, bytes, str | None]]:
    """(clip's id, clip, path, user id) of every place of every clip."""
    columns = (sources.c.id, clips.c.id, clips.c.sha256, sources.c.path, sources.c.user_id)
    query = select(*columns).join(clips, clips.c.id == sources.c.clip_id)
    for row in paged_rows(engine, query, page, key=sources.c.id):
        yield row[1], row[2], row[3], row[4]


def clip_facts(engine: Engine, ids: Sequence[int]) -> dict[int, tuple[str, float]]:
    """(clip, duration in seconds) by the clip's id."""
    query = select(clips.c.id, clips.c.sha256, clips.c.duration_s)
    with reading(engine) as conn:
        rows = rows_where_in(conn, query, clips.c.id, ids)
        return {row.id: (row.sha256, row.duration_s) for row in rows}


def with_history() -> Subquery:
    """The rows of `verdicts`, and `is_newest`: of its clip, class, span and person. These count.

    Where the newest is a withdrawal, none of that person counts.
    """
    same = [verdicts.c[name] for name in ("clip_id", "node_id", "start_ms", "end_ms", "judged_by")]
    newest_first = (verdicts.c.judged_at.desc(), verdicts.c.id.desc())
    place = func.row_number().over(partition_by=same, order_by=newest_first)
    counts = and_(place == 1, verdicts.c.verdict != WITHDRAWN)
    return select(verdicts, counts.label("is_newest")).subquery("said")


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
    said = with_history()
    columns = columns_for(
        StoredVerdict, said, nodes,
        clip=clips.c.sha256, path_text=func.coalesce(path_of_clip(), ""), file=verdict_files.c.name,
        start_s=_seconds(said.c.start_ms), end_s=_seconds(said.c.end_ms),
    )  # fmt: skip
    begins, ends = (func.coalesce(at, 0) for at in (said.c.start_ms, said.c.end_ms))
    query = (
        select(*columns)
        .join(clips, clips.c.id == said.c.clip_id)
        .join(nodes, nodes.c.id == said.c.node_id)
        .join(verdict_files, verdict_files.c.id == said.c.verdict_file_id)
        .order_by(clips.c.sha256, begins, ends, nodes.c.position, said.c.judged_at, said.c.id)
    )
    if clip is not None:
        query = query.where(clips.c.sha256 == clip)
    if not history:
        query = query.where(said.c.is_newest)
    with reading(engine) as conn:
        if under is not None:
            below = closure.c.ancestor_id == node_id(conn, under)
            query = query.where(exists().where(below, closure.c.descendant_id == said.c.node_id))
        return [StoredVerdict(*row) for row in conn.execute(query)]


def count_verdicts(engine: Engine) -> dict[str, tuple[int, int]]:
    """(present, absent) of the verdicts that count, by MID; classes without any are left out."""
    said = with_history()
    present, absent = (func.count().filter(said.c.verdict == name) for name in VERDICTS[:2])
    query = (
        select(nodes.c.mid, present, absent)
        .join(nodes, nodes.c.id == said.c.node_id)
        .where(said.c.is_newest)
        .group_by(nodes.c.mid)
    )
    with reading(engine) as conn:
        return {mid: (n_present, n_absent) for mid, n_present, n_absent in conn.execute(query)}


_KEY = ("clip_id", "node_id", "start_ms", "end_ms", "verdict", "place", "judged_by")


def _keys() -> Select[Any]:
    return select(*(verdicts.c[name] for name in _KEY))


def path_of_clip() -> Any:
    """One of the clip's paths: of those that are there the oldest, if any is."""
    shown = sources.alias("shown")
    first = first_source(clips.c.id, of=sources.alias("first")).correlate(clips).scalar_subquery()
    return select(shown.c.path_text).where(shown.c.id == first).correlate(clips).scalar_subquery()


def _seconds(time_ms: ColumnElement[int]) -> ColumnElement[float]:
    return time_ms.op("/", return_type=Double())(literal(1000.0, Double))
