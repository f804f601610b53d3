"""A model of 40 ms steps from files to answers: weights by rule, so labels mean nothing."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from sqlalchemy import text

from audioset_core.scores.pooling import pool
from audioset_core.storage.score_files import read_scores
from tests.core.models import rule_weights
from tests.flows.build import Lab

pytestmark = pytest.mark.slow
SECONDS = {"clip3": 3.0, "clip10": 10.0, "clip25": 25.0}


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sounds")
    for name in SECONDS:
        soundfile.write(folder / f"{name}.wav", rule_weights.clip(name, 16_000), 16_000)
    return folder


@pytest.fixture(scope="module")
def lab(
    prefect_server: str, recordings: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Lab]:
    home = tmp_path_factory.mktemp("frame")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AUDIOSET_CACHE", str(home / "cache"))
        weights = rule_weights.write_published("frame_mn06", home / "frame_mn06_strong_1.pt")
        patch.setenv("AUDIOSET_WEIGHTS_FRAME_MN06", str(weights))
        lab = Lab(home, f"sqlite:///{home}/labels.db", weights)
        for hop_s in (0.04, None):  # the second is current
            summary = lab.label(recordings, model="frame_mn06", patch_hop_s=hop_s, embeddings=True)
            assert (summary.n_labelled, summary.n_failed) == (3, 0)
        yield lab
    lab.engine.dispose()


def _detections(lab: Lab, steps_per_row: int) -> list[Any]:
    return lab.rows(
        "SELECT l.clip_id, d.node_id, d.start_patch, d.end_patch, d.peak, d.mean, d.peak_patch "
        "FROM detections d JOIN labellings l ON l.id = d.labelling_id "
        "JOIN parameter_sets p ON p.id = l.parameter_set_id WHERE p.steps_per_row = :n "
        "ORDER BY l.clip_id, d.node_id, d.start_patch", n=steps_per_row,
    )  # fmt: skip


def test_detections_are_those_of_the_steps_whatever_is_stored(lab: Lab) -> None:
    found = _detections(lab, 5)
    assert found == _detections(lab, 1)
    assert any(row.start_patch % 5 for row in found)
    rows = lab.rows(
        "SELECT l.scores_path, l.embeddings_path, l.n_patches, c.duration_s, p.steps_per_row "
        "FROM labellings l JOIN clips c ON c.id = l.clip_id "
        "JOIN parameter_sets p ON p.id = l.parameter_set_id ORDER BY c.id, p.steps_per_row"
    )
    assert [row.n_patches for row in rows if row.steps_per_row == 5] == [
        round(row.duration_s * 5) for row in rows if row.steps_per_row == 5
    ]
    for fine, coarse in zip(rows[::2], rows[1::2], strict=True):
        steps = read_scores(lab.home / fine.scores_path)
        assert len(steps) == round(fine.duration_s * 25)
        first = np.arange(0, len(steps), 5)
        np.testing.assert_array_equal(
            read_scores(lab.home / coarse.scores_path), np.maximum.reduceat(steps, first)
        )
        assert read_scores(lab.home / coarse.embeddings_path).shape == (len(first), 576)
        pooled = pool(steps, floor=0.1, threshold=0.1)
        mine = [row for row in found if row.clip_id == _clip_id(lab, fine.scores_path)]
        assert len(mine) == len(pooled.detections)


def _clip_id(lab: Lab, path: str) -> int:
    rows = lab.rows("SELECT clip_id FROM labellings WHERE scores_path = :path", path=path)
    return int(rows[0][0])


def test_answers_have_times_of_40_ms(lab: Lab, audioset: Callable[..., Any]) -> None:
    under = "Domestic sounds, home sounds"
    said = audioset("query", "--under", under, "--intervals", "--json", "--home", lab.home)
    hits = json.loads(said.out)
    assert said.code == 0
    assert "Washing machine" in {hit["name"] for hit in hits}, "a class that the ontology lacks"
    for hit in hits:
        assert hit["end_s"] <= hit["duration_s"]
        assert hit["start_s"] == pytest.approx(0.04 * round(hit["start_s"] / 0.04))
    n_steps = [round((hit["end_s"] - hit["start_s"]) / 0.04) for hit in hits]
    assert any(n % 5 for n in n_steps), "a detection begins and ends with its steps, not with rows"


def test_derived_intervals_lie_on_the_rows(lab: Lab, audioset: Callable[..., Any]) -> None:
    node = lab.rows(
        "SELECT n.mid FROM detections d JOIN nodes n ON n.id = d.node_id "
        "WHERE d.peak > 9500 ORDER BY d.mean LIMIT 1"
    )[0].mid
    table = lab.home / "set.csv"
    table.write_text(f"mid,high,low\n{node},0.9,0.5\n")
    assert audioset("thresholds", "import", "--name", "s", table, "--home", lab.home).code == 0
    assert audioset("thresholds", "apply", "s", "--home", lab.home).code == 0
    found = lab.rows("SELECT start_patch, end_patch, peak_patch FROM intervals")
    assert found
    assert all(r.start_patch % 5 == 0 and r.end_patch % 5 == 4 for r in found)
    said = audioset(
        "query", "--under", node, "--threshold-set", "s", "--intervals", "--json",
        "--home", lab.home,
    )  # fmt: skip
    assert all(hit["end_s"] <= hit["duration_s"] for hit in json.loads(said.out))


def test_verify_compares_steps_with_rows_and_labels_again(
    lab: Lab, audioset: Callable[..., Any]
) -> None:
    before = _detections(lab, 5)
    whole = audioset("verify", "--deep", "--home", lab.home)
    assert (whole.code, "nothing is wrong" in whole.out) == (0, True)
    with lab.engine.begin() as conn:
        changed = conn.execute(
            text(
                "UPDATE detections SET peak = peak + 700 WHERE (labelling_id, node_id, peak) IN ("
                "SELECT d.labelling_id, d.node_id, max(d.peak) FROM detections d "
                "JOIN labellings l ON l.id = d.labelling_id "
                "JOIN parameter_sets p ON p.id = l.parameter_set_id WHERE p.steps_per_row = 5 "
                "GROUP BY d.labelling_id, d.node_id HAVING max(d.peak) < 9000 LIMIT 1)"
            )
        )
        assert changed.rowcount >= 1
    found = audioset("verify", "--deep", "--home", lab.home)
    assert (found.code, "labels that differ from the scores" in found.out) == (1, True)
    assert audioset("verify", "--deep", "--repair", "--home", lab.home).code == 0
    assert audioset("verify", "--deep", "--home", lab.home).code == 0
    assert _detections(lab, 5) == before


def test_a_combination_has_its_rows(
    lab: Lab, recordings: Path, audioset: Callable[..., Any]
) -> None:
    """Of its newest labellings: rows of 0.2 s, beside patches of 0.96 s."""
    assert lab.label(recordings, model="pocket", weights=None).n_labelled == 3
    said = audioset("combine", "pocket", "frame_mn06", "--name", "both", "--home", lab.home)
    assert (said.code, "both@" in said.out, "3 clips combined" in said.out) == (0, True, True)
    rows = lab.rows(
        "SELECT l.n_patches, m.window_s, p.patch_hop_s FROM labellings l "
        "JOIN models m ON m.id = l.model_id JOIN parameter_sets p ON p.id = l.parameter_set_id "
        "WHERE m.name = 'both' ORDER BY 1"
    )
    assert rows == [(5 * round(seconds), 0.2, 0.2) for seconds in SECONDS.values()]
    assert audioset("verify", "--deep", "--home", lab.home).code == 0
