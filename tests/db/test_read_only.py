"""A database that can only be read: what is seen of it, and that nothing is left beside it."""

from __future__ import annotations

import errno
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, make_url, text

from db.engine import open_engine, reading, sqlite_url, writing
from db.errors import DatabaseUserError
from db.migrate import ensure_schema
from db.read_only import find_snapshot, may_write
from tests.readers import locked, on_read_only_disk, public_folder

ROOT = Path(__file__).parents[2]
# Leaves its last change in the log, as a killed process does; or stays, at work.
_WRITER = """
import os, sqlite3, sys
conn = sqlite3.connect(sys.argv[1], isolation_level=None)
conn.execute("PRAGMA journal_mode = WAL")
conn.execute("UPDATE nodes SET name = 'new'")
print("written", flush=True)
sys.stdin.read()
os._exit(0)
"""
_READER = """
import json, sys
from pathlib import Path
from sqlalchemy import text
from db.engine import open_engine, reading, sqlite_url, writing
from db.errors import DatabaseError
from db.migrate import ensure_schema
from db.read_only import may_write, snapshot_of
said = {}
try:
    engine = open_engine(sqlite_url(Path(sys.argv[1])), create=False)
    ensure_schema(engine)
    with reading(engine) as conn:
        said["name"] = conn.execute(text("SELECT name FROM nodes")).scalar()
    said["may_write"], said["snapshot"] = may_write(engine), str(snapshot_of(engine))
    with writing(engine) as conn:
        conn.execute(text("UPDATE nodes SET name = 'mine'"))
except DatabaseError as error:
    said["error"], said["kind"] = str(error), type(error).__name__
print(json.dumps(said))
"""


@pytest.fixture
def database(sqlite_template: Path) -> Iterator[Path]:
    """A clean database in a folder of its own, with one node."""
    with public_folder() as folder:
        yield _made(folder / "a home?" / "labels.db", sqlite_template)


def _made(path: Path, sqlite_template: Path) -> Path:
    path.parent.mkdir()
    shutil.copy(sqlite_template, path)
    engine = open_engine(sqlite_url(path))
    with writing(engine) as conn:
        conn.execute(
            text("INSERT INTO nodes VALUES (1, '/m/1', 'old', 0, FALSE, FALSE, NULL, NULL)")
        )
    engine.dispose()
    return path


