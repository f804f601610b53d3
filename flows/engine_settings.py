"""Prefect's settings for a flow that runs inside the command line.

Where a server is configured (``PREFECT_API_URL`` or a profile) the run reports there. Where
none is, Prefect's own temporary one serves: quiet, on loopback, its database in the home
folder, nothing sent anywhere.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

# Set before Prefect is imported; what a person has set already wins.
_ENVIRONMENT = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    # The command line says in its own words what happens; the API keeps the logs.
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
    "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
    "PREFECT_CLI_PROMPT": "false",
    "PREFECT_SHOW_EXPERIMENTAL_WARNINGS": "false",
}
_STARTUP_TIMEOUT_S = 120


@contextmanager
def command_line_engine(home: Path) -> Iterator[None]:
    """Run flows inside the block with the settings above; imports Prefect."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    from prefect.settings import (
        PREFECT_API_URL,
        PREFECT_FLOWS_HEARTBEAT_FREQUENCY,
        PREFECT_SERVER_ALLOW_EPHEMERAL_MODE,
        PREFECT_SERVER_DATABASE_CONNECTION_URL,
        temporary_settings,
    )

    if PREFECT_API_URL.value():
        yield
        return
    with _own_database(home) as (database, lock):
        settings = {
            # The heartbeat thread costs every flow a second at its end; only servers need it.
            PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None,
            PREFECT_SERVER_ALLOW_EPHEMERAL_MODE: True,
            PREFECT_SERVER_DATABASE_CONNECTION_URL: f"sqlite+aiosqlite:///{database}",
        }
        with temporary_settings(settings):
            from prefect.server.api.server import SubprocessASGIServer

            server = SubprocessASGIServer()
            server.start(timeout=_STARTUP_TIMEOUT_S)
            if lock is not None and server.server_process is not None:
                print(server.server_process.pid, file=lock, flush=True)
            yield  # Prefect stops the server at exit, once the last logs have reached it


@contextmanager
def _own_database(home: Path) -> Iterator[tuple[Path, IO[str] | None]]:
    """The home's Prefect database with its lock, or a passing one while that is in use."""
    with (home / "prefect.lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            with tempfile.TemporaryDirectory(prefix="audioset-prefect-") as folder:
                yield Path(folder) / "prefect.db", None
        else:
            database = home.absolute() / "prefect.db"
            lock.seek(0)
            _stop_orphan(lock.read(), database)
            lock.truncate(0)
            yield database, lock


def _stop_orphan(pid: str, database: Path) -> None:
    """Stop the server of a command line that was killed: it outlives its parent."""
    with contextlib.suppress(OSError, ValueError):
        environment = Path(f"/proc/{int(pid)}/environ").read_bytes()
        if os.fsencode(str(database)) in environment:
            os.kill(int(pid), signal.SIGTERM)
