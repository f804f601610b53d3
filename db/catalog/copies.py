"""Files of one content within a run: one is read, the others share what becomes of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, select

from db.records import Failure
from db.schema.tables import labellings, run_items, runs, sources

_BATCH = 1_000


@dataclass(frozen=True, slots=True)
class FailedCopy:
    """A file that was not read for itself: a file of the same content failed."""

    path: bytes
    failure: Failure


def are_of_one_run(conn: Connection, run_id: str, other: str | None) -> bool:
    """Whether two runs are one, or do parts of one run's work."""
    if other is None:
        return False
    return not _family(conn, run_id).isdisjoint(_family(conn, other))


def copies_of_failed(
    conn: Connection, run_id: str, failures: Sequence[Failure]
) -> list[FailedCopy]:
    """The files of the run that were left to a claim which ends in a failure now.

    Whoever calls holds the clips' rows, so that no file joins them meanwhile.
    """
    by_clip = _by_clip(conn, failures)
    clip_ids, failing = list(by_clip), {failure.source_id for failure in failures}
    copies: dict[int, tuple[bytes, Failure]] = {}
    for start in range(0, len(clip_ids), _BATCH):
        # What this run has not looked at yet is pending, and its turn will come.
        query = select(sources.c.id, sources.c.path, sources.c.clip_id).where(
            sources.c.clip_id.in_(clip_ids[start : start + _BATCH]),
            sources.c.status == "identified",
        )
        for row in conn.execute(query):
            if row.id not in failing:
                copies[row.id] = (row.path, by_clip[row.clip_id])
    own = _on_list(conn, run_id, sorted(copies))
    was_read = _paths(conn, sorted({copies[source_id][1].source_id for source_id in own}))
    return [
        FailedCopy(path, Failure(source_id, its.reason, _as_copy(its, was_read)))
        for source_id, (path, its) in copies.items()
        if source_id in own
    ]


def _as_copy(failure: Failure, paths: Mapping[int, str]) -> str:
    """Why a copy of a file that failed is a failure."""
    because = f"as its copy {paths[failure.source_id]}"
    return f"{failure.detail}; {because}" if failure.detail else because


def _paths(conn: Connection, source_ids: Sequence[int]) -> dict[int, str]:
    paths: dict[int, str] = {}
    for start in range(0, len(source_ids), _BATCH):
        query = select(sources.c.id, sources.c.path_text)
        query = query.where(sources.c.id.in_(source_ids[start : start + _BATCH]))
        paths.update((row.id, row.path_text) for row in conn.execute(query))
    return paths


def _by_clip(conn: Connection, failures: Sequence[Failure]) -> dict[int, Failure]:
    """Failures by clip, where the claim is still held: who lost one does not decide for others."""
    held: dict[int, Failure] = {}
    claimed = [(f, f.claim) for f in failures if f.claim is not None]
    for start in range(0, len(claimed), _BATCH):
        batch = claimed[start : start + _BATCH]
        query = select(labellings.c.id, labellings.c.token).where(
            labellings.c.id.in_([claim.labelling_id for _, claim in batch]),
            labellings.c.status == "claimed",
        )
        tokens = {row.id: row.token for row in conn.execute(query)}
        held.update(
            (claim.clip_id, failure)
            for failure, claim in batch
            if tokens.get(claim.labelling_id) == claim.token
        )
    return held


def _family(conn: Connection, run_id: str) -> set[str]:
    """A run and the run of whose work it does a part."""
    parent_id = conn.execute(select(runs.c.parent_id).where(runs.c.id == run_id)).scalar()
    return {run_id, *((parent_id,) if parent_id else ())}


def _on_list(conn: Connection, run_id: str, source_ids: Sequence[int]) -> set[int]:
    """Those of the sources that are on the run's work list."""
    family = _family(conn, run_id) if source_ids else set()
    listed: set[int] = set()
    for start in range(0, len(source_ids), _BATCH):
        query = select(run_items.c.source_id).where(
            run_items.c.run_id.in_(family),
            run_items.c.source_id.in_(source_ids[start : start + _BATCH]),
        )
        listed.update(conn.execute(query).scalars())
    return listed
