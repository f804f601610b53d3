"""Opening a database, and the two ways to use it: `reading` and `writing`.

SQLite runs in WAL mode with explicit BEGIN (pysqlite's implicit one loses updates between
concurrent writers), and `writing` takes the write lock at once: a deferred transaction that
writes after it has read fails when another process wrote in between.

A PostgreSQL server that goes away during a run and comes back within half a minute costs nothing:
both ways wait for a connection, and functions that are one transaction and may be done twice
are `repeatable`. A longer loss is an error, after which Prefect
tries the task again.
"""

from __future__ import annotations

import fcntl
import logging
import math
import os
import re
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast
from urllib.parse import quote, unquote_to_bytes

import sqlalchemy
from sqlalchemy import (
    URL,
    Connection,
    CursorResult,
    Engine,
    Table,
    UpdateBase,
    create_engine,
    event,
    make_url,
)
from sqlalchemy.exc import (
    ArgumentError,
    DatabaseError,
    DBAPIError,
    InterfaceError,
    OperationalError,
)

from db.errors import ConnectionLostError, DatabaseUnavailableError, DatabaseUserError
from db.postgresql import postgresql_engine
from db.read_only import Snapshot, find_snapshot, mark, snapshot_of

if TYPE_CHECKING:
    from sqlalchemy.dialects.postgresql import Insert

BUSY_TIMEOUT_S = 30
NETWORK_FILE_SYSTEMS = frozenset(
    {"afs", "beegfs", "ceph", "cifs", "coda", "davfs", "fuse.davfs2", "fuse.glusterfs"}
    | {"fuse.rclone", "fuse.s3fs", "fuse.sshfs", "gfs2", "glusterfs", "gpfs", "lustre", "ncpfs"}
    | {"nfs", "nfs4", "ocfs2", "orangefs", "smb", "smb2", "smb3", "smbfs"}
)
_WRITING = "audioset_writing"
# Between attempts to connect again to a server that has answered before: half a minute in all.
_PAUSES_S = (0.1, 0.4, 1.0, 2.0, 4.0, 8.0, 15.0)
_REPEATS = 2
_CACHES_UPSERTS = not sqlalchemy.__version__.startswith("2.0.")
# PostgreSQL is shutting down, has crashed, or is starting up.
_PASSING_STATES = ("57P01", "57P02", "57P03")
# PostgreSQL: the user lacks a privilege; the server, or the session, is for reading only.
_NOT_ALLOWED = ("42501", "25006")

P = ParamSpec("P")
R = TypeVar("R")
_EXAMPLES = "sqlite:///folder/audioset.db or postgresql://user@host/name"
_MOUNTS = Path("/proc/mounts")


def open_engine(url: str, create: bool = True) -> Engine:
    """An engine on the database at `url`, which has answered once.

    `create` allows a SQLite file (and its folder) to be made; tables come by `ensure_schema`.
    Without it, a file that cannot be written is opened for reading (`db.read_only`).

    Raises:
        DatabaseUserError: not an address, no such file, a network file system, no answer, or a
            file that cannot be written.
    """
    parsed = _parse(url)
    is_sqlite = parsed.get_backend_name() == "sqlite"
    engine = _sqlite_engine(parsed, create) if is_sqlite else postgresql_engine(parsed)
    try:
        if is_sqlite and snapshot_of(engine) is None:
            _switch_to_wal(engine)
        with engine.connect() as conn:
            encoding = None if is_sqlite else conn.exec_driver_sql("SHOW server_encoding").scalar()
            conn.exec_driver_sql("SELECT 1")
    except DBAPIError as error:
        engine.dispose()
        raise DatabaseUserError(
            f"cannot open {shown_url(parsed)}: {_line(error, parsed)}"
        ) from None
    if encoding not in (None, "UTF8"):
        engine.dispose()
        raise DatabaseUserError(f"{shown_url(parsed)} is encoded in {encoding}; create it in UTF8")
    logging.getLogger("sqlalchemy.pool.impl.QueuePool").addFilter(_is_news)
    return engine


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """A connection that sees one moment of the database, and changes nothing."""
    with one_line_errors(), _connect(engine) as conn:
        if conn.dialect.name == "postgresql":  # SQLite's transactions are like that already
            conn = conn.execution_options(isolation_level="REPEATABLE READ")
        yield conn


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """A connection inside one transaction: committed as a whole at the end, or not at all."""
    if snapshot := snapshot_of(engine):
        raise DatabaseUserError(f"{snapshot.path} can only be read here, and this would change it")
    with one_line_errors(), _connect(engine) as plain:
        conn = writer(plain)
        with conn.begin():
            yield conn


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Raise in one line, without the statement, what a database or its driver says."""
    try:
        yield
    except (OperationalError, InterfaceError) as error:
        kind = ConnectionLostError if error.connection_invalidated else DatabaseUnavailableError
        raise kind(f"the database failed: {_line(error)}") from error
    except DatabaseError as error:
        if getattr(error.orig, "sqlstate", None) in _NOT_ALLOWED:
            raise DatabaseUserError(f"not allowed in this database: {_line(error)}") from error
        if type(error) is DatabaseError:  # SQLite: damaged, or not its file
            raise DatabaseUnavailableError(f"the database failed: {_line(error)}") from error
        raise


def repeatable(function: Callable[P, R]) -> Callable[P, R]:
    """Call a function again if the connection was lost.

    It must be one transaction that may be carried out twice: the first may have been committed,
    although the connection broke.
    """

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        for _ in range(_REPEATS):
            try:
                return function(*args, **kwargs)
            except ConnectionLostError:
                continue
        return function(*args, **kwargs)

    return call


def writer(conn: Connection) -> Connection:
    """The connection, with transactions that take SQLite's write lock when they begin."""
    return conn.execution_options(**{_WRITING: True})


