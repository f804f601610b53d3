"""Prefect's database in the home folder: who may run a server on it, and the server of `serve`.

One process at a time holds the kernel's lock on ``prefect.lock`` and may start a server on
``prefect.db``. The file says at which address a server answers that others may use. All that is
started on the database carries a mark in its environment, by which what a killed process left
running is found again.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from audioset_core.errors import UserError

MARK = "AUDIOSET_SERVES"
STARTUP_TIMEOUT_S = 120
_ORPHANS_END_WITHIN_S = 10.0
_SERVER_ENDS_WITHIN_S = 10.0


@dataclass(frozen=True, slots=True)
class OwnDatabase:
    """A database for Prefect's own server.

    ``lock`` is None while another process runs a server on the home's database; ``path`` is a
    passing one then, and ``served_at`` the other server's address if it may be used.
    """

    path: Path
    lock: IO[str] | None
    served_at: str | None = None

    @property
    def url(self) -> str:
        """As SQLAlchemy wants it."""
        return f"sqlite+aiosqlite:///{self.path}"

    def publish(self, url: str) -> None:
        """Let other commands on the home use the server at this address."""
        if self.lock is not None:
            print(url, file=self.lock, flush=True)

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
    """The home's Prefect database with its lock, or a passing one while that is in use."""
    database = home.absolute() / "prefect.db"
    with (home / "prefect.lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            said = lock.read().strip()
            with tempfile.TemporaryDirectory(prefix="audioset-prefect-") as folder:
                yield OwnDatabase(Path(folder) / "prefect.db", None, said or None)
        else:
            _stop_orphans(database)
            lock.truncate(0)
            try:
                yield OwnDatabase(database, lock)
            finally:
                lock.truncate(0)


@contextmanager
def child_server(
    database: OwnDatabase, *, port: int, with_ui: bool, settings: Mapping[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    """Prefect's server with its services, on loopback, for the length of the block.

    What it says goes to ``prefect.log`` beside the database.

    Raises:
        UserError: it does not come up; the message ends with what it said.
    """
    environment = {
        **os.environ,
        **settings,
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": database.url,
        "PREFECT_SERVER_UI_ENABLED": str(with_ui),
        # The UI calls the port that is named here.
        "PREFECT_SERVER_API_PORT": str(port),
    }
    environment.pop("PREFECT_API_URL", None)
    line = [sys.executable, "-m", "prefect", "server", "start"]
    log = database.path.with_name("prefect.log")
    with log.open("wb") as output:
        # A session of its own: Ctrl-C must not end it before the runs have reported to it.
        process = subprocess.Popen(  # noqa: S603 (this Python, its own words)
            [*line, "--host", "127.0.0.1", "--port", str(port)], env=environment,
            stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + STARTUP_TIMEOUT_S
        while not answers(f"http://127.0.0.1:{port}/api"):
            if process.poll() is not None or time.monotonic() > deadline:
                said = log.read_text(errors="replace").strip().splitlines() or ["nothing"]
                raise UserError(f"Prefect's server does not start ({log}): {said[-1].strip()}")
            time.sleep(0.1)
        yield process
    finally:
        process.terminate()
        try:
            process.wait(_SERVER_ENDS_WITHIN_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def answers(url: str) -> bool:
    """Whether a Prefect API answers at the address."""
    import httpx

    try:
        return httpx.get(f"{url}/health", timeout=5, trust_env=False).is_success
    except httpx.HTTPError:
        return False


def free_port() -> int:
    """A loopback port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def check_port(port: int) -> None:
    """Make sure that a server can listen there.

    Raises:
        UserError: somebody else does.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise UserError(
                f"port {port} cannot be used ({error.strerror}); choose another with --port"
            ) from error


def _stop_orphans(database: Path) -> None:
    """Stop what a killed process left running on the database; the lock says that it is dead."""
    left = _marked(database)
    for kind in (signal.SIGTERM, signal.SIGKILL):
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, kind)
        deadline = time.monotonic() + _ORPHANS_END_WITHIN_S
        while left and time.monotonic() < deadline:
            time.sleep(0.1)
            left = _marked(database)


def _marked(database: Path) -> list[int]:
    mark = os.fsencode(f"{MARK}={database}")
    found = []
    for environment in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if mark in environment.read_bytes().split(b"\0"):
                found.append(int(environment.parent.name))
    return [pid for pid in found if pid != os.getpid()]
