"""One Prefect server for all flow tests, a placeholder network, and homes to label into."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from prefect.events.worker import EventsWorker
from prefect.server.api.server import SubprocessASGIServer
from prefect.settings import (
    PREFECT_API_URL,
    PREFECT_FLOWS_HEARTBEAT_FREQUENCY,
    PREFECT_HOME,
    PREFECT_LOGGING_LEVEL,
    PREFECT_LOGGING_TO_API_ENABLED,
    PREFECT_SERVER_ANALYTICS_ENABLED,
    PREFECT_SERVER_DATABASE_CONNECTION_URL,
    temporary_settings,
)

from audioset_core.audio.sandbox import decoder_pool
from audioset_core.ontology.graph import load_default
from db.engine import open_engine
from db.migrate import ensure_schema
from tasks.load_ontology import store_ontology
from tests.db.conftest import a_database, postgres_server
from tests.flows.build import REPOSITORY, Lab, write_headless_vggish, write_placeholder
from tests.flows.scored import Collection
from tests.objects import object_server, objects

if TYPE_CHECKING:
    from playwright.sync_api import Browser

__all__ = ["object_server", "objects", "postgres_server"]

_CHROMIUM = [
    "--no-sandbox", "--disable-gpu", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--no-first-run",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
]  # fmt: skip

IN_MEMORY = "sqlite+aiosqlite:///file::memory:?cache=shared&uri=true&check_same_thread=false"


@pytest.fixture(scope="session")
def prefect_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The API's address of a server in its own process."""
    settings = {
        PREFECT_HOME: tmp_path_factory.mktemp("prefect"),
        PREFECT_SERVER_DATABASE_CONNECTION_URL: IN_MEMORY,
        PREFECT_SERVER_ANALYTICS_ENABLED: False,
        PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None,
        PREFECT_LOGGING_LEVEL: "ERROR",
        PREFECT_LOGGING_TO_API_ENABLED: False,
    }
    with temporary_settings(settings):
        server = SubprocessASGIServer()
        server.start(timeout=120)
        try:
            with temporary_settings({PREFECT_API_URL: server.api_url}):
                yield server.api_url
        finally:
            # What is not delivered by now would wait for the dead server for a minute.
            EventsWorker.drain_all(timeout=10)
            server.stop()


@pytest.fixture(scope="session")
def placeholder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights that need no download."""
    return write_placeholder(tmp_path_factory.mktemp("weights") / "placeholder.safetensors")


@pytest.fixture(scope="session")
def vggish_without_head(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random VGGish weights that give embeddings only."""
    return write_headless_vggish(tmp_path_factory.mktemp("vggish") / "vggish.safetensors")


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What is set on this machine must not reach the commands."""
    for name in ("AUDIOSET_DB", "AUDIOSET_HOME", "AUDIOSET_WEIGHTS"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Headless Chromium, which finds no other machine."""
    from playwright.sync_api import sync_playwright

    program = shutil.which("chromium")
    if program is None:
        message = "no chromium on this machine (install Debian's)"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=_CHROMIUM)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with the ontology and nothing else, to copy: to make one takes half a second."""
    path = tmp_path_factory.mktemp("tables") / "labels.db"
    engine = open_engine(f"sqlite:///{path}")
    ensure_schema(engine)
    store_ontology(engine, load_default())
    engine.dispose()
    return path


@pytest.fixture(scope="session")
def _lasting_decoders() -> Iterator[None]:
    """Decoders outlast a run: each takes a quarter of a second to start."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decoder_pool(), "close", lambda: None)
        yield


@pytest.fixture
def lab(
    prefect_server: str, placeholder: Path, tables: Path, tmp_path: Path, _lasting_decoders: None
) -> Iterator[Lab]:
    """A home with its own SQLite database."""
    home = tmp_path / "home"
    home.mkdir()
    shutil.copy(tables, home / "labels.db")
    lab = Lab(home, f"sqlite:///{home / 'labels.db'}", placeholder)
    yield lab
    lab.engine.dispose()


@pytest.fixture(scope="session")
def empty_collection(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The database of a collection without recordings, to copy."""
    collection = Collection(tmp_path_factory.mktemp("empty"))
    collection.engine.dispose()
    return collection.home / "labels.db"


@pytest.fixture
def collection(empty_collection: Path, tmp_path: Path) -> Iterator[Collection]:
    """A home to put hand-made scores into."""
    collection = Collection(tmp_path / "home", empty_collection)
    yield collection
    collection.engine.dispose()


@pytest.fixture
def postgres_url(postgres_server: str) -> Iterator[str]:
    """An empty database on a real server."""
    with a_database(postgres_server, "template0") as url:
        yield url


@pytest.fixture
def environment(prefect_server: str, placeholder: Path, tmp_path: Path) -> Mapping[str, str]:
    """For commands in their own process: the shared server, the placeholder network."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    return {
        **own,
        "PYTHONPATH": str(REPOSITORY),
        "PREFECT_HOME": str(tmp_path / "prefect"),
        "PREFECT_API_URL": prefect_server,
        "AUDIOSET_WEIGHTS": str(placeholder),
        "AUDIOSET_CACHE": str(tmp_path / "cache"),
    }


@dataclass(frozen=True, slots=True)
class Said:
    """What a command came to."""

    code: int
    out: str
    err: str


@pytest.fixture
def audioset(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Said]:
    """Runs the command line in this process."""
    from flows.cli.program import main
    from flows.stopping import stopper

    def run(*arguments: object) -> Said:
        monkeypatch.setattr(sys, "argv", ["audioset", *map(str, arguments)])
        capsys.readouterr()
        try:
            with pytest.raises(SystemExit) as ended:
                main()
        finally:
            stopper().unwatch()
        captured = capsys.readouterr()
        return Said(int(ended.value.code or 0), captured.out, captured.err)

    return run
