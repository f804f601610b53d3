"""Ctrl-C, SIGTERM and SIGHUP in a terminal, at any moment of a run that brings its own server."""

from __future__ import annotations

import os
import signal
import sqlite3
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from flows.stopping import LINE, SAME_REQUEST_S
from tests.flows.build import REPOSITORY, Lab, command, write_clip
from tests.flows.slow_labelling import slow_site
from tests.flows.terminals import (
    CTRL_C,
    Terminal,
    catches,
    in_terminal,
    left_with,
    wait_until_gone,
    when,
)

pytestmark = [pytest.mark.slow, pytest.mark.server, pytest.mark.timeout(600)]

N_CLIPS, CLIP_S = 16, 20.0
CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}
WITHIN_S = 10.0


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    for seed in range(N_CLIPS):
        write_clip(folder / f"{seed:02d}.wav", seed, CLIP_S)
    return folder


@pytest.fixture(scope="module")
def undisturbed(
    prefect_server: str, placeholder: Path, corpus: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    home = tmp_path_factory.mktemp("undisturbed")
    lab = Lab(home, f"sqlite:///{home / 'labels.db'}", placeholder)
    assert lab.label(corpus).n_labelled == N_CLIPS
    results = lab.results()
    lab.engine.dispose()
    return results


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One for all runs: the first leaves Prefect's tables there."""
    return tmp_path_factory.mktemp("cache")


class Started:
    """`audioset label` in a terminal, and how far it is."""

    def __init__(self, terminal: Terminal, lab: Lab, mark: str) -> None:
        self.terminal, self.mark, self._lab = terminal, mark, lab

    def ask(self, query: str) -> int:
        """A number from the database; 0 while there is no table yet."""
        try:
            path = f"file:{self._lab.home}/labels.db?mode=ro"
            with sqlite3.connect(path, uri=True, timeout=5) as conn:
                row = conn.execute(query).fetchone()
            conn.close()
        except sqlite3.OperationalError:
            return 0
        return int(row[0])

    @property
    def n_done(self) -> int:
        return self.ask("SELECT count(*) FROM labellings WHERE status = 'done'")

    def wait_for(self, moment: str) -> None:
        """The moment, in the words of `MOMENTS`."""
        when(self.terminal, lambda: MOMENTS[moment](self), 280)


MOMENTS: dict[str, Callable[[Started], object]] = {
    "first second": lambda run: catches(run.terminal.popen.pid, signal.SIGHUP),
    "server starting": lambda run: "starting Prefect" in run.terminal.said,
    "run begun": lambda run: run.ask("SELECT count(*) FROM runs"),
    "decoding": lambda run: run.ask("SELECT count(*) FROM labellings"),
    "persisting": lambda run: run.n_done,
    "end": lambda run: "Next:" in run.terminal.said,
}


@pytest.fixture
def start(
    lab: Lab, corpus: Path, cache: Path, environment: Mapping[str, str], tmp_path: Path
) -> Callable[[], AbstractContextManager[Started]]:
    site = slow_site(tmp_path / "site", shard_s=40.0, pause_s=0.2)
    alone = {name: value for name, value in environment.items() if name != "PREFECT_API_URL"}
    alone["AUDIOSET_CACHE"] = str(cache)
    alone["PYTHONPATH"] = f"{site}:{REPOSITORY}"

    @contextmanager
    def run() -> Iterator[Started]:
        mark = uuid.uuid4().hex
        line = command("label", corpus, "--home", lab.home)
        with in_terminal(line, alone, tmp_path, mark) as terminal:
            yield Started(terminal, lab, mark)

    return run


def _send(terminal: Terminal, number: signal.Signals, to: str) -> None:
    if to == "process":
        terminal.popen.send_signal(number)
    elif number == signal.SIGINT:
        terminal.type(CTRL_C)
    elif number == signal.SIGHUP:
        terminal.hang_up()
    else:
        os.killpg(terminal.popen.pid, number)


def _check_end(started: Started, number: signal.Signals, began: float, *, is_seen: bool) -> None:
    """Out in time, with one line, and nobody is left."""
    terminal = started.terminal
    code = terminal.wait(60)
    took_s = time.monotonic() - began
    assert code == CODES[number], terminal.said
    assert took_s < WITHIN_S, terminal.said
    wait_until_gone(started.mark, 0.5)
    assert "Traceback" not in terminal.said
    assert "rror" not in terminal.said
    if is_seen:
        assert terminal.said.count(LINE) == 1, terminal.said
        # A key that is pressed when the line stands there is shown behind it, by the terminal.
        assert [line for line in terminal.lines if line != "^C"][-1] == LINE
        hidden, shown = terminal.raw.rfind(b"\x1b[?25l"), terminal.raw.rfind(b"\x1b[?25h")
        assert hidden <= shown, "the cursor stays hidden"


def _check_kept(lab: Lab, corpus: Path, undisturbed: dict[str, Any]) -> None:
    """What was finished is kept as it was, and the same command does the rest."""
    before: dict[Any, Any] = {}
    if lab.rows("SELECT name FROM sqlite_master WHERE name = 'labellings'"):
        before = dict(lab.rows("SELECT id, labelled_at FROM labellings WHERE status = 'done'"))
    assert lab.label(corpus).n_labelled == N_CLIPS - len(before)
    lab.check_after_a_kill()
    assert lab.results() == undisturbed
    after = dict(lab.rows("SELECT id, labelled_at FROM labellings"))
    assert {key: after[key] for key in before} == before


@pytest.mark.parametrize("to", ["process", "group"])
@pytest.mark.parametrize("number", CODES)
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_signal_at_any_moment(
    lab: Lab,
    start: Callable[[], AbstractContextManager[Started]],
    corpus: Path,
    undisturbed: dict[str, Any],
    moment: str,
    number: signal.Signals,
    to: str,
) -> None:
    with start() as started:
        started.wait_for(moment)
        began = time.monotonic()
        _send(started.terminal, number, to)
        is_seen = (number, to) != (signal.SIGHUP, "group")
        _check_end(started, number, began, is_seen=is_seen)
    if moment in ("run begun", "decoding", "persisting"):
        assert [row[0] for row in lab.rows("SELECT status FROM runs")] == ["cancelled"]
        assert lab.count("labellings", "status <> 'done'") == 0
    _check_kept(lab, corpus, undisturbed)


@pytest.mark.parametrize("moment", ["server starting", "decoding", "persisting"])
def test_a_second_ctrl_c_ends_at_once(
    lab: Lab,
    start: Callable[[], AbstractContextManager[Started]],
    corpus: Path,
    undisturbed: dict[str, Any],
    moment: str,
) -> None:
    with start() as started:
        started.wait_for(moment)
        began = time.monotonic()
        started.terminal.type(CTRL_C)
        time.sleep(SAME_REQUEST_S + 0.1)
        if started.terminal.popen.poll() is None:
            started.terminal.type(CTRL_C)
        _check_end(started, signal.SIGINT, began, is_seen=True)
        assert time.monotonic() - began < 3
    _check_kept(lab, corpus, undisturbed)


@pytest.mark.parametrize("moment", ["server starting", "decoding", "persisting"])
def test_after_a_kill_nothing_is_left_within_ten_seconds(
    lab: Lab,
    start: Callable[[], AbstractContextManager[Started]],
    corpus: Path,
    undisturbed: dict[str, Any],
    moment: str,
) -> None:
    with start() as started:
        started.wait_for(moment)
        if moment == "server starting":
            when(started.terminal, lambda: len(left_with(started.mark)) > 1, 60)
        started.terminal.popen.kill()
        started.terminal.popen.wait(10)
        wait_until_gone(started.mark, WITHIN_S)
    _check_kept(lab, corpus, undisturbed)
