"""Runs: who is at work, and what was done."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from typing import Any, cast

from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    Row,
    delete,
    func,
    insert,
    or_,
    select,
    update,
)

from db.engine import reading, repeatable, writing
from db.errors import DatabaseError
from db.ledger.claims import drop_claims, end_leases
from db.records import Run, RunCounts, RunOrigin, RunStatus
from db.schema.tables import clips, labellings, models, run_items, runs


def start_run(
    engine: Engine,
    run_id: str,
    host: str,
    pid: int,
    parameters: Mapping[str, Any],
    now: datetime,
    origin: RunOrigin | None = None,
) -> None:
    """Record that a run has begun."""
    row = {
        "id": run_id,
        **asdict(origin or RunOrigin()),
        "seen_at": now,
        "host": host,
        "pid": pid,
        "status": RunStatus.RUNNING.value,
        "started_at": now,
        "parameters": dict(parameters),
        **asdict(RunCounts()),
    }
    with writing(engine) as conn:
        conn.execute(insert(runs), row)


def labelled_paths(engine: Engine) -> set[str]:
    """What runs were asked to label, as it was written."""
    with reading(engine) as conn:
        found = conn.execute(select(runs.c.parameters)).scalars()
        return {path for parameters in found for path in parameters.get("paths") or ()}


def running_runs(engine: Engine) -> list[Run]:
    """Runs that have not ended, oldest first; some may be dead."""
    return _runs(engine, runs.c.status == RunStatus.RUNNING.value)


@repeatable
def child_runs(engine: Engine, run_id: str) -> list[Run]:
    """The runs that did parts of a run's work, oldest first."""
    return _runs(engine, runs.c.parent_id == run_id)


@dataclass(frozen=True, slots=True)
class RunInList:
    """A run with what it was asked, as a list of runs shows it."""

    run: Run
    name: str
    ended_at: datetime | None
    parameters: Mapping[str, Any]
    n_parts: int
    """Runs that did parts of its work."""


def list_runs(engine: Engine, skip: int, limit: int) -> list[RunInList]:
    """Runs that are no part of another, the newest first."""
    part = runs.alias("part")
    n_parts = select(func.count()).where(part.c.parent_id == runs.c.id).correlate(runs)
    query = (
        select(runs, n_parts.scalar_subquery().label("n_parts"))
        .where(runs.c.parent_id.is_(None))
        .order_by(runs.c.started_at.desc(), runs.c.id)
        .offset(skip)
        .limit(limit)
    )
    with reading(engine) as conn:
        return [
            RunInList(_run(row), row.flow_run_name or "", row.ended_at, row.parameters, row.n_parts)
            for row in conn.execute(query)
        ]


@dataclass(frozen=True, slots=True)
class Totals:
    """What all runs did so far, the parts of a run counted once."""

    counts: RunCounts
    n_by_status: Mapping[str, int]
    n_waiting: int
    """Files that running runs have found and not yet dealt with."""
    last_success_at: datetime | None
    last_speed: float | None
    """Seconds of audio a second, of the last run that labelled anything."""


def totals(engine: Engine) -> Totals:
    """What all runs did so far; reads the table of runs alone."""
    whole = select(runs).where(runs.c.parent_id.is_(None)).subquery()
    names = [field.name for field in fields(RunCounts)]
    sums = select(*(func.coalesce(func.sum(whole.c[name]), 0) for name in names))
    open_ = whole.c.n_found - whole.c.n_labelled - whole.c.n_known - whole.c.n_failed
    waiting = select(func.coalesce(func.sum(open_), 0)).where(
        whole.c.status == RunStatus.RUNNING.value
    )
    by_status = select(whole.c.status, func.count()).group_by(whole.c.status)
    done = whole.c.status == RunStatus.COMPLETED.value
    last = select(func.max(whole.c.ended_at)).where(done)
    labelled = (
        select(whole.c.audio_s, whole.c.started_at, whole.c.ended_at)
        .where(done, whole.c.n_labelled > 0)
        .order_by(whole.c.ended_at.desc())
        .limit(1)
    )
    with reading(engine) as conn:
        speed = conn.execute(labelled).one_or_none()
        taken_s = 0.0 if speed is None else (speed.ended_at - speed.started_at).total_seconds()
        return Totals(
            RunCounts(*conn.execute(sums).one()),
            {row.status: row[1] for row in conn.execute(by_status)},
            max(0, int(conn.execute(waiting).scalar_one())),
            conn.execute(last).scalar_one(),
            None if speed is None or not taken_s else speed.audio_s / taken_s,
        )


def progress_mark(engine: Engine) -> tuple[Hashable, ...]:
    """Changes when a run begins, labels or notes a failure, and when other models speak; cheap."""
    query = select(
        func.count(), func.coalesce(func.sum(runs.c.n_labelled), 0),
        func.coalesce(func.sum(runs.c.n_failed), 0),
    )  # fmt: skip
    newest = select(func.max(labellings.c.id))
    flags = (models.c.is_promoted, models.c.is_retired)
    speaking = select(models.c.id, *flags).where(or_(*flags)).order_by(models.c.id)
    with reading(engine) as conn:
        counts, last = map(int, conn.execute(query).one()), conn.execute(newest).scalar()
        return (*counts, last, *map(tuple, conn.execute(speaking)))


_SAME = ("flow", "paths", "manifest", "model")
"""Runs are compared with each other if they agree in these parameters."""


