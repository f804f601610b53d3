"""``audioset sql`` and ``audioset browse``: the database in other programs, for reading only."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from sqlalchemy import URL

from audioset_core.errors import UserError
from db.read_only import Snapshot, snapshot_of
from flows.cli.datasette import metadata
from flows.cli.shared_options import AsCsv, Store
from flows.terminal import note

_READ_ONLY = "-c default_transaction_read_only=on"
_TIME_LIMIT_MS = 30_000


def sql(
    *,
    query: Annotated[
        str | None, typer.Argument(help="SQL to run. [default: open the shell]")
    ] = None,
    store: Store,
    as_csv: AsCsv = False,
) -> None:
    """Open the database in its own shell, sqlite3 or psql, read-only.

    docs/database.md describes the views. Scores in views are 0 to 1; in tables 0 to 10,000.
    """
    if as_csv and query is None:
        raise UserError("--csv is for a query: audioset sql --csv 'SELECT ...'")
    url, snapshot = _existing(store)
    command, environment = _shell(url, query, as_csv=as_csv, snapshot=snapshot)
    _become(command, {**os.environ, **environment})


def browse(
    *,
    port: Annotated[int, typer.Option(min=0, max=65_535, help="Port on this machine.")] = 8001,
    show: Annotated[bool, typer.Option("--open", help="Open the page in the web browser.")] = False,
    store: Store,
) -> None:
    """Open the database in a web browser, with Datasette: tables, facets and ready questions.

    Read-only, and only for this machine (127.0.0.1). Stop it with Ctrl-C. Labelling may run at the
    same time.
    """
    url, snapshot = _existing(store)
    if url.get_backend_name() != "sqlite":
        raise UserError("browse shows SQLite databases; for PostgreSQL there is `audioset sql`")
    program = _datasette()
    with tempfile.NamedTemporaryFile(
        "w", prefix="audioset-browse-", suffix=".json", delete=False
    ) as file:
        json.dump(metadata(Path(str(url.database)).stem), file)
    note(f"http://127.0.0.1:{port}/")
    database = Path(str(url.database))
    # Datasette makes an address of the path that it is given, whatever its folders are called.
    os.chdir(database.parent)
    _become(
        [*program, "serve", *(["--immutable"] if snapshot and snapshot.is_immutable else []),
         database.name, "--metadata", file.name,
         "--host", "127.0.0.1", "--port", str(port),
         "--setting", "sql_time_limit_ms", str(_TIME_LIMIT_MS),
         "--setting", "allow_download", "off", *(["--open"] if show else [])],
        dict(os.environ),
    )  # fmt: skip


def _existing(store: Store) -> tuple[URL, Snapshot | None]:
    """The URL of the existing database, brought to this version's tables; how to read it."""
    with store.database() as engine:
        return engine.url, snapshot_of(engine)


def _shell(
    url: URL, query: str | None, *, as_csv: bool, snapshot: Snapshot | None = None
) -> tuple[list[str], dict[str, str]]:
    """The command that opens the shell, and what its environment needs."""
    if url.get_backend_name() == "sqlite":
        command = [_program("sqlite3", "sqlite3"), "-readonly", "-header"]
        command += ["-csv"] if as_csv else ["-column"]
        file = snapshot.uri if snapshot else str(url.database)
        return [*command, file, *([] if query is None else [query])], {}
    # A password in the command could be read by everyone on the machine.
    plain = URL.create(
        "postgresql", url.username, None, url.host, url.port, url.database, url.query
    ).render_as_string()
    options = f"{os.environ.get('PGOPTIONS', '')} {_READ_ONLY}".strip()
    environment = {"PGOPTIONS": options}
    if url.password:
        environment["PGPASSWORD"] = str(url.password)
    command = [_program("psql", "postgresql-client"), *(["--csv"] if as_csv else [])]
    return [*command, "-d", plain, *([] if query is None else ["-c", query])], environment


def _program(name: str, package: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise UserError(f"there is no {name} on this machine: install the package {package}")
    return found


def _datasette() -> list[str]:
    """How Datasette is started: from this environment, as a program of its own, or by uvx."""
    if importlib.util.find_spec("datasette"):
        return [sys.executable, "-m", "datasette"]
    for command in (["datasette"], ["uvx", "datasette"]):
        if found := shutil.which(command[0]):
            return [found, *command[1:]]
    raise UserError("browse needs Datasette: pip install 'audioset-flows[browse]'")


def _become(command: list[str], environment: dict[str, str]) -> NoReturn:
    """Replace this process by another program, which then has the terminal and its signals."""
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(command[0], command, environment)  # noqa: S606 (a program found on PATH, no shell)
