"""`fresh_db`: an empty, migrated database per test, on SQLite and on a real PostgreSQL."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import pytest
from sqlalchemy import Engine, create_engine, make_url, text

from db.engine import open_engine, reading
from db.migrate import ensure_schema
from db.totals.recount import missing_totals
from tests.postgres import find_binaries, running_postgres

_NUMBERS = count()


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """URL of a running server's maintenance database."""
    binaries = find_binaries()
    if binaries is None:
        message = "no PostgreSQL server binaries (initdb, pg_ctl) on this machine"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    with running_postgres(binaries) as url:
        yield url


@pytest.fixture(scope="session")
def postgres_template(postgres_server: str) -> str:
    """Name of a migrated database to copy."""
    _administer(postgres_server, "CREATE DATABASE template_audioset")
    engine = open_engine(str(make_url(postgres_server).set(database="template_audioset")))
    ensure_schema(engine)
    engine.dispose()
    return "template_audioset"


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated database file to copy."""
    path = tmp_path_factory.mktemp("template") / "audioset.db"
    engine = open_engine(f"sqlite:///{path}")
    ensure_schema(engine)
    engine.dispose()
    return path


@pytest.fixture(params=["sqlite", "postgresql"])
def backend(request: pytest.FixtureRequest) -> str:
    """Every test that touches a database runs on both."""
    return str(request.param)


@pytest.fixture
def empty_url(backend: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a database without tables."""
    if backend == "sqlite":
        yield f"sqlite:///{tmp_path / 'empty.db'}"
        return
    with a_database(request.getfixturevalue("postgres_server"), "template0") as url:
        yield url


@pytest.fixture
def fresh_url(backend: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a migrated database without rows."""
    if backend == "sqlite":
        path = tmp_path / "audioset.db"
        shutil.copy(request.getfixturevalue("sqlite_template"), path)
        yield f"sqlite:///{path}"
        return
    template = request.getfixturevalue("postgres_template")
    with a_database(request.getfixturevalue("postgres_server"), template) as url:
        yield url


@pytest.fixture
def fresh_db(fresh_url: str, request: pytest.FixtureRequest) -> Iterator[Engine]:
    """An engine on a migrated database without rows; at the end the kept counts must be right."""
    engine = open_engine(fresh_url)
    yield engine
    try:
        if request.node.get_closest_marker("past_ledger") is None:
            with reading(engine) as conn:
                assert not missing_totals(conn), "the kept counts are behind"
    finally:
        engine.dispose()


@contextmanager
def a_database(server: str, template: str) -> Iterator[str]:
    """A database for the block; its URL."""
    url = new_database(server, template)
    yield url
    _administer(server, f"DROP DATABASE {make_url(url).database} WITH (FORCE)")


def new_database(server: str, template: str) -> str:
    """Create a database on the server; its URL."""
    name = f"test_{next(_NUMBERS)}"
    _administer(server, f"CREATE DATABASE {name} TEMPLATE {template}")
    return str(make_url(server).set(database=name))


def _administer(server: str, statement: str) -> None:
    engine = create_engine(server, isolation_level="AUTOCOMMIT")
    with engine.connect() as conn:
        conn.execute(text(statement))
    engine.dispose()
