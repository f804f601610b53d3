"""An empty Prefect database with all its tables, kept in the cache: to make one takes 6 s of CPU.

There is one for each version of Prefect. It is taken from the first home whose server has come up,
and copied into every home that has none yet. Where the cache cannot be written, or what lies there
is damaged, Prefect makes its tables itself. Until that is done, a file beside them says so, and an
interrupted start begins again.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
from importlib.metadata import version
from pathlib import Path

from audioset_core.weights.locate import cache_dir

MEMO = "prefect-memo.toml"
"""In which Prefect notes, beside the database, what it has registered there."""


def kept_path() -> Path:
    """Where the database of the installed Prefect is kept."""
    return cache_dir() / "prefect" / f"{version('prefect')}.db"


def prepare(database: Path) -> bool:
    """Copy the kept database if a server has none yet; returns whether all tables are there."""
    unfinished = _unfinished(database)
    if unfinished.exists():
        database.unlink(missing_ok=True)
    if not database.exists():
        # Of one that was deleted: SQLite would play its log into the copy, and Prefect believe that
        # its kinds of blocks are there.
        for name in (f"{database.name}-wal", f"{database.name}-shm", MEMO):
            database.with_name(name).unlink(missing_ok=True)
    kept = kept_path()
    expected = _revision(kept) if _answer(kept, "PRAGMA quick_check(1)") == "ok" else None
    if not database.exists():
        if expected is None or not _copied(kept, database):
            unfinished.touch()
            return False
        unfinished.unlink(missing_ok=True)
    return expected is not None and _revision(database) == expected


def finish(database: Path) -> None:
    """Once the server answers: keep the tables that it has made."""
    unfinished = _unfinished(database)
    if not unfinished.exists():
        return
    kept = kept_path()
    new = kept.with_name(f"{kept.name}.{os.getpid()}.tmp")
    with contextlib.suppress(OSError, sqlite3.Error):
        kept.parent.mkdir(parents=True, exist_ok=True)
        try:
            with contextlib.closing(sqlite3.connect(database)) as conn:
                conn.execute("VACUUM INTO ?", [str(new)])
            new.replace(kept)
        finally:
            new.unlink(missing_ok=True)
    unfinished.unlink(missing_ok=True)


def _unfinished(database: Path) -> Path:
    return database.with_name(f"{database.name}.unfinished")


def _copied(kept: Path, database: Path) -> bool:
    new = database.with_name(f"{database.name}.tmp")
    try:
        shutil.copyfile(kept, new)
    except OSError:
        new.unlink(missing_ok=True)
        return False
    new.replace(database)
    return True


def _revision(database: Path) -> str | None:
    """The migration that the tables are at."""
    return _answer(database, "SELECT version_num FROM alembic_version")


def _answer(database: Path, query: str) -> str | None:
    try:
        address = f"{database.absolute().as_uri()}?mode=ro"
        with contextlib.closing(sqlite3.connect(address, uri=True)) as conn:
            row = conn.execute(query).fetchone()
    except sqlite3.Error:
        return None
    return str(row[0]) if row else None
