"""The same question, asked in every way that can express it, on one corpus."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from db.engine import open_engine
from tests.answers.asking import Asker
from tests.answers.corpus import ODD, store_corpus
from tests.answers.questions import PATHS, QUESTIONS
from tests.answers.ways import source
from tests.db.build import sha
from tests.db.conftest import a_database


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def corpus(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Engine, Path, dict[str, Any]]]:
    """Only read, and so made once for all questions."""
    home = tmp_path_factory.mktemp("answers")
    if request.param == "sqlite":
        url = f"sqlite:///{home / 'labels.db'}"
        shutil.copy(request.getfixturevalue("sqlite_template"), home / "labels.db")
        yield from _made(url, home)
        return
    template = request.getfixturevalue("postgres_template")
    with a_database(request.getfixturevalue("postgres_server"), template) as url:
        yield from _made(url, home)


def _made(url: str, home: Path) -> Iterator[tuple[Engine, Path, dict[str, Any]]]:
    engine = open_engine(url)
    store_corpus(engine, home)
    yield engine, home, {}
    engine.dispose()


@pytest.fixture
def ask(
    corpus: tuple[Engine, Path, dict[str, Any]],
    audioset: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Asker:
    monkeypatch.setattr("os.getcwd", lambda: "/data")
    engine, home, kept = corpus
    return Asker(engine, home, audioset, tmp_path, kept)


@pytest.mark.parametrize("question", QUESTIONS)
def test_every_way_has_the_same_answer(ask: Asker, question: str) -> None:
    answers = {name: way(ask) for name, way in QUESTIONS[question].items()}
    first, *others = answers
    assert answers[first]
    for name in others:
        assert answers[name] == answers[first], f"{name} is not {first}"


def test_a_folder_from_here_is_no_other_of_that_name(ask: Asker) -> None:
    for way in ("query", "export", "rank", "hours", "frame"):
        here, anywhere = (source(name)[way](ask) for name in ("./site-2", "site-2"))
        assert anywhere - here == {sha("short")}, way


@pytest.mark.parametrize("way", PATHS)
def test_the_path_of_a_clip_is_the_first_that_show_tells(ask: Asker, way: str) -> None:
    shown = {c["clip"]["sha256"]: c["sources"][0]["path_text"] for c in ask.shown()}
    assert shown[sha("moved")] == "/data/site-1/moved.wav"
    assert shown[sha("odd")] == ODD.decode(errors="backslashreplace").replace("\n", "\\x0a")
    found = PATHS[way](ask)
    assert found
    assert found == {clip: shown[clip] for clip in found}
