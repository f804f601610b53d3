from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest
from sqlalchemy import Engine, func, insert, make_url, select, text
from sqlalchemy.exc import OperationalError

from db import engine as engine_module
from db.engine import (
    has_password,
    network_file_system,
    open_engine,
    reading,
    repeatable,
    shown_url,
    sqlite_url,
    writing,
)
from db.errors import (
    ConnectionLostError,
    DatabaseError,
    DatabaseUnavailableError,
    DatabaseUserError,
)
from db.schema.tables import models
from tests.db.build import NOW


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("", "not a database address"),
        ("audioset.db", "not a database address.*sqlite:///folder/audioset.db"),
        ("postgresql://me:s3cret@host:port/name", "not a database address"),
        ("postgresql://me:s3c@ret@[::1/name", "not a database address|cannot open"),
        ("mysql://me:s3cret@host/name", "no support for 'mysql'.*postgresql://"),
        ("sqlite+aiosqlite:///x.db", "no support for 'sqlite\\+aiosqlite'"),
        ("sqlite://", "must be a file"),
        ("sqlite:///:memory:", "must be a file"),
        ("sqlite:///file:x.db?uri=true", "must be a file"),
    ],
)
def test_a_wrong_address_gives_one_clear_line(url: str, message: str) -> None:
    with pytest.raises(DatabaseUserError, match=message) as caught:
        open_engine(url)
    _assert_clean(str(caught.value))


def _assert_clean(line: str) -> None:
    assert "\n" not in line
    assert "s3c" not in line
    assert "ret@" not in line


def test_an_unreachable_server_gives_one_line_without_the_password() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        with pytest.raises(DatabaseUserError, match=f"me:\\*\\*\\*@127.0.0.1:{port}") as caught:
            open_engine(f"postgresql://me:s3cret@127.0.0.1:{port}/name")
    _assert_clean(str(caught.value))


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:s3cret@host/name",
        "postgresql://me:s3c%40ret@@host/name",
        "postgresql://me@host/name?password=s3cret",
        "postgresql://h/n?sslpassword=s3cret&x=1",
        "postgresql://h/n?sslmode=require&PASSWORD=s3cret",
        "postgresql://me:s3cret",
        "mysql://me:s3cret@host/name",
        "postgresql://h:s3cret/name?password=s3cret",
    ],
)
def test_a_password_is_never_shown(url: str) -> None:
    assert "s3c" not in shown_url(url)
    with pytest.raises(DatabaseUserError) as caught:
        # Where it is an address at all, nobody answers there.
        open_engine(url.replace("host", "127.0.0.1:9").replace("//h/", "//127.0.0.1:9/"))
    _assert_clean(str(caught.value))


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgresql://me:s3cret@host/name", True),
        ("postgresql://me@host/name", False),
        ("postgresql://h/n?password=s3cret", True),
        ("sqlite:////rec/a.db", False),
    ],
)
def test_which_addresses_hold_a_password(url: str, expected: bool) -> None:
    assert has_password(url) is expected


def test_a_server_that_repeats_the_password_is_not_repeated() -> None:
    """libpq quotes a part of an address that it does not understand."""
    error = OperationalError(None, None, Exception("no s3cret for\nme"))
    url = make_url("postgresql://me@host/name?password=s3cret")
    assert engine_module._line(error, url) == "no *** for me"


def test_an_unknown_database_or_user_gives_one_line(postgres_server: str) -> None:
    plain = postgres_server.replace("+psycopg", "").replace("audioset@", "audioset:s3cret@")
    for url in (
        plain.replace("/postgres", "/absent"),
        plain.replace("//audioset:", "//nobody:").replace("postgresql:", "postgres:"),
    ):
        with pytest.raises(DatabaseUserError, match="does not exist") as caught:
            open_engine(url)
        _assert_clean(str(caught.value))


