"""Two models in one run, killed or side by side: each clip is labelled once under both."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.flows.build import Lab, command, processes, write_clip
from tests.flows.whole_runs.test_crash import SETUP

pytestmark = pytest.mark.slow

N_CLIPS = 24
MODELS = ("pocket", "yamnet")
Start = Callable[[], subprocess.Popen[bytes]]


@pytest.fixture(autouse=True)
def _weights(monkeypatch: pytest.MonkeyPatch, placeholder: Path) -> None:
    monkeypatch.setenv("AUDIOSET_WEIGHTS", str(placeholder))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    for seed in range(N_CLIPS - 1):
        write_clip(folder / f"{seed:02d}.wav", seed, 1.0 + seed / 20)
    write_clip(folder / "long.flac", 99, 20.0)  # cut into parts
    shutil.copy(folder / "00.wav", folder / "zz-copy.wav")
    (folder / "bad.wav").write_text("not audio")
    return folder


@pytest.fixture
def start(
    lab: Lab, corpus: Path, environment: Mapping[str, str], tmp_path: Path
) -> Iterator[Start]:
    """Starts `audioset label` in its own process; whatever still lives at the end is killed."""
    both = [word for model in MODELS for word in ("--model", model)]
    line = command("label", *both, corpus, "--home", lab.home, setup=SETUP)
    with processes(environment, tmp_path) as run:
        yield lambda: run(line)


def _labels(lab: Lab) -> list[Any]:
    """Every labelling with what was found, but ids and times."""
    return lab.rows(
        "SELECT m.name, c.sha256, l.is_current, l.scores_sha256, l.n_patches, count(s.node_id), "
        "sum(s.peak) FROM labellings l JOIN clips c ON c.id = l.clip_id "
        "JOIN models m ON m.id = l.model_id LEFT JOIN clip_scores s ON s.labelling_id = l.id "
        "WHERE l.status = 'done' GROUP BY 1, 2, 3, 4, 5 ORDER BY 1, 2"
    )


@pytest.fixture(scope="module")
def undisturbed(
    prefect_server: str, placeholder: Path, corpus: Path, tmp_path_factory: pytest.TempPathFactory
) -> list[Any]:
    home = tmp_path_factory.mktemp("undisturbed")
    lab = Lab(home, f"sqlite:///{home / 'labels.db'}", placeholder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AUDIOSET_WEIGHTS", str(placeholder))
        summary = lab.label(corpus, model=MODELS, weights=None)
    assert (summary.n_labelled, summary.n_copies, summary.n_failed) == (N_CLIPS, 1, 1)
    labels = _labels(lab)
    assert {(row.name, bool(row.is_current)) for row in labels} == {
        ("pocket", True),
        ("yamnet", False),
    }
    lab.engine.dispose()
    return labels


@pytest.mark.parametrize("n_done", [1, 13, 38])
def test_a_killed_run_is_taken_up_where_it_was(
    lab: Lab, start: Start, corpus: Path, undisturbed: list[Any], n_done: int
) -> None:
    process = start()
    deadline = time.monotonic() + 60
    while lab.count("labellings", "status = 'done'") < n_done:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.kill()
    process.communicate()
    query = "SELECT id, labelled_at FROM labellings WHERE status = 'done'"
    before = dict(lab.rows(query))
    assert 0 < len(before) < 2 * N_CLIPS
    lab.label(corpus, model=MODELS, weights=None)
    assert _labels(lab) == undisturbed
    after = dict(lab.rows(query))
    assert {key: after[key] for key in before} == before
    lab.check_after_a_kill()
    assert len(list((lab.home / "scores").rglob("*.npy"))) == 2 * N_CLIPS
    # Counted once each, by the run that died or the one after; a clip that lacked one model then
    # is labelled by both runs.
    counted = lab.rows("SELECT sum(n_labelled) FROM runs")[0][0]
    assert N_CLIPS <= counted <= N_CLIPS + len(before)
    again = lab.label(corpus, model=MODELS, weights=None)
    assert (again.n_labelled, again.n_known) == (0, N_CLIPS + 1)


def test_two_runs_at_once_share_the_work(lab: Lab, start: Start, undisturbed: list[Any]) -> None:
    processes = [start(), start()]
    for process in processes:
        _, stderr = process.communicate(timeout=120)
        assert process.returncode == 1, stderr.decode()  # bad.wav
        assert b"Traceback" not in stderr
    lab.check()
    assert _labels(lab) == undisturbed
    assert len(list((lab.home / "scores").rglob("*.npy"))) == 2 * N_CLIPS
