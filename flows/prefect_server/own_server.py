"""Prefect's database in the home folder: who may run a server on it, and the server of `serve`.

One process at a time holds the kernel's lock on ``prefect.lock`` and may start a server on
``prefect.db``. The file says at which address a server answers that others may use. All that is
started on the database carries a mark in its environment, by which what a killed process left
running is found again.
"""

from __future__ import annotations

import atexit
import fcntl
import http.client
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

from audioset_core.errors import UserError
from db.engine import sqlite_url
from flows.prefect_server import kept_database, tethered
from flows.prefect_server.tethered import MARK
from flows.stopping import stopper

STARTUP_TIMEOUT_S = 120
_ORPHANS_END_WITHIN_S = 10.0
_SERVER_ENDS_WITHIN_S, _STOPPED_SERVER_ENDS_WITHIN_S = 10.0, 2.0
_DELIVERED_WITHIN_S = 1.0


@dataclass(frozen=True, slots=True)
class OwnDatabase:
    """A database for Prefect's own server.

    ``lock`` is None while another process runs a server on the home's database; ``path`` is a
    temporary one then, and ``served_at`` the other server's address if it may be used.
    """

    path: Path
    lock: IO[str] | None
    served_at: str | None = None

    @property
    def url(self) -> str:
        """The URL for SQLAlchemy."""
        return sqlite_url(self.path, driver="sqlite+aiosqlite")

    @property
    def settings(self) -> dict[str, str]:
        """Settings with which Prefect's server uses only this database and its folder."""
        return {
            "PREFECT_SERVER_DATABASE_CONNECTION_URL": self.url,
            "PREFECT_SERVER_MEMO_STORE_PATH": str(self.path.with_name(kept_database.MEMO)),
        }

    def publish(self, url: str, ui_url: str | None) -> None:
        """Let other commands on the home use the server's API, and know its pages if any."""
        if self.lock is not None:
            print(url, ui_url or "", sep="\n", file=self.lock, flush=True)

    @contextmanager
    def marking(self) -> Iterator[None]:
        """Processes started inside the block carry the mark."""
        before = os.environ.get(MARK)
        os.environ[MARK] = str(self.path)
        try:
            yield
        finally:
            os.environ.pop(MARK)
            if before is not None:
                os.environ[MARK] = before


