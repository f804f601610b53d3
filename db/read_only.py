"""SQLite where nothing may be written: a read-only disk, another user's files.

To read a database in WAL mode SQLite wants its log (``-wal``) and the index of that (``-shm``).
Where both are there it reads all (``mode=ro``). Where they are not it would make them, which a
read-only folder refuses, and which in another person's folder leaves files that they cannot write:
then only the database itself is read (``immutable=1``), without what the log still holds.

Source: https://sqlite.org/wal.html#read_only_databases, https://sqlite.org/uri.html
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import Engine, text

_OPTION = "audioset_snapshot"
# The log of WAL mode, and that of a transaction before the database was first switched to it.
_LOGS = ("-wal", "-journal")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A database that can only be read: how SQLite is to open it, and what is seen."""

    path: Path
    uri: str
    is_immutable: bool
    unseen: tuple[str, int] | None
    """Name and bytes of a log that is not read."""

    def __str__(self) -> str:
        files = [self.path] if self.is_immutable else [self.path, _beside(self.path, "-wal")]
        as_of = datetime.fromtimestamp(max(file.stat().st_mtime for file in files), UTC)
        said = f"{self.path.name} can only be read here: a snapshot of {as_of:%Y-%m-%d %H:%M} UTC"
        if self.unseen is None:
            return said
        name, size_bytes = self.unseen
        return (
            f"{said}; what was written since ({name}, {size_bytes:,} bytes) is missing: copy "
            f"{self.path.name}* to a folder where you may write, and ask with --db there"
        )

    def connect(self, timeout_s: float) -> Any:
        """A connection of Python's own; SQLAlchemy's pool may hand it to another thread."""
        return sqlite3.connect(self.uri, uri=True, timeout=timeout_s, check_same_thread=False)


def find_snapshot(path: Path, *, is_shared: bool) -> Snapshot | None:
    """How to read the database at `path` if it cannot be written; None if it can.

    `is_shared`: on a network file system, where the index of the log means nothing.

    Raises:
        OSError: it cannot be read either.
    """
    logs = [_beside(path, suffix) for suffix in ("-wal", "-shm")]
    there = [log for log in logs if log.exists()]
    if all(os.access(each, os.W_OK) for each in (path, path.parent, *there)):
        return None
    path.open("rb").close()
    plain = f"file:{quote(os.fsencode(path))}?mode=ro"
    if len(there) == len(logs) and not is_shared and _opens(plain):
        return Snapshot(path, plain, is_immutable=False, unseen=None)
    unseen = None
    for log in (_beside(path, suffix) for suffix in _LOGS):
        if log.exists() and (size_bytes := log.stat().st_size):
            unseen = log.name, size_bytes
    return Snapshot(path, f"{plain}&immutable=1", is_immutable=True, unseen=unseen)


def mark(engine: Engine, snapshot: Snapshot) -> None:
    """Remember with the engine that it reads a snapshot."""
    engine.update_execution_options(**{_OPTION: snapshot})


def snapshot_of(engine: Engine) -> Snapshot | None:
    """What the engine reads, where it cannot write."""
    found: Snapshot | None = engine.get_execution_options().get(_OPTION)
    return found


def may_write(engine: Engine) -> bool:
    """Whether this user may change labels here: the file, or the tables of the server."""
    if engine.dialect.name == "sqlite":
        return snapshot_of(engine) is None
    allowed = text(
        "SELECT current_setting('transaction_read_only') = 'off' "
        "AND has_table_privilege('sources', 'UPDATE')"
    )
    with engine.connect() as conn:
        return bool(conn.execute(allowed).scalar())


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _opens(uri: str) -> bool:
    try:
        with closing(sqlite3.connect(uri, uri=True)) as conn:
            conn.execute("SELECT 1 FROM sqlite_master").fetchone()
    except sqlite3.Error:
        return False
    return True
