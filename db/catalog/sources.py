"""Files as they were seen: which of them need work, and the work list of a run.

A million known files are judged in seconds: one query per thousand, none per file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    FromClause,
    Row,
    and_,
    bindparam,
    case,
    false,
    func,
    insert,
    null,
    or_,
    select,
    true,
    update,
)

from db.engine import reading, upsert, writing
from db.paging import PAGE, page_of, pages, rows_where_in
from db.records import FileState, SeenSource, Triaged, Variant, WorkItem
from db.schema.tables import labellings, run_items, runs, sources
from db.types import path_digest, path_text

_MAX_POSITION = 2**31 - 1


def triage(
    conn: Connection,
    variants: Sequence[Variant],
    seen: Sequence[SeenSource],
    transient: frozenset[str] = frozenset(),
    transient_ending: str | None = None,
) -> list[Triaged]:
    """What is known of each file, in the order given; writes nothing.

    A file is done once every variant has labelled its content; without variants none is. Files that
    failed for a `transient` reason are tried again; so are those whose detail ends with
    `transient_ending`.
    """
    digests = [path_digest(source.path) for source in seen]
    known = _known(conn, variants, digests)
    return [
        _judge(source, known.get(digest), transient, transient_ending)
        for source, digest in zip(seen, digests, strict=True)
    ]


def add_to_work_list(
    engine: Engine,
    run_id: str,
    items: Sequence[tuple[SeenSource, float]],
    *,
    start: int = 0,
    now: datetime | None = None,
) -> int:
    """Store files as pending and append them, with their estimated seconds, to the work list.

    In one transaction, which also records that the run is at work. The first item gets position
    `start`; returns the next free position. A path given twice is taken once.
    """
    wanted: dict[bytes, tuple[SeenSource, float]] = {}
    for source, estimated in items:
        wanted.setdefault(path_digest(source.path), (source, estimated))
    if not wanted:
        return start
    seen_at = datetime.now(UTC) if now is None else now
    with writing(engine) as conn:
        store_pending(conn, {digest: source for digest, (source, _) in wanted.items()}, seen_at)
        ids = _source_ids(conn, list(wanted))
        conn.execute(
            insert(run_items),
            [
                {
                    "run_id": run_id,
                    "position": position,
                    "source_id": ids[digest],
                    "estimated_s": estimated,
                    "bytes": source.size_bytes,
                }
                for position, (digest, (source, estimated)) in enumerate(wanted.items(), start)
            ],
        )
        conn.execute(update(runs).where(runs.c.id == run_id).values(seen_at=seen_at))
    return start + len(wanted)


def store_pending(
    conn: Connection,
    seen: Mapping[bytes, SeenSource],
    now: datetime,
    *,
    is_waiting: bool = False,
) -> None:
    """Store files that have not been read, by their path's digest, as pending.

    `is_waiting`: they are too young to be read; since when they are unchanged is kept.
    """
    # In the order of the digests, so that no two transactions wait for each other in a ring.
    rows = [
        {
            "path_digest": digest,
            "path": seen[digest].path,
            "path_text": path_text(seen[digest].path),
            "size_bytes": seen[digest].size_bytes,
            "mtime_ns": seen[digest].mtime_ns,
            "status": "pending",
            "user_id": seen[digest].user_id,
            "meta": seen[digest].meta,
            "first_seen_at": now,
            "waiting_since": now if is_waiting else None,
        }
        for digest in sorted(seen)
    ]
    conn.execute(_upsert_pending(conn), rows)


def update_annotations(engine: Engine, seen: Sequence[SeenSource]) -> int:
    """Store the `user_id` and `meta` that a manifest gives for files already known.

    None leaves the stored value as it is. Returns how many files changed.
    """
    given = {path_digest(s.path): s for s in seen if s.user_id is not None or s.meta is not None}
    with reading(engine) as conn:
        changes = _annotation_changes(conn, given)
    if changes:
        changes.sort(key=lambda change: bytes(change.pop("digest")))
        with writing(engine) as conn:
            conn.execute(update(sources).where(sources.c.id == bindparam("key")), changes)
    return len(changes)


def iter_items(
    engine: Engine,
    run_id: str,
    page: int = PAGE,
    *,
    first: int = 0,
    end: int | None = None,
    unlabelled_by: Sequence[Variant] = (),
) -> Iterator[WorkItem]:
    """The work list's positions `first` to before `end` in order.

    Without the items whose content is labelled under each of the variants by now, if any are
    given. No transaction stays open between pages.
    """
    own = select(run_items).where(
        run_items.c.run_id == run_id,
        run_items.c.position < (_MAX_POSITION if end is None else end),
    )
    part = page_of(own, run_items.c.position, page).subquery()
    columns = (part.c.source_id, sources.c.path, part.c.bytes, sources.c.mtime_ns)
    joined, is_done = _with_done(
        part.join(sources, sources.c.id == part.c.source_id), unlabelled_by
    )
    query = (
        select(part.c.position, *columns, part.c.estimated_s, is_done)
        .select_from(joined)
        .order_by(part.c.position)
    )
    for rows in pages(engine, query, page, after=first - 1):
        yield from (WorkItem(*row[1:-1]) for row in rows if not row.is_done)


def _known(
    conn: Connection, variants: Sequence[Variant], digests: Sequence[bytes]
) -> dict[bytes, Row[Any]]:
    names = ("path_digest", "size_bytes", "mtime_ns", "status", "reason", "reason_detail")
    columns = [sources.c[name] for name in (*names, "clip_id", "waiting_since")]
    joined, is_done = _with_done(sources, variants)
    query = select(*columns, is_done).select_from(joined)
    return {row[0]: row for row in rows_where_in(conn, query, sources.c.path_digest, digests)}


def _with_done(
    joined: FromClause, variants: Sequence[Variant]
) -> tuple[FromClause, ColumnElement[bool]]:
    """Sources with their labellings, and `is_done`: whether each variant has labelled them.

    A labelling with embeddings is one without them as well (`db.ledger.added_embeddings`).
    """
    is_done: ColumnElement[bool] = true() if variants else false()
    for variant in variants:
        own, fuller = labellings.alias(), labellings.alias()
        for table, set_id in ((own, variant.parameter_set_id), (fuller, variant.fuller_set_id)):
            is_its = and_(
                table.c.clip_id == sources.c.clip_id,
                table.c.model_id == variant.model_id,
                table.c.parameter_set_id == set_id,
            )
            joined = joined if set_id is None else joined.outerjoin(table, is_its)
        is_labelled = own.c.status == "done"
        if variant.fuller_set_id is not None:
            is_labelled = or_(is_labelled, and_(own.c.id.is_(None), fuller.c.status == "done"))
        is_done = and_(is_done, is_labelled)
    return joined, is_done.label("is_done")


def _judge(
    source: SeenSource, row: Row[Any] | None, transient: frozenset[str], ending: str | None
) -> Triaged:
    if row is None:
        return Triaged(FileState.NEW)
    is_back = row.status == "missing"
    if (row.size_bytes, row.mtime_ns) != (source.size_bytes, source.mtime_ns):
        return Triaged(FileState.CHANGED, is_back)
    # A missing file keeps what was known; that holds again if the file is back unchanged.
    if row.reason is not None:
        ends_so = ending is not None and (row.reason_detail or "").endswith(ending)
        is_transient = row.reason in transient or ends_so
        return Triaged(FileState.RETRY if is_transient else FileState.FAILED, is_back)
    if row.clip_id is None:
        return Triaged(FileState.NEW, is_back, row.waiting_since)
    return Triaged(FileState.DONE if row.is_done else FileState.UNLABELLED, is_back)


def _upsert_pending(conn: Connection) -> Any:
    statement = upsert(conn, sources)
    new = statement.excluded
    is_same = and_(sources.c.size_bytes == new.size_bytes, sources.c.mtime_ns == new.mtime_ns)
    waits_already = and_(
        is_same, sources.c.waiting_since.is_not(None), new.waiting_since.is_not(None)
    )
    return statement.on_conflict_do_update(
        index_elements=[sources.c.path_digest],
        set_={
            "status": new.status,
            "reason": None,
            "reason_detail": None,
            "clip_id": case((is_same, sources.c.clip_id), else_=null()),
            "missing_at": None,
            "waiting_since": case(
                (waits_already, sources.c.waiting_since), else_=new.waiting_since
            ),
            "size_bytes": new.size_bytes,
            "mtime_ns": new.mtime_ns,
            "user_id": func.coalesce(new.user_id, sources.c.user_id),
            "meta": func.coalesce(new.meta, sources.c.meta),
            # A manifest or other content may tell another start: it is looked for again.
            "recorded_by": case(
                (and_(new.meta.is_(None), is_same), sources.c.recorded_by), else_=null()
            ),
        },
    )


def _source_ids(conn: Connection, digests: list[bytes]) -> dict[bytes, int]:
    query = select(sources.c.path_digest, sources.c.id)
    rows = rows_where_in(conn, query, sources.c.path_digest, digests)
    return {row.path_digest: row.id for row in rows}


def _annotation_changes(conn: Connection, given: dict[bytes, SeenSource]) -> list[dict[str, Any]]:
    query = select(sources.c.path_digest, sources.c.id, sources.c.user_id, sources.c.meta)
    changes = []
    for digest, source_id, user_id, meta in rows_where_in(
        conn, query, sources.c.path_digest, list(given)
    ):
        new = given[digest]
        wanted_id = user_id if new.user_id is None else new.user_id
        wanted_meta = meta if new.meta is None else new.meta
        if (wanted_id, wanted_meta) != (user_id, meta):
            changes.append(
                {"digest": digest, "key": source_id, "user_id": wanted_id}
                | {"meta": wanted_meta, "recorded_by": None}
            )
    return changes