@contextmanager
def own_database(home: Path) -> Iterator[OwnDatabase]:
    """The home's Prefect database with its lock, or a temporary one while that is in use."""
    database = home.absolute() / "prefect.db"
    with (home / "prefect.lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            said = lock.readline().strip()
            with tempfile.TemporaryDirectory(prefix="audioset-prefect-") as folder:
                stopper().on_leave(partial(shutil.rmtree, folder, ignore_errors=True))
                yield OwnDatabase(Path(folder) / "prefect.db", None, said or None)
        else:
            # The lock was free: the process that started them is dead.
            tethered.stop_marked(f"{MARK}={database}", _ORPHANS_END_WITHIN_S)
            lock.truncate(0)
            try:
                yield OwnDatabase(database, lock)
            finally:
                lock.truncate(0)


def begin_server(
    database: OwnDatabase, environment: Mapping[str, str]
) -> tuple[str, subprocess.Popen[bytes]]:
    """Start Prefect's API for this process: its URL, which answers in a while.

    Prefect's `SubprocessASGIServer` does the same, but imports all of the server's code here too,
    and waits. The server is stopped at exit, once the last logs have reached it.
    """
    import prefect

    has_tables = kept_database.prepare(database.path)
    port = free_port()
    # Neither Python nor uvicorn must import from the working directory.
    line = ["uvicorn", "--app-dir", str(prefect.__module_path__.parent), "--log-level", "error"]
    line += ["--host", "127.0.0.1", "--port", str(port), "--factory"]
    process = _start(
        [*line, "prefect.server.api.server:create_app"],
        {
            **environment,
            **database.settings,
            MARK: str(database.path),
            "PREFECT_SERVER_UI_ENABLED": "false",
            "PREFECT_SERVER_DATABASE_MIGRATE_ON_START": str(not has_tables),
            # Without the services and the kinds of blocks that only deployments need.
            "PREFECT_SERVER_REGISTER_BLOCKS_ON_START": "false",
            "PREFECT_SERVER_MEMOIZE_BLOCK_AUTO_REGISTRATION": "false",
            "PREFECT__SERVER_EPHEMERAL": "1",
            "PREFECT__SERVER_FINAL": "1",
        },
        _log_of(database),
    )
    atexit.register(_stop, process)
    return f"http://127.0.0.1:{port}/api", process


def wait_for_answer(url: str, process: subprocess.Popen[bytes], database: OwnDatabase) -> None:
    """Wait until a server that is starting on the database answers.

    Raises:
        UserError: it ended, or took two minutes; the message ends with what the log says.
    """
    log = _log_of(database)
    deadline = time.monotonic() + STARTUP_TIMEOUT_S
    while not answers(url):
        if process.poll() is not None or time.monotonic() > deadline:
            said = log.read_text(errors="replace").strip().splitlines()
            last = f": {said[-1].strip()}" if said else ""
            raise UserError(f"Prefect's server does not start ({log}){last}")
        time.sleep(0.05)
    kept_database.finish(database.path)


@contextmanager
def child_server(
    database: OwnDatabase, *, port: int, with_ui: bool, environment: Mapping[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    """Prefect's server with its services, on loopback, for the length of the block.

    What it says goes to ``prefect.log`` beside the database.

    Raises:
        UserError: it does not come up; the message ends with what it said.
    """
    environment = {
        **environment,
        **database.settings,
        MARK: str(database.path),
        "PREFECT_SERVER_UI_ENABLED": str(with_ui),
        # The UI calls the port that is named here.
        "PREFECT_SERVER_API_PORT": str(port),
    }
    environment.pop("PREFECT_API_URL", None)
    line = ["prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    kept_database.prepare(database.path)
    process = _start(line, environment, _log_of(database))
    # A run that outlived its server could report to nobody.
    kill_runs = partial(tethered.kill_marked, f"{MARK}={database.path}")
    stopper().on_leave(kill_runs)
    try:
        wait_for_answer(f"http://127.0.0.1:{port}/api", process, database)
        yield process
    finally:
        _deliver()
        _stop(process, _STOPPED_SERVER_ENDS_WITHIN_S)
        kill_runs()


def _deliver() -> None:
    """Send what is queued for the server; without one Prefect would retry for a minute."""
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

    for worker in (EventsWorker, APILogWorker):
        worker.drain_all(timeout=_DELIVERED_WITHIN_S)


def _log_of(database: OwnDatabase) -> Path:
    """What the server on the database says."""
    return database.path.with_name("prefect.log")


def _start(module: list[str], environment: Mapping[str, str], log: Path) -> subprocess.Popen[bytes]:
    """Run a module with its arguments until this process has ended, however it ends."""
    reading, _ = os.pipe()  # the other end stays open until this process has ended
    try:
        with log.open("wb") as output:
            # A session of its own: Ctrl-C must not end it before the runs have reported to it.
            process = subprocess.Popen(  # noqa: S603 (this Python, its own words)
                [sys.executable, "-P", tethered.__file__, str(reading), *module],
                env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                pass_fds=(reading,), start_new_session=True,
            )  # fmt: skip
    finally:
        os.close(reading)
    stopper().on_leave(process.kill)
    return process


def _stop(process: subprocess.Popen[bytes], within_s: float | None = None) -> None:
    if within_s is None:
        is_hurried = stopper().code is not None
        within_s = _STOPPED_SERVER_ENDS_WITHIN_S if is_hurried else _SERVER_ENDS_WITHIN_S
    process.terminate()
    try:
        process.wait(within_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def answers(url: str) -> bool:
    """Whether a Prefect API answers at the address, which is one of this machine's."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=5)
    try:
        connection.request("GET", f"{parts.path}/health")
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def free_port() -> int:
    """A free loopback port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def check_port(port: int) -> None:
    """Make sure that a server can listen there.

    Raises:
        UserError: another program listens there.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise UserError(
                f"port {port} cannot be used ({error.strerror}); choose another with --port"
            ) from error
