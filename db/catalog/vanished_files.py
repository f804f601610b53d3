"""Watched folders: what has vanished, what is back, what is too young to be read.

A vanished file keeps its row, its clip and its labels; only its status says that it is gone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime

from sqlalchemy import ColumnElement, Engine, FromClause, and_, case, func, or_, select, update

from db.catalog.sources import store_pending
from db.engine import reading, writing
from db.paging import batches, page_of, pages
from db.records import KnownSource, SeenSource
from db.schema.tables import run_items, sources
from db.types import path_digest

_PAGE = 5_000


def present_sources(engine: Engine, roots: Sequence[bytes]) -> Iterator[list[KnownSource]]:
    """The sources at or below the roots that are not marked missing, in pages.

    No transaction stays open between pages. No root, no source.
    """
    if roots:
        yield from _pages(engine, [sources.c.status != "missing", _below(sources, roots)])


def copies_elsewhere(
    engine: Engine, roots: Sequence[bytes], run_id: str | None = None
) -> Iterator[list[KnownSource]]:
    """Sources with the content of another one below the roots or on the run's list, in pages.

    They may lie anywhere, also below the roots; none is marked missing.
    """
    own = sources.alias("own")
    is_meant = [_below(own, roots)] if roots else []
    if run_id is not None:
        listed = select(run_items.c.source_id).where(run_items.c.run_id == run_id)
        is_meant.append(own.c.id.in_(listed))
    if not is_meant:
        return
    has_twin = (
        select(own.c.id)
        .where(own.c.clip_id == sources.c.clip_id, own.c.id != sources.c.id)
        .where(own.c.status == "identified", or_(*is_meant))
        .correlate(sources)
        .exists()
    )
    yield from _pages(engine, [sources.c.status == "identified", has_twin])


def _below(table: FromClause, roots: Sequence[bytes]) -> ColumnElement[bool]:
    # As bytes, b"/" is followed by b"0": everything from "root/" to before "root0" is below it.
    path = table.c.path
    return or_(
        *(
            or_(path == root, and_(path >= folder, path < folder[:-1] + b"0"))
            for root in roots
            for folder in [root.rstrip(b"/") + b"/"]
        )
    )


def _pages(
    engine: Engine, conditions: Sequence[ColumnElement[bool]]
) -> Iterator[list[KnownSource]]:
    query = select(sources.c.id, sources.c.path_digest, sources.c.path).where(*conditions)
    for rows in pages(engine, page_of(query, sources.c.id, _PAGE), _PAGE):
        yield [KnownSource(*row) for row in rows]


def mark_missing(engine: Engine, digests: Sequence[bytes], now: datetime) -> int:
    """Mark the sources of these path digests as missing; returns how many were not yet."""
    return _update(engine, digests, sources.c.status != "missing", status="missing", missing_at=now)


def mark_present(engine: Engine, seen: Sequence[SeenSource]) -> int:
    """Give files that were missing, and are back unchanged, the status that they had before."""
    was = case(
        (sources.c.reason.is_not(None), "failed"),
        (sources.c.clip_id.is_not(None), "identified"),
        else_="pending",
    )
    digests = [path_digest(source.path) for source in seen]
    return _update(engine, digests, sources.c.status == "missing", status=was, missing_at=None)


def mark_waiting(engine: Engine, seen: Sequence[SeenSource], now: datetime) -> None:
    """Store files that are too young to be read as pending, and since when they are unchanged."""
    if seen:
        with writing(engine) as conn:
            store_pending(conn, {path_digest(s.path): s for s in seen}, now, is_waiting=True)


def count_moved(engine: Engine, since: datetime) -> int:
    """Of the sources missing since then, those whose content lies at a path that is new since."""
    gone, new = sources.alias("gone"), sources.alias("new")
    query = (
        select(func.count(gone.c.id.distinct()))
        .select_from(gone.join(new, new.c.clip_id == gone.c.clip_id))
        .where(gone.c.status == "missing", gone.c.missing_at >= since)
        .where(new.c.status == "identified", new.c.first_seen_at >= since)
    )
    with reading(engine) as conn:
        return int(conn.execute(query).scalar_one())


def _update(engine: Engine, digests: Sequence[bytes], where: object, **values: object) -> int:
    count = 0
    for part in batches(sorted(set(digests))):
        with writing(engine) as conn:
            # Locked in the order of the digests, as everywhere.
            locked = select(sources.c.id).where(sources.c.path_digest.in_(part), where)  # type: ignore[arg-type]
            ids = list(
                conn.execute(locked.order_by(sources.c.path_digest).with_for_update()).scalars()
            )
            conn.execute(update(sources).where(sources.c.id.in_(ids)).values(**values))
            count += len(ids)
    return count
