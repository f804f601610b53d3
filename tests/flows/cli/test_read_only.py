"""Every question is answered where nothing may be written; what would write says so in one line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from sqlalchemy import create_engine, make_url, text

from benchmarks.asking import asking_commands
from tests.flows.build import REPOSITORY
from tests.flows.collection import make_collection
from tests.readers import locked, on_read_only_disk, public_folder

# All commands one after the other in one process, as `flows.cli.program` runs them.
_PROBE = """
import contextlib, io, json, os, sys
from flows.cli.program import _run
class Become(BaseException): pass
def execve(*_): raise Become
os.execve = execve
said = []
for command in json.loads(sys.argv[1]):
    sys.argv = ["audioset", *command]
    err = io.StringIO()
    with open(os.devnull, "w") as out, contextlib.redirect_stdout(out):
        with contextlib.redirect_stderr(err):
            try:
                code, message = _run()
            except Become:
                code, message = 0, ""
    said.append((code, message, err.getvalue()))
print(json.dumps(said))
"""


class Said(NamedTuple):
    """The exit code, the message of a mistake, and the other lines on stderr."""

    code: int
    mistake: str
    notes: str


@pytest.fixture
def folder() -> Iterator[Path]:
    with public_folder() as folder:
        (folder / "out").mkdir()
        (folder / "out").chmod(0o777)
        (folder / "a.wav").write_text("no sound")
        yield folder


def _say(before: list[str], commands: list[list[str]], **settings: str) -> list[Said]:
    done = subprocess.run(
        [*before, sys.executable, "-c", _PROBE, json.dumps(commands)],
        cwd=REPOSITORY, env={**os.environ, "PYTHONPATH": str(REPOSITORY), **settings},
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    return [Said(*each) for each in json.loads(done.stdout)]


def _questions(home: Path, out: Path) -> list[list[str]]:
    asked = asking_commands(Path("/audio/a.wav"), home, out)
    pages = (("report", "report.html"), ("review", "review.html"), ("curve", "curve.png"))
    drawn = [[what, "--out", str(out / name), "--home", str(home)] for what, name in pages]
    for command in drawn[1:]:
        command += ["--under", "Animal"]
    return [*map(list, asked), *drawn]


def _changes(home: Path, recording: Path) -> list[list[str]]:
    every = [
        ["times", "--timezone", "UTC"],
        ["models", "promote", "yamnet"],
        ["thresholds", "remove", "birds@1"],
        ["classes", "add", "Wood saw", "--under", "Tools"],
        ["label", str(recording), "--model", "pocket"],
    ]
    return [[*each, "--home", str(home)] for each in every]


def _made(folder: Path, url: str | None = None) -> Path:
    made = make_collection(folder / "home", ("a.wav", "b.wav"), url=url)
    made.engine.dispose()
    return made.home


def _check_snapshot(before: list[str], home: Path, out: Path) -> None:
    asked, changes = _questions(home, out), _changes(home, home.parent / "a.wav")
    said = _say(before, [*asked, *changes], AUDIOSET_CACHE=str(out / "cache"))
    for command, answer in zip(asked, said, strict=False):
        assert (answer.code, answer.mistake) == (0, ""), command
        has_home = command[1] not in ("tree", "search", "missing")
        assert answer.notes.count("labels.db can only be read here: a snapshot of") == has_home
    for command, answer in zip(changes, said[len(asked) :], strict=True):
        refusal = f"{home / 'labels.db'} can only be read here, and this would change it"
        assert answer == (2, refusal, ""), command


@pytest.mark.slow
def test_another_user_who_may_only_read(folder: Path) -> None:
    home = _made(folder)
    with locked(home) as before:
        _check_snapshot(before, home, folder / "out")
    assert not [each for each in home.iterdir() if each.name.startswith("labels.db-")]


@pytest.mark.slow
def test_a_read_only_disk(folder: Path) -> None:
    home = _made(folder)
    _check_snapshot(on_read_only_disk(home), home, folder / "out")


def test_a_new_home_where_none_can_be_made(folder: Path) -> None:
    with locked(folder) as before:
        command = [
            "label",
            str(folder / "a.wav"),
            "--model",
            "pocket",
            "--home",
            str(folder / "new"),
        ]
        (answer,) = _say(before, [command])
    assert answer.code == 2
    assert answer.mistake.startswith(f"--home {folder / 'new'}: no folder can be made there: ")


def test_the_shell_reads_a_snapshot(folder: Path) -> None:
    home = _made(folder)
    command = ["sql", "--csv", "SELECT COUNT(*) FROM labels", "--home", str(home)]
    with locked(home) as before:
        done = subprocess.run(
            [*before, sys.executable, "-m", "flows.cli.program", *command], cwd=REPOSITORY,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)}, capture_output=True, text=True,
            timeout=60, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.splitlines()[-1]) > 0
    assert done.stderr.count("\n") == 1


@pytest.mark.slow
def test_a_postgresql_user_who_may_only_read(folder: Path, postgres_url: str) -> None:
    home = _made(folder, postgres_url)
    owner = create_engine(postgres_url)
    with owner.begin() as conn:
        conn.execute(text("CREATE ROLE asker LOGIN"))
        conn.execute(text("GRANT SELECT ON ALL TABLES IN SCHEMA public TO asker"))
    url = make_url(postgres_url).set(username="asker").render_as_string(hide_password=False)
    asked, changes = _questions(home, folder / "out"), _changes(home, folder / "a.wav")[:2]
    try:
        said = _say([], [*asked, *changes], AUDIOSET_DB=url)
    finally:
        with owner.begin() as conn:
            conn.execute(text("DROP OWNED BY asker"))
            conn.execute(text("DROP ROLE asker"))
        owner.dispose()
    for command, answer in zip(asked, said, strict=False):
        assert (answer.code, answer.mistake) == (0, ""), command
    for command, answer in zip(changes, said[len(asked) :], strict=True):
        assert answer.code == 2, command
        assert "not allowed in this database: permission denied" in answer.mistake, command