def test_a_database_that_is_not_utf8_is_refused(postgres_server: str) -> None:
    admin = open_engine(postgres_server)
    with admin.connect().execution_options(isolation_level="AUTOCOMMIT") as conn:
        conn.execute(text("CREATE DATABASE ascii ENCODING 'SQL_ASCII' TEMPLATE template0"))
    admin.dispose()
    with pytest.raises(DatabaseUserError, match="encoded in SQL_ASCII"):
        open_engine(postgres_server.replace("/postgres", "/ascii"))


def test_a_missing_file_is_made_only_when_asked(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "er" / "new % #.db"
    with pytest.raises(DatabaseUserError, match="there is no database at"):
        open_engine(f"sqlite:///{path}", create=False)
    assert not path.parent.exists()
    engine = open_engine(f"sqlite:///{path}", create=True)
    engine.dispose()
    assert path.exists()


def test_a_file_that_is_not_a_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "text.db"
    path.write_text("not a database " * 100)
    with pytest.raises(DatabaseUserError, match="file is not a database"):
        open_engine(f"sqlite:///{path}")
    with pytest.raises(DatabaseUserError, match="unable to open"):
        open_engine(f"sqlite:///{tmp_path}")


MOUNTS = """\
/dev/sda1 / ext4 rw 0 0
server:/export /mnt/nfs nfs4 rw 0 0
/dev/sdb1 /mnt/nfs/local xfs rw 0 0
//server/share /mnt/my\\040share cifs rw 0 0
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/home/a.db", None),
        ("/mnt/nfs/a.db", "nfs4"),
        ("/mnt/nfsx/a.db", None),
        ("/mnt/nfs/local/a.db", None),
        ("/mnt/my share/a.db", "cifs"),
    ],
)
def test_network_file_systems_are_told_apart(path: str, kind: str | None) -> None:
    assert network_file_system(Path(path), MOUNTS) == kind


def test_sqlite_on_a_network_file_system_is_refused(tmp_path: Path, monkeypatch) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text(f"server:/x {tmp_path.resolve()} nfs rw 0 0\n")
    monkeypatch.setattr(engine_module, "_MOUNTS", mounts)
    with pytest.raises(DatabaseUserError, match=r"\(nfs\).*use PostgreSQL"):
        open_engine(f"sqlite:///{tmp_path / 'a.db'}")


def test_sqlite_settings(fresh_db: Engine) -> None:
    if fresh_db.dialect.name == "postgresql":
        assert fresh_db.pool._pre_ping
        return
    with reading(fresh_db) as conn:
        names = ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        values = [conn.exec_driver_sql(f"PRAGMA {name}").scalar() for name in names]
    assert values == ["wal", 1, 1, 30_000]


def test_concurrent_read_modify_write_loses_nothing(fresh_db: Engine) -> None:
    row = {"name": "m", "version": "1", "weights_sha256": "0", "sample_rate_hz": 1}
    row |= {"window_s": 1.0, "n_classes": 0, "registered_at": NOW}
    with writing(fresh_db) as conn:
        conn.execute(insert(models), row)

    def bump() -> None:
        for _ in range(25):
            with writing(fresh_db) as conn:
                query = select(models.c.n_classes).with_for_update()
                value = conn.execute(query).scalar_one()
                conn.execute(models.update().values(n_classes=value + 1))

    threads = [threading.Thread(target=bump) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with reading(fresh_db) as conn:
        assert conn.execute(select(models.c.n_classes)).scalar_one() == 100


def test_writing_rolls_back_on_any_error(fresh_db: Engine) -> None:
    row = {"name": "m", "version": "1", "weights_sha256": "0", "sample_rate_hz": 1}
    row |= {"window_s": 1.0, "n_classes": 0, "registered_at": NOW}

    def interrupted() -> None:
        with writing(fresh_db) as conn:
            conn.execute(insert(models), row)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    with reading(fresh_db) as conn:
        assert conn.execute(select(func.count()).select_from(models)).scalar_one() == 0


def test_a_lost_connection_is_one_line_and_the_next_call_works(fresh_db: Engine) -> None:
    if fresh_db.dialect.name == "sqlite":
        statement = "SELECT * FROM absent"
    else:
        statement = "SELECT pg_terminate_backend(pg_backend_pid())"
    with pytest.raises(DatabaseUnavailableError) as caught, reading(fresh_db) as conn:
        conn.execute(text(statement))
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, DatabaseError)
    with reading(fresh_db) as conn:
        assert conn.execute(text("SELECT 1")).scalar_one() == 1


_MODEL = {
    "name": "m", "version": "1", "weights_sha256": "0", "sample_rate_hz": 1, "window_s": 1.0,
    "n_classes": 0, "registered_at": NOW,
}  # fmt: skip


def _lose_connection(engine: Engine, times: list[None]) -> None:
    with writing(engine) as conn:
        if times:
            times.pop()
            conn.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))
        conn.execute(insert(models), _MODEL)


def test_a_broken_transaction_is_repeated_and_kept_once(
    fresh_db: Engine, postgres_server: str
) -> None:
    if fresh_db.dialect.name == "sqlite":
        pytest.skip("SQLite has no connection to lose")
    repeatable(_lose_connection)(fresh_db, [None, None])
    with reading(fresh_db) as conn:
        assert conn.execute(select(func.count()).select_from(models)).scalar_one() == 1
    with pytest.raises(ConnectionLostError):
        repeatable(_lose_connection)(fresh_db, [None] * 3)


def test_other_errors_are_not_repeated(fresh_db: Engine) -> None:
    calls: list[None] = []

    def fail() -> None:
        calls.append(None)
        with reading(fresh_db) as conn:
            conn.execute(text("SELECT * FROM absent"))

    with pytest.raises(Exception, match="absent"):
        repeatable(fail)()
    assert len(calls) == 1


def test_a_server_that_does_not_come_back_is_an_error(
    fresh_db: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_module, "_PAUSES_S", (0.0, 0.0))
    tried: list[None] = []

    def refuse() -> None:
        tried.append(None)
        raise OperationalError("connect", None, Exception("connection refused"))

    monkeypatch.setattr(fresh_db, "connect", refuse)
    with pytest.raises(DatabaseUnavailableError, match="refused"), reading(fresh_db):
        pass
    # SQLite's file does not come back by itself.
    assert len(tried) == (1 if fresh_db.dialect.name == "sqlite" else 3)


@pytest.mark.parametrize(
    "name",
    ["plain", "why?", "?", "a#b", "50%", "%20", "a%3Fb?", "a b", "'\"", "\U0001f426é", "a\nb",
     "a\\b", "file:x", "~", "$HOME ${PREFECT_HOME}", "a&b=c;d", "me:you@host", "a?uri=true", "[x]",
     "+"],
)  # fmt: skip
def test_a_folder_of_any_name_is_the_one_that_is_opened(tmp_path: Path, name: str) -> None:
    path = tmp_path / name / "labels.db"
    address = sqlite_url(path)
    open_engine(address).dispose()
    assert path.is_file()
    assert [made.name for made in tmp_path.iterdir()] == [name]
    open_engine(shown_url(address), create=False).dispose()  # what is shown can be given


def test_a_question_mark_is_never_the_end_of_a_name(tmp_path: Path) -> None:
    for name in ("why?.db", "why?/labels.db"):
        with pytest.raises(DatabaseUserError, match=r"write a '\?' in a file's name as in sqlite"):
            open_engine(f"sqlite:///{tmp_path}/{name}")
    assert list(tmp_path.iterdir()) == []


def test_a_cursor_that_cannot_be_closed_any_more_is_no_news(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    engine = open_engine(f"sqlite:///{tmp_path / 'labels.db'}")
    with engine.connect() as conn:
        found = conn.execute(text("SELECT 1"))
        conn.connection.driver_connection.close()  # as after Ctrl-C
        found.close()
        conn.invalidate()
    engine.dispose()
    assert caplog.text == ""