def summary_before(
    engine: Engine, before: datetime, parameters: Mapping[str, Any]
) -> Mapping[str, Any] | None:
    """What the last run that is comparable wrote: the same flow, folders and model.

    It was completed, labelled something, and was no part of another.
    """
    query = (
        select(runs.c.id, runs.c.parameters)
        .where(
            runs.c.started_at < before,
            runs.c.status == RunStatus.COMPLETED.value,
            runs.c.parent_id.is_(None),
            runs.c.n_labelled > 0,
        )
        .order_by(runs.c.started_at.desc(), runs.c.id)
    )
    wanted = _compared(parameters)
    with reading(engine) as conn, conn.execution_options(yield_per=100).execute(query) as rows:
        found = next((row.id for row in rows if _compared(row.parameters) == wanted), None)
    return None if found is None else summary_of(engine, found)


def _compared(parameters: Mapping[str, Any]) -> list[Any]:
    values = (parameters.get(name) for name in _SAME)
    return [sorted(set(value)) if isinstance(value, list) else value for value in values]


def summary_of(engine: Engine, run_id: str) -> Mapping[str, Any] | None:
    """What the run wrote at its end; None while it is at work, or if it crashed."""
    with reading(engine) as conn:
        query = select(runs.c.summary).where(runs.c.id == run_id)
        return cast(Mapping[str, Any] | None, conn.execute(query).scalar())


@repeatable
def note_progress(engine: Engine, run_id: str, counts: RunCounts, now: datetime) -> None:
    """Record how far the run is, so that this is known however the run ends."""
    with writing(engine) as conn:
        row = {"seen_at": now, **asdict(counts)}
        conn.execute(update(runs).where(runs.c.id == run_id).values(row))


@repeatable
def labelled_by(engine: Engine, run_id: str) -> tuple[int, float]:
    """How many clips the run labelled itself, and how many seconds of audio they are."""
    with reading(engine) as conn:
        return _labelled_by(conn, run_id)


@repeatable
def record_heartbeat(engine: Engine, run_id: str, now: datetime) -> None:
    """Note that the run is at work, where nothing else says so for a while."""
    with writing(engine) as conn:
        conn.execute(update(runs).where(runs.c.id == run_id).values(seen_at=now))


@repeatable
def ask_to_stop(engine: Engine, run_id: str, now: datetime) -> None:
    """Have the run's tasks, and the runs that do parts of it, end at the next opportunity."""
    with writing(engine) as conn:
        asked = update(runs).where((runs.c.id == run_id) & runs.c.stop_asked_at.is_(None))
        conn.execute(asked.values(stop_asked_at=now))


def is_to_stop(engine: Engine, run_id: str) -> bool:
    """Whether the run, or the one that it is a part of, is to stop or has ended."""
    own, parent = runs, runs.alias("parent")
    query = (
        select(func.count())
        .select_from(own.outerjoin(parent, parent.c.id == own.c.parent_id))
        .where(own.c.id == run_id)
        .where(
            own.c.stop_asked_at.is_not(None)
            | (own.c.status != RunStatus.RUNNING.value)
            | parent.c.stop_asked_at.is_not(None)
            | (parent.c.status != RunStatus.RUNNING.value)
        )
    )
    with reading(engine) as conn:
        return bool(conn.execute(query).scalar_one())


def abandon_run(engine: Engine, run_id: str, now: datetime) -> bool:
    """Mark a dead run as crashed and free what it had claimed; False if it had ended already.

    Its counts become what it has committed, which may be more than it had counted.
    """
    with writing(engine) as conn:
        is_running = (runs.c.id == run_id) & (runs.c.status == RunStatus.RUNNING.value)
        ended = update(runs).where(is_running)
        result = conn.execute(ended.values(status=RunStatus.CRASHED.value, ended_at=now))
        if not result.rowcount:
            return False
        n_labelled, audio_s = _labelled_by(conn, run_id)
        counted = update(runs).where((runs.c.id == run_id) & (runs.c.n_labelled < n_labelled))
        conn.execute(counted.values(n_labelled=n_labelled, audio_s=audio_s))
        end_leases(conn, run_id)
        conn.execute(delete(run_items).where(run_items.c.run_id == run_id))
        return True


@repeatable
def finish_run(
    engine: Engine,
    run_id: str,
    status: RunStatus,
    counts: RunCounts,
    summary: Mapping[str, Any] | None,
    now: datetime,
) -> None:
    """Record how a run ended; claims it left and its work list are removed."""
    values = {
        "status": RunStatus(status).value,
        "ended_at": now,
        "summary": None if summary is None else dict(summary),
        **asdict(counts),
    }
    with writing(engine) as conn:
        if not conn.execute(update(runs).where(runs.c.id == run_id).values(values)).rowcount:
            raise DatabaseError(f"there is no run {run_id!r}")
        drop_claims(conn, run_id)
        conn.execute(delete(run_items).where(run_items.c.run_id == run_id))


def _labelled_by(conn: Connection, run_id: str) -> tuple[int, float]:
    # A clip counts once, however many models have labelled it.
    own = select(labellings.c.clip_id).where(
        labellings.c.run_id == run_id, labellings.c.status == "done"
    )
    counted = select(func.count(), func.coalesce(func.sum(clips.c.duration_s), 0.0))
    query = counted.where(clips.c.id.in_(own))
    n_clips, audio_s = conn.execute(query).one()
    return int(n_clips), float(audio_s)


def _runs(engine: Engine, condition: ColumnElement[bool]) -> list[Run]:
    query = select(runs).where(condition).order_by(runs.c.started_at, runs.c.id)
    with reading(engine) as conn:
        return [_run(row) for row in conn.execute(query)]


def _run(row: Row[Any]) -> Run:
    counts = RunCounts(row.n_found, row.n_labelled, row.n_known, row.n_failed, row.audio_s)
    return Run(
        row.id,
        row.host,
        row.pid,
        RunStatus(row.status),
        row.started_at,
        counts,
        row.parent_id,
        row.flow_run_id,
        row.seen_at,
    )
