"""Prefect's settings for a flow that runs inside the command line, and for `audioset serve`.

If a server is configured (``PREFECT_API_URL`` or a profile), runs report there. If none is, a
server is started here: on loopback, its database in the home folder, nothing sent anywhere. While
`audioset serve` runs on a home, other commands on that home use its server.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from audioset_core.errors import UserError
from audioset_core.weights.proxies import proxy_problem
from flows.prefect_server.configured_server import check_server, import_settings, source_of
from flows.prefect_server.own_server import (
    OwnDatabase,
    answers,
    begin_server,
    check_port,
    child_server,
    free_port,
    own_database,
    wait_for_answer,
)
from flows.run_report.progress import lasting_server
from flows.stopping import stopper

if TYPE_CHECKING:
    from prefect.settings.legacy import Setting

UI_PORT = 4200
_PROFILES = "~/.prefect/profiles.toml"
# Set before Prefect is imported; what a person has set already wins.
ENVIRONMENT = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    # One INSERT for many events of task runs: 23 ms of the server's CPU a task run instead of 60.
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "100",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL": "2",
    # Runs that ended over 90 days ago go; by default Prefect keeps them for ever.
    "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED": "events,flow_runs",
    "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
    "PREFECT_CLI_PROMPT": "false",
    "PREFECT_SHOW_EXPERIMENTAL_WARNINGS": "false",
}
# The command line says in its own words what happens; the API keeps the logs.
_COMMAND_LINE = {"PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL"}
# A person's settings of another server, such as its database or message broker, are not for ours.
_OF_SERVERS = ("PREFECT_SERVER_", "PREFECT_API_DATABASE_", "PREFECT_MESSAGING_", "PREFECT_PROFILE")
_OF_OURS_TOO = ("PREFECT_SERVER_ANALYTICS_", "PREFECT_SERVER_API_AUTH_", "PREFECT_SERVER_LOGGING_",
                "PREFECT_SERVER_SERVICES_")  # fmt: skip
_SERVING = {"PREFECT_LOGGING_EXTRA_LOGGERS": "audioset_core,db"}


@dataclass(frozen=True, slots=True)
class Served:
    """The server that `audioset serve` reports to; ``process`` is None if it was there before."""

    url: str
    ui_url: str | None
    process: subprocess.Popen[bytes] | None


@contextmanager
def server_for_command(home: Path, meanwhile: Callable[[], None]) -> Iterator[None]:
    """Run flows inside the block with the settings above; imports Prefect.

    ``meanwhile`` is called while the server starts, to begin other slow work.
    """
    _set_environment(_COMMAND_LINE, home)
    with contextlib.ExitStack() as stack:
        with stopper().at_once():
            _report_to_server(home, meanwhile, stack)
        yield


@contextmanager
def server_that_lasts(home: Path) -> Iterator[None]:
    """Report to the configured server, or to that of `audioset serve` on the home, in the block.

    Raises:
        UserError: there is neither.
    """
    _set_environment(_COMMAND_LINE, home)
    with contextlib.ExitStack() as stack:
        if _report_to_lasting(home, stack) is not None:
            raise UserError(
                "there is no Prefect server that could send anything: audioset serve starts one, "
                "PREFECT_API_URL names one"
            )
        yield


def _report_to_server(
    home: Path, meanwhile: Callable[[], None], stack: contextlib.ExitStack
) -> None:
    """Have the flows report to a server; one is started if there is none."""
    from prefect.settings import (
        PREFECT_API_URL,
        PREFECT_FLOWS_HEARTBEAT_FREQUENCY,
        temporary_settings,
    )

    database = _report_to_lasting(home, stack)
    if database is None:
        _import_flows(meanwhile)
        return
    url, process = begin_server(database, _server_environment())
    _import_flows(meanwhile)
    wait_for_answer(url, process, database)
    settings: dict[Setting, str | None] = {
        # The heartbeat thread costs every flow a second at its end; only servers need it.
        PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None,
        PREFECT_API_URL: url,
        **_own_password(),
    }
    stack.enter_context(temporary_settings(settings))
    stack.callback(lasting_server.reset, lasting_server.set(False))


def _report_to_lasting(home: Path, stack: contextlib.ExitStack) -> OwnDatabase | None:
    """Report to a server that is there; the database for one to be started, if there is none."""
    from prefect.settings import PREFECT_API_URL, temporary_settings

    if configured := PREFECT_API_URL.value():
        check_server(configured, source_of("PREFECT_API_URL"))
        return None
    database = stack.enter_context(own_database(home))
    if database.served_at is None or not answers(database.served_at):
        return database
    served = {PREFECT_API_URL: database.served_at, **_own_password()}
    stack.enter_context(temporary_settings(served))
    check_server(database.served_at, f"of audioset serve on {home}")
    return None


def _import_flows(meanwhile: Callable[[], None]) -> None:
    """Import the flow while the server starts; both take a while."""
    meanwhile()
    import prefect.flow_engine

    import flows.label_audio  # noqa: F401

    # SIGTERM must mean the same in a flow as elsewhere in the command line; Prefect's own handler
    # raises and then sends the signal once more.
    setattr(prefect.flow_engine, "capture_sigterm", contextlib.nullcontext)  # noqa: B010 (mypy)


def prepare_to_serve(home: Path) -> None:
    """Set what Prefect reads when it is imported, and import it.

    Raises:
        UserError: it does not accept a setting, or a proxy that is set cannot be used.
    """
    _set_environment(_SERVING, home)


@contextmanager
def server_for_serve(home: Path, *, port: int | None, with_ui: bool) -> Iterator[Served]:
    """The server for the deployments of `audioset serve`, after `prepare_to_serve`.

    Raises:
        UserError: the configured server does not answer, or its own cannot be started.
    """
    from prefect.settings import PREFECT_API_URL, temporary_settings

    configured = PREFECT_API_URL.value()
    if configured:
        _check_configured(configured, own_wanted=with_ui or port is not None)
        yield Served(configured, None, None)
        return
    with own_database(home) as database:
        if database.lock is None:
            where = f" (audioset serve, {database.served_at})" if database.served_at else ""
            raise UserError(f"another command runs Prefect on {home}{where}; stop it first")
        chosen = port or (UI_PORT if with_ui else free_port())
        check_port(chosen)
        environment = _server_environment()
        url = f"http://127.0.0.1:{chosen}/api"
        with (
            database.marking(),
            child_server(
                database, port=chosen, with_ui=with_ui, environment=environment
            ) as process,
            temporary_settings({PREFECT_API_URL: url, **_own_password()}),
        ):
            ui_url = url.removesuffix("/api") if with_ui else None
            database.publish(url, ui_url)
            yield Served(url, ui_url, process)


def _check_configured(url: str, *, own_wanted: bool) -> None:
    named_by = source_of("PREFECT_API_URL")
    if own_wanted:
        raise UserError(
            f"--with-server and --port are for a server of its own, but {named_by} names {url}; "
            f"leave out one or the other"
        )
    check_server(url, named_by)


def _own_password() -> dict[Setting, str]:
    """The password of a server of ours, PREFECT_SERVER_API_AUTH_STRING, for its clients."""
    from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_SERVER_API_AUTH_STRING

    password = PREFECT_SERVER_API_AUTH_STRING.value()
    return {} if password is None else {PREFECT_API_AUTH_STRING: password}


def _server_environment() -> dict[str, str]:
    """What a server of ours is started with: this process's environment and Prefect settings."""
    from prefect.settings import get_current_settings

    given = get_current_settings().to_environment_variables(exclude_unset=True)
    kept = {
        name: value
        for name, value in {**os.environ, **given}.items()
        if name.startswith(_OF_OURS_TOO) or not name.startswith(_OF_SERVERS)
    }
    # Else the server would read the profile again, with the settings that were left out.
    return {**kept, "PREFECT_PROFILES_PATH": os.devnull}


def _set_environment(further: Mapping[str, str], home: Path) -> None:
    further = {
        **further,
        # Prefect's own folder lies in the home; the profile stays in the person's folder.
        "PREFECT_PROFILES_PATH": os.path.expanduser(_PROFILES),  # noqa: PTH111 (may have no home)
        "PREFECT_HOME": str(home.absolute() / "prefect"),
    }
    if "PREFECT_HOME" in os.environ:
        del further["PREFECT_PROFILES_PATH"]  # the profile is in there
    for name, value in {**ENVIRONMENT, **further}.items():
        os.environ.setdefault(name, value)
    problem = proxy_problem(os.environ)
    if problem is not None:  # Prefect's client would fail with it
        raise UserError(problem)
    import_settings()
