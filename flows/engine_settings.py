"""Prefect's settings for a flow that runs inside the command line.

Where a server is configured (``PREFECT_API_URL`` or a profile) the run reports there. Where
none is, Prefect's own temporary one serves: quiet, on loopback, its database in the home
folder, nothing sent anywhere.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

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
        PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS,
        temporary_settings,
    )

    # The heartbeat thread costs every flow a second at its end; only servers need it.
    settings: dict[object, object] = {}
    with ExitStack() as stack:
        if not PREFECT_API_URL.value():
            settings = {
                PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None,
                PREFECT_SERVER_ALLOW_EPHEMERAL_MODE: True,
                PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS: _STARTUP_TIMEOUT_S,
                PREFECT_SERVER_DATABASE_CONNECTION_URL: "sqlite+aiosqlite:///"
                + str(stack.enter_context(_own_database(home))),
            }
        stack.enter_context(temporary_settings(settings))
        yield


@contextmanager
def _own_database(home: Path) -> Iterator[Path]:
    """The home's Prefect database, or a passing one while another command line uses that."""
    with (home / "prefect.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            with tempfile.TemporaryDirectory(prefix="audioset-prefect-") as folder:
                yield Path(folder) / "prefect.db"
        else:
            yield home.absolute() / "prefect.db"