@contextmanager
def _writer(database: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", _WRITER, str(database)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "written\n"
        yield writer


def _read(before: list[str], database: Path) -> dict[str, Any]:
    done = subprocess.run(
        [*before, sys.executable, "-c", _READER, str(database)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    said: dict[str, Any] = json.loads(done.stdout)
    return said


def _files(database: Path) -> list[str]:
    return sorted(each.name for each in database.parent.iterdir())


def test_another_users_clean_database(database: Path) -> None:
    with locked(database.parent) as before:
        said = _read(before, database)
    assert said["name"] == "old"
    assert said["may_write"] is False
    assert said["snapshot"].startswith("labels.db can only be read here: a snapshot of 20")
    assert "missing" not in said["snapshot"]
    assert said["kind"] == "DatabaseUserError"
    assert said["error"] == f"{database} can only be read here, and this would change it"
    assert _files(database) == ["labels.db"]


def test_a_clean_database_on_a_read_only_disk(database: Path) -> None:
    said = _read(on_read_only_disk(database.parent), database)
    assert (said["name"], said["kind"]) == ("old", "DatabaseUserError")
    assert _files(database) == ["labels.db"]


def test_nothing_is_left_where_the_folder_could_be_written(database: Path) -> None:
    """SQLite would make a log there, which the database's owner could not write."""
    with locked(database.parent) as before:
        database.parent.chmod(0o777)
        said = _read(before, database)
    assert said["name"] == "old"
    assert _files(database) == ["labels.db"]


def test_what_a_killed_writer_left_in_the_log_is_seen(database: Path) -> None:
    with _writer(database) as writer:
        writer.kill()
    with locked(database.parent) as before:
        said = _read(before, database)
    assert said["name"] == "new"
    assert "missing" not in said["snapshot"]


def test_what_a_killed_writer_left_is_seen_on_a_read_only_disk(database: Path) -> None:
    with _writer(database) as writer:
        writer.kill()
    assert _read(on_read_only_disk(database.parent), database)["name"] == "new"


def test_a_writer_at_work_is_followed(database: Path) -> None:
    with _writer(database), locked(database.parent) as before:
        assert _read(before, database)["name"] == "new"


def test_a_log_without_its_index_is_missing_and_said_so(database: Path) -> None:
    with _writer(database) as writer:
        writer.kill()
    database.with_name("labels.db-shm").unlink()
    size_bytes = database.with_name("labels.db-wal").stat().st_size
    with locked(database.parent) as before:
        said = _read(before, database)
    assert said["name"] == "old"
    assert f"(labels.db-wal, {size_bytes:,} bytes) is missing: copy labels.db*" in said["snapshot"]
    # The advice holds: in a copy that may be written all is there.
    copied = shutil.copytree(database.parent, database.parent.with_name("copy"))
    engine = open_engine(sqlite_url(copied / "labels.db"), create=False)
    with reading(engine) as conn:
        assert conn.execute(text("SELECT name FROM nodes")).scalar() == "new"
    engine.dispose()


def test_an_older_schema_is_told_and_not_migrated(database: Path) -> None:
    with sqlite3.connect(database) as conn:
        conn.execute("UPDATE audioset_version SET version_num = '0001'")
    conn.close()
    for each in database.parent.glob("labels.db-*"):
        each.unlink()
    with locked(database.parent) as before:
        said = _read(before, database)
    assert said["kind"] == "DatabaseUserError"
    assert "is of another version and can only be read here" in said["error"]


def test_what_may_not_even_be_read(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_any = Path.open

    def refuse(path: Path, *arguments: Any, **settings: Any) -> Any:
        if path == database:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return open_any(path, *arguments, **settings)

    monkeypatch.setattr(os, "access", lambda *_: False)
    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(DatabaseUserError) as refused:
        open_engine(sqlite_url(database), create=False)
    assert str(refused.value) == f"cannot read {database}: Permission denied"


def test_a_shared_disk_is_read_without_the_log(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The index of the log is in one host's memory: another host's says nothing."""
    for suffix in ("-wal", "-shm"):
        database.with_name(database.name + suffix).write_bytes(b"")
    monkeypatch.setattr(os, "access", lambda *_: False)
    found = find_snapshot(database, is_shared=True)
    assert found is not None
    assert found.is_immutable


def test_a_database_that_can_be_written_is_no_snapshot(fresh_db: Engine) -> None:
    assert may_write(fresh_db)


@pytest.mark.parametrize("backend", ["postgresql"])
def test_a_postgresql_user_who_may_only_read(fresh_url: str) -> None:
    owner = open_engine(fresh_url)
    with owner.begin() as conn:
        conn.execute(text("CREATE ROLE reader LOGIN"))
        conn.execute(text("GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader"))
    reader = open_engine(str(make_url(fresh_url).set(username="reader")), create=False)
    try:
        ensure_schema(reader)
        assert not may_write(reader)
        denied = "not allowed in this database: permission denied for table sources"
        with pytest.raises(DatabaseUserError, match=denied), writing(reader) as conn:
            conn.execute(text("DELETE FROM sources"))
        with owner.begin() as conn:
            conn.execute(text("REVOKE SELECT ON nodes FROM reader"))
        denied = "permission denied for table nodes"
        with pytest.raises(DatabaseUserError, match=denied), reading(reader) as conn:
            conn.execute(text("SELECT name FROM nodes"))
    finally:
        reader.dispose()
        with owner.begin() as conn:
            conn.execute(text("DROP OWNED BY reader"))
            conn.execute(text("DROP ROLE reader"))
        owner.dispose()


@pytest.mark.parametrize("backend", ["postgresql"])
def test_a_session_that_is_for_reading_only(fresh_url: str) -> None:
    url = make_url(fresh_url).update_query_dict({"options": "-c default_transaction_read_only=on"})
    engine = open_engine(url.render_as_string(hide_password=False), create=False)
    try:
        assert not may_write(engine)
        refused = "read-only transaction"
        with pytest.raises(DatabaseUserError, match=refused), writing(engine) as conn:
            conn.execute(text("DELETE FROM sources"))
    finally:
        engine.dispose()
