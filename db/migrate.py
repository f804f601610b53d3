"""Bringing a database to this version's schema; cheap when it already is.

Alembic is imported only when there is something to do: it costs more than most commands.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import (
    ColumnClause,
    Connection,
    Engine,
    Transaction,
    column,
    func,
    inspect,
    select,
    table,
)
from sqlalchemy.exc import OperationalError

from db.engine import one_line_errors, reading, writer, writing
from db.errors import DatabaseError, DatabaseUserError
from db.read_only import snapshot_of

VERSION_TABLE = "audioset_version"  # not Alembic's default, which other applications use too
_ADVISORY_LOCK = int.from_bytes(b"audioset", "big")
_LOGGER = logging.getLogger(__name__)


def ensure_schema(engine: Engine) -> None:
    """Create or upgrade tables and views; safe when several processes do so at once.

    Raises:
        DatabaseUserError: the database was made by a newer version, or by an older one and can only
            be read.
    """
    with reading(engine) as conn:
        if _is_at_head(conn):
            return
    if snapshot := snapshot_of(engine):
        message = f"{snapshot.path} is of another version and can only be read here"
        raise DatabaseUserError(f"{message}: bring a copy of it up to date where you may write")
    with _exclusively(engine) as conn:
        if not _is_at_head(conn):
            _upgrade(conn)


def _is_at_head(conn: Connection) -> bool:
    if not inspect(conn).has_table(VERSION_TABLE):
        return False
    version: ColumnClause[str] = column("version_num")
    found = conn.execute(select(version).select_from(table(VERSION_TABLE, version))).scalar()
    known = revisions()
    if found is not None and found not in known:
        message = f"the database has schema {found!r}, this program knows up to {known[-1]!r}"
        raise DatabaseUserError(f"{message}: upgrade audioset-flows, or use another database")
    return bool(found == known[-1])


def revisions() -> list[str]:
    """Every revision in order: the numbers with which the files of `migrations/versions` begin."""
    folder = Path(__file__).parent / "migrations" / "versions"
    return sorted(path.name[:4] for path in folder.glob("[0-9]*.py"))


@contextmanager
def _exclusively(engine: Engine) -> Iterator[Connection]:
    """One transaction that no other migration can overlap."""
    if engine.dialect.name == "sqlite":
        with one_line_errors(), engine.connect() as plain:
            conn = writer(plain)
            with _foreign_keys_off(conn), _begin(conn):
                yield conn
                broken = conn.exec_driver_sql("PRAGMA foreign_key_check").fetchall()
                if broken:
                    raise DatabaseError(f"the migration would break references: {broken[:5]}")
    else:
        with writing(engine) as conn:
            conn.execute(select(func.pg_advisory_xact_lock(_ADVISORY_LOCK)))
            yield conn


def _begin(conn: Connection) -> Transaction:
    """A transaction, after that of any other process: a migration may take minutes."""
    while True:
        try:
            return conn.begin()
        except OperationalError as error:
            if getattr(error.orig, "sqlite_errorcode", 0) & 0xFF != sqlite3.SQLITE_BUSY:
                raise
            _LOGGER.warning("waiting for the database, to which another process writes")


@contextmanager
def _foreign_keys_off(conn: Connection) -> Iterator[None]:
    """Rebuilding a parent table would cascade; the pragma works outside transactions only."""
    cursor = conn.connection.cursor()
    cursor.execute("PRAGMA foreign_keys = OFF")
    try:
        yield
    finally:
        cursor.execute("PRAGMA foreign_keys = ON")
        cursor.close()


def _upgrade(conn: Connection) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", "db:migrations")
    config.attributes["connection"] = conn
    command.upgrade(config, "head")
