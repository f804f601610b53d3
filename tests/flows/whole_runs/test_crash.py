"""Killed, interrupted, or side by side: nothing is lost, nothing is done twice."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.flows.build import Lab, command, processes, run_command, write_clip

N_CLIPS = 60
# Shards of a few clips, batches of fewer, a pause between commits: many moments to be killed in.
# Done once Prefect is set up, or its logs would be what it prints by default.
SETUP = """
import contextlib, signal, time
# A shell that starts the tests in the background has them, and so this process, ignore it.
signal.signal(signal.SIGINT, signal.default_int_handler)
from flows.prefect_server import settings as engine_settings
engine = engine_settings.server_for_command
@contextlib.contextmanager
def slow_engine(*arguments):
    with engine(*arguments):
        from tasks import persist
        from tasks.labelling import shards
        shards.MIN_SHARD_S, persist._BATCH = 2.0, 3
        commit = persist.commit_labellings
        def slowly(*arguments):
            time.sleep(0.03)
            return commit(*arguments)
        persist.commit_labellings = slowly
        yield
engine_settings.server_for_command = slow_engine
"""


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    for seed in range(N_CLIPS):
        write_clip(folder / f"{seed % 4}" / f"{seed:02d}.wav", seed, 1.0 + seed / 40)
    (folder / "0" / "bad.wav").write_text("not audio")
    return folder


@pytest.fixture(scope="module")
def undisturbed(
    prefect_server: str, placeholder: Path, corpus: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    home = tmp_path_factory.mktemp("undisturbed")
    lab = Lab(home, f"sqlite:///{home / 'labels.db'}", placeholder)
    assert lab.label(corpus).n_labelled == N_CLIPS
    lab.check()
    results = lab.results()
    lab.engine.dispose()
    return results


Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def start(
    lab: Lab, corpus: Path, environment: Mapping[str, str], tmp_path: Path
) -> Iterator[Start]:
    """Starts `audioset label` in its own process; whatever still lives at the end is killed."""
    line = command("label", corpus, "--home", lab.home, setup=SETUP)
    with processes(environment, tmp_path) as run:
        yield lambda: run(line)


def _done(lab: Lab) -> int:
    """How many labellings are committed; 0 while there is no table yet."""
    try:
        with sqlite3.connect(f"file:{lab.home}/labels.db?mode=ro", uri=True, timeout=5) as conn:
            row = conn.execute("SELECT count(*) FROM labellings WHERE status = 'done'").fetchone()
        conn.close()
    except sqlite3.OperationalError:
        return 0
    return int(row[0])


def _wait_for(lab: Lab, process: subprocess.Popen[bytes], n_done: int) -> None:
    deadline = time.monotonic() + 60
    while _done(lab) < n_done:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.005)


def _finish(lab: Lab, corpus: Path, undisturbed: dict[str, Any]) -> None:
    """Start again; the outcome is that of a run that nobody disturbed."""
    before = dict(lab.rows("SELECT id, labelled_at FROM labellings WHERE status = 'done'"))
    names = {path.name for path in (lab.home / "scores").rglob("*.npy")}
    assert 0 < len(before) < N_CLIPS
    # A kill may fall into the writing of a file; here one always does.
    beside = next((lab.home / "scores").rglob("*.npy"))
    beside.with_name(".0123456789abcdef.tmp").write_bytes(b"\x93NUMPY")
    summary = lab.label(corpus)
    assert summary.n_labelled == N_CLIPS - len(before)
    assert summary.n_busy == 0
    lab.check_after_a_kill()
    assert lab.results() == undisturbed
    after = dict(lab.rows("SELECT id, labelled_at FROM labellings"))
    assert {key: after[key] for key in before} == before
    # A file that was written but not committed has the same content, and so the same name.
    assert names <= {path.name for path in (lab.home / "scores").rglob("*.npy")}
    assert len(list((lab.home / "scores").rglob("*.npy"))) == N_CLIPS


@pytest.mark.slow
@pytest.mark.parametrize("n_done", [1, 20, 45])
def test_a_killed_run_is_taken_up_where_it_was(
    lab: Lab, start: Start, corpus: Path, undisturbed: dict[str, Any], n_done: int
) -> None:
    process = start()
    _wait_for(lab, process, n_done)
    process.kill()
    process.communicate()
    assert [r[0] for r in lab.rows("SELECT status FROM runs")] == ["running"]
    _finish(lab, corpus, undisturbed)
    runs = lab.rows("SELECT status, ended_at IS NULL FROM runs ORDER BY started_at")
    assert [tuple(r) for r in runs] == [("crashed", 0), ("completed", 0)]
    assert list((lab.home / "locks").iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)]
)
def test_an_interrupted_run_stops_within_seconds_and_says_so(
    lab: Lab, start: Start, corpus: Path, undisturbed: dict[str, Any],
    kind: signal.Signals, code: int,
) -> None:  # fmt: skip
    process = start()
    _wait_for(lab, process, 10)
    began = time.monotonic()
    process.send_signal(kind)
    _, stderr = process.communicate(timeout=30)
    assert time.monotonic() - began < 10
    said = stderr.decode()
    assert process.returncode == code, said
    assert "Traceback" not in said
    last = said.strip().splitlines()[-1]
    assert last == "audioset: stopped; what is done is kept, the same command goes on from there"
    assert [r[0] for r in lab.rows("SELECT status FROM runs")] == ["cancelled"]
    assert lab.count("labellings", "status <> 'done'") == 0
    _finish(lab, corpus, undisturbed)


@pytest.mark.slow
def test_two_runs_at_once_share_the_work(
    lab: Lab,
    start: Start,
    corpus: Path,
    undisturbed: dict[str, Any],
    environment: Mapping[str, str],
    tmp_path: Path,
) -> None:
    processes = [start(), start()]
    for process in processes:
        _, stderr = process.communicate(timeout=120)
        assert process.returncode == 1, stderr.decode()  # bad.wav
        assert b"Traceback" not in stderr
    lab.check()
    assert lab.results() == undisturbed
    runs = lab.rows("SELECT status, n_labelled FROM runs")
    assert [r[0] for r in runs] == ["completed", "completed"]
    assert sum(r[1] for r in runs) == N_CLIPS
    # As often as there are clips: no file was written twice under another name.
    assert len(list((lab.home / "scores").rglob("*.npy"))) == N_CLIPS
    third = run_command("label", corpus, "--home", lab.home, env=environment, cwd=tmp_path)
    assert third.returncode == 1
    assert f"labelled before\t{N_CLIPS}" in third.stdout.decode()
    assert b"starting Prefect" not in third.stderr


@pytest.mark.slow
@pytest.mark.server
def test_without_a_server_the_run_brings_its_own_and_takes_it_away(
    lab: Lab, corpus: Path, environment: Mapping[str, str], tmp_path: Path
) -> None:
    alone = {k: v for k, v in environment.items() if k != "PREFECT_API_URL"}
    done = run_command("label", corpus / "1", "--home", lab.home, env=alone, cwd=tmp_path)
    assert (done.returncode, b"Traceback" in done.stderr) == (0, False), done.stderr
    assert (lab.home / "prefect.db").stat().st_size > 0
    marker = str(lab.home / "prefect.db")
    assert [p for p in _processes() if marker in p] == []
    lab.check()


@pytest.mark.slow
@pytest.mark.server
def test_the_server_of_a_killed_run_ends_with_it(
    lab: Lab, corpus: Path, environment: Mapping[str, str], tmp_path: Path
) -> None:
    alone = {k: v for k, v in environment.items() if k != "PREFECT_API_URL"}
    process = subprocess.Popen(
        command("label", corpus, "--home", lab.home, setup=SETUP), env=alone, cwd=tmp_path,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    _wait_for(lab, process, 5)
    assert [p for p in _processes() if str(lab.home / "prefect.db") in p]
    process.kill()
    process.wait()
    deadline = time.monotonic() + 10
    while left := [p for p in _processes() if str(lab.home / "prefect.db") in p]:
        assert time.monotonic() < deadline, left
        time.sleep(0.2)


def _processes() -> list[str]:
    """The environments of all processes that may be looked into."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            found.append(path.read_text(errors="replace"))
        except OSError:
            continue
    return found
