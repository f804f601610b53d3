"""Real trouble around a run: full and read-only disks, a database that restarts, many at once."""

from __future__ import annotations

import os
import subprocess
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, event

from db.errors import DatabaseUnavailableError
from flows.run import pipeline
from tasks import chunk_and_featurize, persist
from tasks.labelling import shards
from tests.db.conftest import new_database
from tests.flows.build import Lab, command, run_command, write_clip
from tests.postgres import Cluster, find_binaries, running_cluster

pytestmark = pytest.mark.slow

N_CLIPS = 6
N_AT_ONCE = 8


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    for seed in range(N_CLIPS):
        write_clip(folder / f"{seed}.wav", seed, 2.0 + seed / 10)
    return folder


@pytest.fixture(scope="module")
def undisturbed(
    prefect_server: str, placeholder: Path, corpus: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    home = tmp_path_factory.mktemp("undisturbed")
    lab = Lab(home, f"sqlite:///{home / 'labels.db'}", placeholder)
    lab.label(corpus)
    results = lab.results()
    lab.engine.dispose()
    return results


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "MIN_SHARD_S", 0.3)


# --- disks ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Disk:
    """A small file system of its own."""

    path: Path

    def remount(self, options: str) -> None:
        _mount("-o", f"remount,{options}", self.path)

    def fill(self) -> None:
        """Until nothing more fits."""
        with (self.path / "filler").open("wb", buffering=0) as file:
            try:
                while file.write(bytes(4_096)):
                    pass
            except OSError:
                return

    def free(self) -> None:
        (self.path / "filler").unlink()


def _mount(*arguments: str | Path) -> None:
    line = ["mount", *map(str, arguments)]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")


@pytest.fixture
def disk(lab: Lab) -> Iterator[Callable[[Path], Disk]]:
    mounted: list[Path] = []

    def make(path: Path, size: str = "8m") -> Disk:
        if os.geteuid() != 0:
            pytest.skip("only root may mount a small disk")
        path.mkdir(parents=True, exist_ok=True)
        _mount("-t", "tmpfs", "-o", f"size={size}", "tmpfs", path)
        mounted.append(path)
        return Disk(path)

    yield make
    lab.engine.dispose()
    for path in mounted:
        subprocess.run(["umount", "--lazy", str(path)], check=False)


def _label(lab: Lab, corpus: Path, environment: Mapping[str, str]) -> tuple[int, list[str]]:
    """Exit code and what is said on standard error, of a process of its own."""
    done = run_command("label", corpus, "--home", lab.home, env=environment, cwd=lab.home.parent)
    said = done.stderr.decode()
    assert "Traceback" not in said, said
    return done.returncode, said.strip().splitlines()


def test_a_full_disk_for_scores(
    lab: Lab, corpus: Path, environment: Mapping[str, str], disk: Callable[[Path], Disk]
) -> None:
    small = disk(lab.home / "scores")
    lab.label(corpus / "0.wav")
    small.fill()
    code, said = _label(lab, corpus, environment)
    assert code == 1
    assert said[-1].startswith("audioset: [Errno 28] No space left on device: ")
    assert str(lab.home / "scores") in said[-1]
    assert lab.count("labellings", "status = 'done'") == 1
    small.free()
    lab.check()
    lab.label(corpus)
    assert lab.count("labellings", "status = 'done'") == N_CLIPS
    lab.check()


