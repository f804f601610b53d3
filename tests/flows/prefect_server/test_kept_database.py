"""Prefect's empty database, kept in the cache: only a whole one, of the same version, is used."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

import pytest

from flows.prefect_server import kept_database
from flows.prefect_server.kept_database import finish, kept_path, prepare


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AUDIOSET_CACHE", str(tmp_path / "cache"))


def tables(path: Path, revision: str = "head") -> Path:
    """What a server makes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.closing(sqlite3.connect(path)) as conn:
        conn.execute("CREATE TABLE alembic_version (version_num TEXT)")
        conn.execute("CREATE TABLE filler (data BLOB)")
        conn.execute("INSERT INTO filler VALUES (randomblob(200000))")
        conn.execute("INSERT INTO alembic_version VALUES (?)", [revision])
        conn.commit()
    return path


def kept(tmp_path: Path, revision: str = "head") -> Path:
    """A first home has left its tables in the cache."""
    first = tmp_path / "first" / "prefect.db"
    first.parent.mkdir()
    assert not prepare(first)
    finish(tables(first, revision))
    return kept_path()


def content(path: Path) -> list[str]:
    with contextlib.closing(sqlite3.connect(path)) as conn:
        return list(conn.iterdump())


def test_the_second_home_gets_what_the_first_has_made(tmp_path: Path) -> None:
    kept(tmp_path)
    home = tmp_path / "home"
    home.mkdir()
    assert prepare(home / "prefect.db")
    assert content(home / "prefect.db") == content(tmp_path / "first" / "prefect.db")
    assert [path.name for path in home.iterdir()] == ["prefect.db"]
    assert [path.name for path in kept_path().parent.iterdir()] == [kept_path().name]


def test_a_home_with_a_database_keeps_it(tmp_path: Path) -> None:
    kept(tmp_path)
    same = tables(tmp_path / "same" / "prefect.db")
    older = tables(tmp_path / "older" / "prefect.db", "older")
    before = content(same), content(older)
    assert prepare(same)
    assert not prepare(older)  # Prefect brings it up to date
    assert (content(same), content(older)) == before


def test_what_is_in_an_old_home_is_never_kept(tmp_path: Path) -> None:
    old = tables(tmp_path / "old" / "prefect.db")
    assert not prepare(old)
    finish(old)
    assert not kept_path().exists()


def test_another_version_of_prefect_begins_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept(tmp_path)
    monkeypatch.setattr(kept_database, "version", lambda _: "99.0.0")
    (tmp_path / "home").mkdir()
    assert not prepare(tmp_path / "home" / "prefect.db")
    assert not (tmp_path / "home" / "prefect.db").exists()


@pytest.mark.parametrize("damage", ["cut", "zeros", "empty", "text", "folder"])
def test_what_is_damaged_is_not_used_and_is_made_again(tmp_path: Path, damage: str) -> None:
    path = kept(tmp_path)
    data = path.read_bytes()
    if damage == "folder":
        path.unlink()
        path.mkdir()
    else:
        spoilt = {
            "cut": data[: len(data) // 2],
            "zeros": data[:8_192] + bytes(len(data) - 8_192),
            "empty": b"",
            "text": b"no database",
        }
        path.write_bytes(spoilt[damage])
    home = tmp_path / "home" / "prefect.db"
    home.parent.mkdir()
    assert not prepare(home)
    assert not home.exists()
    finish(tables(home))
    third = tmp_path / "third" / "prefect.db"
    third.parent.mkdir()
    assert prepare(third) == (damage != "folder")


def test_a_cache_that_cannot_be_written_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where the folder would be")
    home = tmp_path / "home" / "prefect.db"
    home.parent.mkdir()
    assert not prepare(home)
    finish(tables(home))
    assert not prepare(home)
    assert content(home)
    assert [path.name for path in home.parent.iterdir()] == ["prefect.db"]


def test_tables_that_were_broken_off_are_begun_again(tmp_path: Path) -> None:
    home = tmp_path / "home" / "prefect.db"
    home.parent.mkdir()
    assert not prepare(home)
    tables(home, "half")  # and then the server is killed
    assert not prepare(home)
    assert not home.exists()


def test_a_database_that_was_deleted_leaves_nothing_in_the_next(tmp_path: Path) -> None:
    """Its log stays where the server was killed; SQLite takes the log for that of the copy."""
    kept(tmp_path)
    home = tables(tmp_path / "home" / "prefect.db", "old")
    with contextlib.closing(sqlite3.connect(home)) as conn:
        conn.execute("PRAGMA journal_mode = WAL")
        conn.execute("UPDATE alembic_version SET version_num = 'older'")
        conn.commit()
        log = home.with_name("prefect.db-wal").read_bytes()
    home.unlink()
    home.with_name("prefect.db-wal").write_bytes(log)
    home.with_name("prefect-memo.toml").touch()
    assert prepare(home)
    assert [path.name for path in home.parent.iterdir()] == ["prefect.db"]
    assert content(home) == content(kept_path())
