"""The command line's common options: which home, which database."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Annotated

import typer

from audioset_core.errors import UserError
from db.engine import sqlite_url

DEFAULT_HOME = Path("audioset-data")


def default_home() -> Path:
    """``AUDIOSET_HOME``, or ``audioset-data`` in the current folder."""
    return Path(os.environ.get("AUDIOSET_HOME") or DEFAULT_HOME)


def make_home(home: Path) -> None:
    """Make sure that the home folder is there, and that Prefect can store its name.

    Raises:
        UserError: the name is not UTF-8, or no folder may be made there.
    """
    check_name("--home", home)
    try:
        home.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        raise UserError(f"--home {home}: no folder can be made there: {error.strerror}") from None


def check_name(option: str, path: str | Path) -> None:
    """Refuse a name that no run can be given: Prefect keeps its parameters as JSON.

    Raises:
        UserError: the name is not UTF-8.
    """
    try:
        str(path).encode()
    except UnicodeEncodeError:
        shown = str(path).encode("ascii", "backslashreplace").decode()
        raise UserError(
            f"{option} {shown}: its name is not UTF-8; rename it, or give the folder that it is in"
        ) from None


def database_url(home: Path, given: str | None = None) -> str:
    """The database's URL: as given, ``AUDIOSET_DB``, or the SQLite file of the home folder."""
    return given or os.environ.get("AUDIOSET_DB") or sqlite_url(home.absolute() / "labels.db")


Home = Annotated[
    Path,
    typer.Option(envvar="AUDIOSET_HOME", help="Folder of labels.db, scores/ and exports/."),
]
Database = Annotated[
    str | None,
    typer.Option(
        "--db",
        envvar="AUDIOSET_DB",
        help="Database URL. [default: labels.db in the home folder]",
        show_default=False,
        show_envvar=True,
    ),
]