def upsert(conn: Connection, table: Table) -> Insert:
    """An INSERT in the dialect of the database, which has the ON CONFLICT clauses."""
    if conn.dialect.name == "sqlite":
        from sqlalchemy.dialects import sqlite

        return cast("Insert", sqlite.insert(table))
    from sqlalchemy.dialects import postgresql

    return postgresql.insert(table)


class Prepared:
    """An upsert that is built and compiled once, not each time.

    SQLAlchemy 2.0 caches no ON CONFLICT; 2.1 does, and carries out no compiled statement.

    ``build`` is given a connection, for `upsert`, and makes a statement with bound parameters.
    """

    def __init__(self, build: Callable[[Connection], UpdateBase]) -> None:
        self._build = build
        self._made: dict[str, Any] = {}

    def execute(
        self, conn: Connection, parameters: Mapping[str, Any] | Sequence[Mapping[str, Any]]
    ) -> CursorResult[Any]:
        """Run it with these parameters, or with several of them where it returns nothing."""
        name = conn.dialect.name
        if name not in self._made:
            made = self._build(conn)
            self._made[name] = made if _CACHES_UPSERTS else made.compile(dialect=conn.dialect)
        return conn.execute(self._made[name], parameters)


def network_file_system(path: Path, mounts: str) -> str | None:
    """The type of the network file system that holds `path`, if it is one.

    `mounts` is the text of /proc/mounts.
    """
    found = ""
    kind = ""
    for line in mounts.splitlines():
        fields = line.split(" ")
        if len(fields) < 3:
            continue
        point = re.sub(r"\\([0-7]{3})", lambda match: chr(int(match.group(1), 8)), fields[1])
        if path.is_relative_to(point) and len(point) >= len(found):
            found, kind = point, fields[2]
    return kind if kind in NETWORK_FILE_SYSTEMS else None


def sqlite_url(path: Path, driver: str = "sqlite") -> str:
    """The address of a SQLite file, whatever characters its path has.

    A question mark would begin the address's query, and SQLAlchemy has no escape for it; a path
    with one is written in SQLite's own notation for files.

    >>> sqlite_url(Path("/data/50 %#/labels.db"))
    'sqlite:////data/50 %#/labels.db'
    >>> sqlite_url(Path("/why?/labels.db"))
    'sqlite:///file:/why%3F/labels.db?uri=true'
    """
    if "?" not in str(path):
        return f"{driver}:///{path}"
    return f"{driver}:///file:{quote(os.fsencode(path))}?uri=true"


def shown_url(url: str | URL) -> str:
    """The address without its password, to be shown."""
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        # Not an address: whatever follows a colon may be meant as a password.
        return re.sub(r"(://[^:/@]*:|password=).*", r"\1***", str(url), flags=re.IGNORECASE)
    hidden = {name: "***" for name in parsed.query if "password" in name.lower()}
    return parsed.update_query_dict(hidden).render_as_string(hide_password=True)


def has_password(url: str) -> bool:
    """Whether the address holds a password, so that it must not be stored or shown."""
    parsed = _parse(url)
    return bool(_passwords(parsed))


def _passwords(url: URL) -> list[str]:
    given = [url.password] if url.password else []
    for name, value in url.query.items():
        if "password" in name.lower():
            given += [value] if isinstance(value, str) else value
    return [password for password in given if password]


def _is_news(record: logging.LogRecord) -> bool:
    """After Ctrl-C amid rows, SQLAlchemy closes the connection, then the cursor: which fails."""
    return record.msg != "Error closing cursor"


