"""A corpus labelled without embeddings, then taught: killed at each step, equal to undisturbed."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.flows.build import REPOSITORY, Lab, command, processes, write_clip
from tests.flows.whole_runs.test_crash import SETUP

pytestmark = pytest.mark.slow

N_CLIPS = 24
# Killed once so many batches of five are committed.
DYING = """
import os, signal, tasks.combining.combine as module
whole, calls = module.commit_labellings, []
def dying(*arguments):
    found = whole(*arguments)
    calls.append(1)
    if len(calls) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return found
module.commit_labellings, module._BATCH_CLIPS = dying, 5
"""
FACTS = (
    "SELECT m.name, c.sha256, l.scores_sha256, l.embeddings_sha256, l.n_patches, l.is_current, "
    "sum(s.peak) FROM labellings l JOIN clips c ON c.id = l.clip_id "
    "JOIN models m ON m.id = l.model_id LEFT JOIN clip_scores s ON s.labelling_id = l.id "
    "WHERE l.status = 'done' GROUP BY 1, 2, 3, 4, 5, 6 ORDER BY 1, 2"
)


def _facts(lab: Lab) -> list[tuple[Any, ...]]:
    return [tuple(row) for row in lab.rows(FACTS)]


def test_killed_while_embeddings_are_added_and_while_taught_heads_score(
    lab: Lab,
    audioset: Callable[..., Any],
    environment: Mapping[str, str],
    tmp_path: Path,
) -> None:
    corpus = tmp_path / "corpus"
    for seed in range(N_CLIPS):
        write_clip(corpus / ("saws" if seed < 6 else "rest") / f"{seed:02d}.wav", seed, 2.0)
    home = ("--home", lab.home)
    teach = ("teach", "--name", "my-sounds", "--examples", f"Wood saw={corpus / 'saws'}", *home)
    label = ("label", "--model", "my-sounds", *home)
    query = ("query", "--under", "Wood saw", "--min-score", "0.1", "--json", *home)

    undisturbed = Lab(tmp_path / "other", f"sqlite:///{tmp_path}/other.db", lab.weights)
    assert undisturbed.label(corpus, embeddings=True).n_labelled == N_CLIPS
    there = ("--home", undisturbed.home, "--db", undisturbed.url)
    added = ("classes", "add", "Wood saw", "--under", "Power tool")
    for line in (added, teach[:-2], label[:-2]):
        assert audioset(*line, *there).code == 0

    assert lab.label(corpus).n_labelled == N_CLIPS
    before = lab.rows("SELECT id, labelled_at, scores_path FROM labellings ORDER BY id")
    assert audioset(*added, *home).code == 0
    said = audioset(*teach)
    assert (said.code, "--embeddings PATH adds them to what is labelled" in said.err) == (2, True)
    line = command("label", corpus, "--embeddings", *home, setup=SETUP)
    with processes(environment, tmp_path) as start:
        process = start(line)
        deadline = time.monotonic() + 120
        while lab.count("labellings", "embeddings_path IS NOT NULL") < 4:
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.005)
        process.kill()
        process.communicate()
    n_done = lab.count("labellings", "embeddings_path IS NOT NULL")
    assert 0 < n_done < N_CLIPS
    assert lab.count("labellings", "is_current") == N_CLIPS
    said = audioset(*teach)
    n_lacking = f"{N_CLIPS - n_done} clips without embeddings of yamnet@"
    assert n_lacking in said.err
    assert f"--embeddings {corpus}" in said.err
    summary = lab.label(corpus, embeddings=True)
    assert (summary.n_labelled, summary.n_added) == (N_CLIPS - n_done, N_CLIPS - n_done)
    assert lab.rows("SELECT id, labelled_at, scores_path FROM labellings ORDER BY id") == before
    lab.check_after_a_kill()

    assert audioset(*teach).code == 0
    killed = subprocess.run(
        [sys.executable, "-c", f"{DYING}\nfrom flows.cli.program import main; main()",
         *map(str, label)],
        cwd=REPOSITORY, env=dict(environment), capture_output=True, check=False,
    )  # fmt: skip
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    said = audioset(*label)
    assert f"{N_CLIPS - 10} clips scored, {N_CLIPS} in all" in said.out, said
    assert _facts(lab) == _facts(undisturbed)
    found = json.loads(audioset(*query).out)

    assert len(found) == len({hit["clip"] for hit in found})
    assert {hit["name"] for hit in found} == {"Wood saw"}
    # What arrives is scored by the run that labels it, and found without naming the model.
    for each in (lab, undisturbed):
        write_clip(tmp_path / "new" / "saw.wav", 0, 2.5)
        assert set(each.label(tmp_path / "new", embeddings=True).taught.values()) == {1}
    assert _facts(lab) == _facts(undisturbed)
    assert audioset("verify", "--deep", *home).code == 0
    undisturbed.engine.dispose()