def test_a_full_disk_for_the_database(
    lab: Lab, corpus: Path, disk: Callable[[Path], Disk], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everything of the run is in the folder: what was committed stays, the next run goes on."""
    small = disk(lab.home)
    lab.label(corpus / "0.wav")
    monkeypatch.setattr(persist.persist, "retry_delay_seconds", [0.0])
    commit = persist.commit_labellings

    def with_a_full_disk(*arguments: Any) -> Any:
        small.fill()
        return commit(*arguments)

    monkeypatch.setattr(persist, "commit_labellings", with_a_full_disk)
    with pytest.raises((DatabaseUnavailableError, OSError), match=r"full|No space"):
        lab.label(corpus)
    small.free()
    monkeypatch.setattr(persist, "commit_labellings", commit)
    lab.label(corpus)
    assert lab.count("labellings", "status = 'done'") == N_CLIPS
    lab.check()


def test_a_read_only_folder_for_scores(
    lab: Lab, corpus: Path, environment: Mapping[str, str], disk: Callable[[Path], Disk]
) -> None:
    small = disk(lab.home / "scores")
    lab.label(corpus / "0.wav")
    small.remount("ro")
    code, said = _label(lab, corpus, environment)
    assert code == 1
    assert said[-1].startswith("audioset: [Errno 30] Read-only file system: ")
    assert str(lab.home / "scores") in said[-1]
    small.remount("rw")
    assert lab.label(corpus).n_labelled == N_CLIPS - 1
    lab.check()


def test_a_read_only_home(
    lab: Lab, corpus: Path, environment: Mapping[str, str], disk: Callable[[Path], Disk]
) -> None:
    small = disk(lab.home)
    lab.label(corpus / "0.wav")
    before = lab.results()
    lab.engine.dispose()
    small.remount("ro")
    code, said = _label(lab, corpus, environment)
    assert code in (1, 2)
    assert "read" in said[-1].lower(), said
    assert len(said) < 4
    small.remount("rw")
    assert lab.results() == before
    assert lab.label(corpus).n_labelled == N_CLIPS - 1
    lab.check()


# --- PostgreSQL ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    binaries = find_binaries()
    if binaries is None:
        pytest.skip("no PostgreSQL server binaries (initdb, pg_ctl) on this machine")
    with running_cluster(binaries) as cluster:
        yield cluster


def _break_in_the_middle(once: Callable[[], None]) -> Callable[[], None]:
    """Before a statement in the middle of the transaction that makes labellings done."""

    def before(_conn: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith("INSERT INTO clip_scores"):
            once()

    event.listen(Engine, "before_cursor_execute", before)
    return lambda: event.remove(Engine, "before_cursor_execute", before)


@pytest.mark.parametrize(
    ("moment", "mode"),
    [
        ("claim", "immediate"),
        ("commit", "immediate"),
        ("middle of a commit", "immediate"),
        ("middle of a commit", "fast"),
        ("progress", "fast"),
    ],
)
def test_postgresql_restarts_during_a_run(
    undisturbed: dict[str, Any],
    corpus: Path,
    placeholder: Path,
    cluster: Cluster,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    moment: str,
    mode: str,
) -> None:
    lab = Lab(tmp_path / "home", new_database(cluster.url, "template0"), placeholder)
    calls: Counter[str] = Counter()
    starting = threading.Timer(1.5, cluster.start)

    def once() -> None:
        calls["all"] += 1
        if calls["all"] == 2:
            cluster.stop(mode)
            starting.start()

    def breaking(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            once()
            return function(*arguments, **named)

        return call

    undo: Callable[[], None] = lambda: None  # noqa: E731
    if moment == "middle of a commit":
        undo = _break_in_the_middle(once)
    else:
        owner, name = {
            "claim": (chunk_and_featurize, "claim_clip"),
            "commit": (persist, "commit_labellings"),
            "progress": (pipeline, "note_progress"),
        }[moment]
        monkeypatch.setattr(owner, name, breaking(getattr(owner, name)))
    try:
        summary = lab.label(corpus)
    finally:
        undo()
        if starting.ident is not None:
            starting.join()
    assert calls["all"] >= 2
    assert summary.n_labelled + summary.n_copies == N_CLIPS
    assert [r[0] for r in lab.rows("SELECT status FROM runs")] == ["completed"]
    assert lab.results() == undisturbed
    lab.check()
    lab.engine.dispose()


# --- many at once --------------------------------------------------------------------------------


@pytest.mark.timeout(600)
def test_eight_runs_at_once_on_one_home(
    lab: Lab,
    corpus: Path,
    undisturbed: dict[str, Any],
    environment: Mapping[str, str],
    tmp_path: Path,
) -> None:
    bad = tmp_path / "bad.wav"
    bad.write_text("not audio")
    setup = "from tasks.labelling import shards\nshards.MIN_SHARD_S = 0.3"
    processes = [
        subprocess.Popen(
            command("label", corpus, bad, "--home", lab.home, setup=setup), env=dict(environment),
            cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        for _ in range(N_AT_ONCE)
    ]  # fmt: skip
    try:
        for process in processes:
            _, stderr = process.communicate(timeout=500)
            said = stderr.decode()
            assert process.returncode == 1, said  # bad.wav
            assert "Traceback" not in said
            assert len(said.splitlines()) < 10, said
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
    lab.check()
    assert lab.results() == undisturbed
    runs = lab.rows("SELECT status, n_labelled FROM runs")
    assert {r[0] for r in runs} == {"completed"}
    assert sum(r[1] for r in runs) == N_CLIPS
    assert len(list((lab.home / "scores").rglob("*.npy"))) == N_CLIPS
