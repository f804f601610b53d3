"""Which runs are alive: a lock that the kernel drops with its process."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest
from sqlalchemy import Engine, select

from audioset_core.inference.scorer import Cancelled
from db.engine import open_engine, reading
from db.ledger.runs import start_run
from db.migrate import ensure_schema
from db.schema.tables import runs
from flows.run import live_runs as run_ledger
from flows.run.live_runs import abandon_dead_runs, recorded_run
from flows.stopping import Stopped
from tasks.labelling.job import now, stop_event
from tests.flows.build import REPOSITORY


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = open_engine(f"sqlite:///{tmp_path}/labels.db")
    ensure_schema(engine)
    yield engine
    engine.dispose()


def _statuses(engine: Engine) -> list[str]:
    with reading(engine) as conn:
        return list(conn.execute(select(runs.c.status).order_by(runs.c.started_at)).scalars())


def test_a_live_run_is_left_alone(engine: Engine, tmp_path: Path) -> None:
    with recorded_run(engine, tmp_path, {}, None):
        assert abandon_dead_runs(engine, tmp_path) == []
        with recorded_run(engine, tmp_path, {}, None):
            assert _statuses(engine) == ["running", "running"]
    assert _statuses(engine) == ["completed", "completed"]
    assert list((tmp_path / "locks").iterdir()) == []


def test_a_live_run_of_another_home_is_left_alone(engine: Engine, tmp_path: Path) -> None:
    with recorded_run(engine, tmp_path / "one", {}, None):
        assert abandon_dead_runs(engine, tmp_path / "two") == []
    assert _statuses(engine) == ["completed"]


def test_runs_on_a_network_drive_recognise_each_other(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NFS makes `flock` a lock of `fcntl`: an exclusive one needs a file open for writing."""
    flock = fcntl.flock

    def of_nfs(file: IO[str], kind: int) -> None:
        if not file.writable():
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        flock(file, kind)

    monkeypatch.setattr(fcntl, "flock", of_nfs)
    with recorded_run(engine, tmp_path, {}, None):
        assert abandon_dead_runs(engine, tmp_path) == []
    start_run(engine, "dead", socket.gethostname(), os.getpid(), {}, now())
    (tmp_path / "locks" / "dead.lock").touch()
    assert abandon_dead_runs(engine, tmp_path) == ["dead"]


def test_a_run_of_another_host_is_left_to_its_lease(engine: Engine, tmp_path: Path) -> None:
    start_run(engine, "elsewhere", "another-host", 1, {}, now())
    assert abandon_dead_runs(engine, tmp_path) == []


def test_a_dead_run_is_marked_by_the_next(engine: Engine, tmp_path: Path) -> None:
    program = (
        "import os, signal, sys\nfrom pathlib import Path\n"
        "from db.engine import open_engine\nfrom flows.run.live_runs import recorded_run\n"
        "with recorded_run(open_engine(sys.argv[1]), Path(sys.argv[2]), {}, 'victim'):\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    line = [sys.executable, "-c", program, f"sqlite:///{tmp_path}/labels.db", str(tmp_path)]
    killed = subprocess.run(line, cwd=REPOSITORY, capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert _statuses(engine) == ["running"]
    with recorded_run(engine, tmp_path, {}, "next"):
        assert _statuses(engine) == ["crashed", "running"]
    start_run(engine, "no lock", socket.gethostname(), _free_pid(), {}, now())
    assert abandon_dead_runs(engine, tmp_path) == ["no lock"]


def test_a_run_from_before_the_reboot_is_dead_whoever_has_its_number_now(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut may take the lock's file along."""
    start_run(engine, "old", socket.gethostname(), os.getpid(), {}, now())
    assert abandon_dead_runs(engine, tmp_path) == []
    monkeypatch.setattr(run_ledger, "_booted_at", now)
    assert abandon_dead_runs(engine, tmp_path) == ["old"]


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (Cancelled, "cancelled"),
        (KeyboardInterrupt, "cancelled"),
        (SystemExit, "cancelled"),
        (ZeroDivisionError, "failed"),
    ],
)
def test_how_a_run_ends_is_its_status(
    engine: Engine, tmp_path: Path, error: type[BaseException], status: str
) -> None:
    with pytest.raises(error), recorded_run(engine, tmp_path, {}, None) as run:
        raise error
    assert _statuses(engine) == [status]
    assert stop_event(run.run_id).is_set()


def test_an_error_in_place_of_an_interrupt_is_no_failure(engine: Engine, tmp_path: Path) -> None:
    """As Prefect raises one where it makes a task run."""
    error = ValueError("Task run is not set")
    error.__context__ = Stopped()
    with pytest.raises(ValueError, match="not set"), recorded_run(engine, tmp_path, {}, None):
        raise error
    assert _statuses(engine) == ["cancelled"]


def _free_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    with pytest.raises(ProcessLookupError):
        os.kill(process.pid, 0)
    return process.pid
