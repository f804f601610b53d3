"""A question waits for nothing that it does not need: which modules every asking command loads."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.asking import asking_commands
from flows.cli.main import COMMANDS
from tests.flows.build import REPOSITORY
from tests.flows.collection import make_collection

HEAVY = (
    *("alembic", "asyncpg", "av", "fastapi", "h5py", "httpx", "jinja2", "matplotlib", "numpy"),
    *("openvino", "pandas", "prefect", "psycopg", "pyarrow", "scipy", "sklearn", "soundfile"),
    *("soxr", "sqlalchemy.orm", "sqlalchemy.dialects.postgresql", "tensorflow", "torch"),
)
READS_ARRAYS = frozenset({"rank", "similar", "sed-scores"})
# The commands one after the other in one process: what is loaded stays, and the first is blamed.
_PROBE = f"""
import contextlib, json, os, sys
from flows.cli.main import app
class Become(BaseException): pass
def execve(*_): raise Become
os.execve = execve
codes, loaded = [], []
for command in json.loads(sys.argv[1]):
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        try:
            codes.append(app(command, standalone_mode=False) or 0)
        except Become:
            codes.append(0)
    loaded.append([name for name in {HEAVY} if name in sys.modules])
print(json.dumps([codes, loaded]))
"""


def _loaded(commands: list[list[str]]) -> list[tuple[list[str], int, set[str]]]:
    done = subprocess.run(
        [sys.executable, "-c", _PROBE, json.dumps(commands)],
        cwd=REPOSITORY, env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    codes, loaded = json.loads(done.stdout)
    return [
        (command, code, set(names))
        for command, code, names in zip(commands, codes, loaded, strict=True)
    ]


def test_no_asking_command_loads_what_it_does_not_need(tmp_path: Path) -> None:
    made = make_collection(tmp_path / "home", ("a.wav", "b.wav"))
    made.engine.dispose()
    home = str(tmp_path / "home")
    commands = [
        *map(list, asking_commands(Path("/audio/a.wav"), made.home, tmp_path / "out")),
        ["hours", "--by", "day", "--between", "04:30", "07:00", "--home", home],
        ["export", "sed-scores", str(tmp_path / "out" / "sed"), "--home", home],
    ]
    commands.sort(key=lambda command: bool(READS_ARRAYS & set(command)))
    for command, code, loaded in _loaded(commands):
        assert code == 0, command
        assert loaded == ({"numpy"} if READS_ARRAYS & set(command) else set()), command


def test_no_help_loads_more_than_the_command_line() -> None:
    for command, code, loaded in _loaded([["--help"], *([name, "--help"] for name in COMMANDS)]):
        assert (code, loaded) == (0, set()), command


def test_the_list_of_commands_imports_none_and_names_every_one() -> None:
    program = (
        "import sys; from flows.cli.main import app; app(['--help'], standalone_mode=False); "
        "print([name for name in sys.modules if name.startswith('flows.commands')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    *listed, imported = done.stdout.splitlines()
    assert imported == "[]"
    names = [line.split()[0] for line in listed[listed.index("Commands:") + 1 :]]
    assert names == list(COMMANDS)


def test_a_command_that_is_none_is_answered_with_the_nearest(audioset: Callable[..., Any]) -> None:
    said = audioset("hour")
    assert said.code == 2
    assert "Did you mean 'hours'?" in said.err


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_where_the_table_says(audioset: Callable[..., Any], name: str) -> None:
    said = audioset(name, "--help")
    assert said.code == 0
    assert f" {name} " in said.out.splitlines()[0]
