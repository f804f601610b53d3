"""A place to crash in: a home folder and a database that knows the model, on either backend."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.crash import workload
from tests.crash.kills import Place
from tests.db.conftest import new_database, postgres_server
from tests.flows.build import REPOSITORY

__all__ = ["postgres_server"]

Jobs = Sequence[tuple[str | None, Sequence[str] | None]]


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite database to copy."""
    path = tmp_path_factory.mktemp("crash") / "template.db"
    workload.prepare(f"sqlite:///{path}")
    return path


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def place(request: pytest.FixtureRequest, tmp_path: Path, template: Path) -> Iterator[Place]:
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path / 'labels.db'}"
        Place(url, template, tmp_path).clear()
    else:
        url = new_database(request.getfixturevalue("postgres_server"), "template0")
        workload.prepare(url)
    yield Place(url, template, tmp_path)
    workload.let_go(url)


def kill(place: Place, jobs: Jobs) -> list[dict[str, Any]]:
    """Run `tests.crash.kills` in a process of its own."""
    order = {
        "url": place.url, "template": str(place.template), "home": str(place.home), "jobs": jobs,
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "tests.crash.kills"], input=json.dumps(order), cwd=REPOSITORY,
        capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told: list[dict[str, Any]] = json.loads(done.stdout)
    return told
