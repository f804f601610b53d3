"""``audioset sql``: the database in its own shell, for reading only."""

from __future__ import annotations

import os
import shutil
import sys
from typing import Annotated, NoReturn

import typer
from sqlalchemy import URL

from audioset_core.errors import UserError
from db.read_only import Snapshot, snapshot_of
from flows.cli.shared_options import AsCsv, Store

_READ_ONLY = "-c default_transaction_read_only=on"


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


def _become(command: list[str], environment: dict[str, str]) -> NoReturn:
    """Replace this process by another program, which then has the terminal and its signals."""
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(command[0], command, environment)  # noqa: S606 (a program found on PATH, no shell)