def _parse(url: str) -> URL:
    shown = shown_url(url)
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        message = f"not a database address: {shown!r}; write {_EXAMPLES}"
        raise DatabaseUserError(message) from None
    if parsed.drivername in ("postgres", "postgresql", "postgresql+psycopg"):
        return parsed.set(drivername="postgresql+psycopg")
    if parsed.drivername in ("sqlite", "sqlite+pysqlite"):
        if "?" in url and not parsed.query:  # part of a name; the rest of it would be lost
            like = sqlite_url(Path("/folder/what?.db"))
            raise DatabaseUserError(f"{url!r}: write a '?' in a file's name as in {like}")
        return _plain_file(parsed).set(drivername="sqlite")
    raise DatabaseUserError(f"no support for {parsed.drivername!r} in {shown!r}; write {_EXAMPLES}")


def _plain_file(url: URL) -> URL:
    """The address with a path in place of SQLite's notation ``file:/path?uri=true``."""
    name = url.database or ""
    if not name.startswith("file:/") or dict(url.query) != {"uri": "true"}:
        return url
    return url.set(database=os.fsdecode(unquote_to_bytes(name.removeprefix("file:"))), query={})


def _sqlite_engine(url: URL, create: bool) -> Engine:
    if not url.database or url.database == ":memory:" or url.database.startswith("file:"):
        raise DatabaseUserError(f"the SQLite database must be a file: write {_EXAMPLES}")
    path = Path(url.database).expanduser().absolute()
    if not path.is_file() and not create:
        raise DatabaseUserError(f"there is no database at {path}; `audioset label` makes one")
    mounts = _MOUNTS.read_text(errors="replace") if _MOUNTS.exists() else ""
    kind = network_file_system(path.resolve(), mounts)
    if path.is_file() and (snapshot := _snapshot(path, is_shared=kind is not None)):
        if create:
            raise DatabaseUserError(f"{path} can only be read here, and this would change it")
        return _reading_engine(url, snapshot)
    if kind is not None:
        message = f"{path} is on a network file system ({kind}), where SQLite loses data"
        raise DatabaseUserError(f"{message}; use PostgreSQL or a local disk")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DatabaseUserError(f"cannot make {path.parent}: {error.strerror}") from None
    engine = create_engine(
        url.set(database=str(path)), connect_args={"timeout": BUSY_TIMEOUT_S}, pool_size=8
    )
    return _with_listeners(engine)


def _snapshot(path: Path, *, is_shared: bool) -> Snapshot | None:
    try:
        return find_snapshot(path, is_shared=is_shared)
    except OSError as error:
        raise DatabaseUserError(f"cannot read {path}: {error.strerror}") from None


def _reading_engine(url: URL, snapshot: Snapshot) -> Engine:
    engine = create_engine(
        url.set(database=str(snapshot.path)), creator=lambda: snapshot.connect(BUSY_TIMEOUT_S)
    )
    mark(engine, snapshot)
    return _with_listeners(engine)


def _with_listeners(engine: Engine) -> Engine:
    event.listen(engine, "connect", _configure_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _configure_sqlite(connection: Any, _record: object) -> None:
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in ("synchronous = NORMAL", "foreign_keys = ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()
    for function in (math.sin, math.cos, math.radians):  # not every build has them
        connection.create_function(function.__name__, 1, _of_null(function), deterministic=True)


def _of_null(function: Callable[[float], float]) -> Callable[[float | None], float | None]:
    return lambda value: None if value is None else function(value)


def _switch_to_wal(engine: Engine) -> None:
    """Once for the file, which remembers it.

    SQLite does not wait for other connections here but says "locked" at once, so processes that
    open the database at the same time take turns, by a lock on its folder.
    """
    folder = os.open(Path(str(engine.url.database)).parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        connection = engine.raw_connection()
        try:
            cursor = connection.cursor()
            if cursor.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
                cursor.execute("PRAGMA journal_mode = WAL")
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise OperationalError(None, None, error) from error
    finally:
        os.close(folder)


def _begin_sqlite(conn: Connection) -> None:
    is_writing = conn.get_execution_options().get(_WRITING)
    conn.exec_driver_sql("BEGIN IMMEDIATE" if is_writing else "BEGIN")


def _connect(engine: Engine) -> Connection:
    """A connection; a server that answered before is waited for a while."""
    for pause_s in _PAUSES_S:
        try:
            return engine.connect()
        except OperationalError as error:
            if not _may_come_back(engine, error):
                raise
            time.sleep(pause_s)
    return engine.connect()


def _may_come_back(engine: Engine, error: OperationalError) -> bool:
    """Whether it is a server that does not answer, or says that it will."""
    state = getattr(error.orig, "sqlstate", None)
    return engine.dialect.name == "postgresql" and state in (None, *_PASSING_STATES)


def _line(error: DBAPIError, url: URL | None = None) -> str:
    text = " ".join(str(error.orig).split())
    for password in _passwords(url) if url is not None else ():
        text = text.replace(password, "***")
    return text
