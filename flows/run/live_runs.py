"""A run's row in the database from start to end; runs that died are recognised.

Every run holds a lock on a small file in the home folder while it lives. The kernel drops the
lock with the process however that ends, so a later run on the same host knows a crashed one at
once and releases its claims; claims of other hosts end with their lease.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import Engine

from audioset_core.inference.scorer import Cancelled
from db.ledger.claims import LEASE_S
from db.ledger.runs import (
    abandon_run,
    child_runs,
    finish_run,
    labelled_by,
    running_runs,
    start_run,
)
from db.records import Run, RunOrigin, RunStatus
from flows.run_report.summary import Summary
from flows.stopping import Stopped
from tasks.labelling.job import now, stop_event


@dataclass(slots=True)
class LiveRun:
    """A run in progress."""

    run_id: str
    summary: Summary = field(default_factory=Summary)
    began: float = field(default_factory=time.monotonic)
    started_at: datetime = field(default_factory=now)

    def stop_clock(self) -> None:
        """Note how long the run has taken."""
        self.summary.wall_s = time.monotonic() - self.began


@contextmanager
def recorded_run(
    engine: Engine,
    home: Path,
    parameters: Mapping[str, Any],
    flow_run_name: str | None = None,
    flow_run_id: str | None = None,
    parent_id: str | None = None,
) -> Iterator[LiveRun]:
    """Record a run around the block; how the block ends decides the run's status."""
    run = LiveRun(str(uuid.uuid4()))
    with _locked(home, run.run_id) as lock:
        abandon_dead_runs(engine, home)
        start_run(
            engine, run.run_id, socket.gethostname(), os.getpid(), parameters, run.started_at,
            RunOrigin(flow_run_name, flow_run_id, parent_id),
        )  # fmt: skip
        status = RunStatus.FAILED
        try:
            yield run
            status = RunStatus.COMPLETED
        except Exception as error:
            status = RunStatus.CANCELLED if _is_stop(error) else RunStatus.FAILED
            raise
        except BaseException:  # an interrupt, or Prefect ends the run
            status = RunStatus.CANCELLED
            raise
        finally:
            stop_event(run.run_id).set()
            run.stop_clock()
            if status is not RunStatus.COMPLETED and not child_runs(engine, run.run_id):
                # Shards that were in flight have committed clips that are not counted yet.
                found = labelled_by(engine, run.run_id)
                run.summary.n_labelled, run.summary.audio_s = found
            finish_run(engine, run.run_id, status, run.summary.counts, run.summary.as_json(), now())
            # Last: if the end could not be stored, the unlocked file shows that the run is dead.
            lock.unlink(missing_ok=True)


def _is_stop(error: BaseException | None) -> bool:
    """Whether the error comes of a request to stop; Prefect may raise another one in its place."""
    while error is not None and not isinstance(error, Cancelled | Stopped):
        error = error.__cause__ or error.__context__
    return error is not None


def abandon_dead_runs(engine: Engine, home: Path) -> list[str]:
    """Mark runs that no longer live as crashed, and free what they claimed.

    For runs of this host the lock decides; others are given up after a long silence.
    """
    host, silent_since = socket.gethostname(), now() - timedelta(seconds=3 * LEASE_S)
    dead = [
        run.run_id
        for run in running_runs(engine)
        if (
            not _is_alive(_lock_path(home, run.run_id), run)
            if run.host == host
            else (run.seen_at or run.started_at) < silent_since
        )
    ]
    return [run_id for run_id in dead if abandon_run(engine, run_id, now())]


def _lock_path(home: Path, run_id: str) -> Path:
    return home / "locks" / f"{run_id}.lock"


@contextmanager
def _locked(home: Path, run_id: str) -> Iterator[Path]:
    path = _lock_path(home, run_id)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield path


def _is_alive(path: Path, run: Run) -> bool:
    try:
        with path.open("r+") as file:  # NFS locks nothing that is open for reading alone
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except (FileNotFoundError, PermissionError):
        # A run of another home with the same database, or of another user; its process is all that
        # can be seen. Or a power cut took the lock's file along, and a process of today has that
        # run's number.
        return run.started_at > _booted_at() and _has_process(run.pid)
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)
    return False


def _booted_at() -> datetime:
    """When this machine was started; long ago where it does not tell."""
    if not hasattr(time, "CLOCK_BOOTTIME"):
        return datetime.fromtimestamp(0, UTC)
    return now() - timedelta(seconds=time.clock_gettime(time.CLOCK_BOOTTIME))


def _has_process(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True  # it is another user's
    except ProcessLookupError:
        return False
    return True
