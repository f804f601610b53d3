"""Files of one content within a run: one is read, and its result is that of the others too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlalchemy import Connection, select

from db.paging import rows_where_in
from db.records import FailedSource, Failure
from db.schema.tables import labellings, run_items, runs, sources


def are_of_one_run(conn: Connection, run_id: str, other: str | None) -> bool:
    """Whether two runs are one, or do parts of one run's work."""
    if other is None:
        return False
    return not _family(conn, run_id).isdisjoint(_family(conn, other))


def copies_of_failed(
    conn: Connection, run_id: str, failures: Sequence[Failure]
) -> list[FailedSource]:
    """The files of the run that wait for a claim which ends in a failure now.

    The caller has locked the clips' rows, so that no file joins them meanwhile.
    """
    by_clip = _by_clip(conn, failures)
    failing = {failure.source_id for failure in failures}
    # What this run has not looked at yet is pending, and its turn will come.
    identified = select(sources.c.id, sources.c.path, sources.c.clip_id).where(
        sources.c.status == "identified"
    )
    copies: dict[int, tuple[bytes, Failure]] = {
        row.id: (row.path, by_clip[row.clip_id])
        for row in rows_where_in(conn, identified, sources.c.clip_id, list(by_clip))
        if row.id not in failing
    }
    own = _on_list(conn, run_id, sorted(copies))
    was_read = _paths(conn, sorted({copies[source_id][1].source_id for source_id in own}))
    return [
        FailedSource(path, Failure(source_id, its.reason, _as_copy(its, was_read)))
        for source_id, (path, its) in copies.items()
        if source_id in own
    ]


def _as_copy(failure: Failure, paths: Mapping[int, str]) -> str:
    """Why a copy of a file that failed is a failure."""
    because = f"as its copy {paths[failure.source_id]}"
    return f"{failure.detail}; {because}" if failure.detail else because


def _paths(conn: Connection, source_ids: Sequence[int]) -> dict[int, str]:
    query = select(sources.c.id, sources.c.path_text)
    return {row.id: row.path_text for row in rows_where_in(conn, query, sources.c.id, source_ids)}


def _by_clip(conn: Connection, failures: Sequence[Failure]) -> dict[int, Failure]:
    """Failures by clip, where the claim is still held: a lost one does not decide for copies."""
    claims = [(failure, failure.claim) for failure in failures if failure.claim is not None]
    query = select(labellings.c.id, labellings.c.token).where(labellings.c.status == "claimed")
    ids = [claim.labelling_id for _, claim in claims]
    tokens = {row.id: row.token for row in rows_where_in(conn, query, labellings.c.id, ids)}
    return {
        claim.clip_id: failure
        for failure, claim in claims
        if tokens.get(claim.labelling_id) == claim.token
    }


def _family(conn: Connection, run_id: str) -> set[str]:
    """A run, and the run whose work it does a part of."""
    parent_id = conn.execute(select(runs.c.parent_id).where(runs.c.id == run_id)).scalar()
    return {run_id, *((parent_id,) if parent_id else ())}


def _on_list(conn: Connection, run_id: str, source_ids: Sequence[int]) -> set[int]:
    """Those of the sources that are on the run's work list."""
    if not source_ids:
        return set()
    query = select(run_items.c.source_id).where(run_items.c.run_id.in_(_family(conn, run_id)))
    rows = rows_where_in(conn, query, run_items.c.source_id, source_ids)
    return {row.source_id for row in rows}
