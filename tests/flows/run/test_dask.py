"""The task runner as a parameter: a local Dask cluster of two processes."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from flows.label_audio import label_audio
from flows.run_options import ExecutionOptions
from flows.run_report.summary import Summary
from tasks.labelling import shards
from tasks.labelling.options import LabelOptions
from tests.flows.build import Lab, write_clip

N_CLIPS = 24
LONG_S = 30.0

# What `distributed` leaves open when its processes end is its own affair.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning"),
]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    for seed in range(N_CLIPS):
        write_clip(folder / f"{seed:02d}.flac", seed, 1.0 + seed / 20)
    write_clip(folder / "long.flac", 99, LONG_S)  # longer than a shard: read in parts
    (folder / "bad.wav").write_text("not audio")
    return folder


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "MIN_SHARD_S", 5.0)


@pytest.fixture
def on_threads(
    prefect_server: str, placeholder: Path, corpus: Path, tmp_path: Path
) -> Iterator[Lab]:
    home = tmp_path / "threads"
    lab = Lab(home, f"sqlite:///{home / 'labels.db'}", placeholder)
    assert lab.label(corpus).n_labelled == N_CLIPS + 1
    yield lab
    lab.engine.dispose()


def _label(lab: Lab, corpus: Path) -> Summary:
    return label_audio(
        paths=[str(corpus)],
        home=lab.home,
        options=LabelOptions(weights=lab.weights),
        execution=ExecutionOptions(task_runner="dask", dask_workers=2),
        database=SecretStr(lab.url),
    )


def _files(lab: Lab) -> dict[str, bytes]:
    root = lab.home / "scores"
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*.npy")}


def test_two_processes_give_what_one_gives(lab: Lab, corpus: Path, on_threads: Lab) -> None:
    summary = _label(lab, corpus)
    assert (summary.n_labelled, summary.n_failed) == (N_CLIPS + 1, 1)
    lab.check()
    assert lab.results() == on_threads.results()
    assert _files(lab) == _files(on_threads)


def test_a_killed_worker_costs_a_retry_not_a_clip(lab: Lab, corpus: Path, on_threads: Lab) -> None:
    killed: list[int] = []

    def kill_one() -> None:
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline:
            with contextlib.suppress(Exception):
                if lab.count("labellings", "status = 'done'") >= 3:
                    break
            time.sleep(0.02)
        for pid in _dask_workers():
            os.kill(pid, signal.SIGKILL)
            killed.append(pid)
            return

    thread = threading.Thread(target=kill_one)
    thread.start()
    summary = _label(lab, corpus)
    thread.join()
    assert len(killed) == 1
    assert (summary.n_labelled, summary.n_failed) == (N_CLIPS + 1, 1)
    lab.check_after_a_kill()
    assert lab.results() == on_threads.results()
    assert _files(lab) == _files(on_threads)


def _dask_workers() -> list[int]:
    """The processes of this process's cluster: the children of its nannies' forks."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            command = (entry / "cmdline").read_bytes()
            if b"multiprocessing" in command and b"spawn_main" in command and _is_ours(entry):
                found.append(int(entry.name))
    return found


def _is_ours(entry: Path) -> Any:
    stat = (entry / "stat").read_text()
    return int(stat.rsplit(")", 1)[1].split()[1]) == os.getpid()
