"""Classes of ESC-10 taught from four real recordings each, and kept up as recordings arrive."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.flows.build import Lab, write_clip

pytestmark = pytest.mark.slow

CLASSES = {
    "baby_cry": "Baby cry, infant cry", "chainsaw": "Chainsaw", "clock_tick": "Tick-tock",
    "dog_bark": "Dog", "fire_crackling": "Fire", "helicopter": "Helicopter",
    "person_sneeze": "Sneeze", "rain": "Rain", "rooster": "Chicken, rooster",
    "sea_waves": "Ocean",
}  # fmt: skip
YAMNET_H5 = "weights/yamnet.h5"


def test_classes_of_four_recordings_are_learned_and_kept_up(
    lab: Lab, assets: Path, audioset: Callable[..., Any], tmp_path: Path
) -> None:
    def label(*paths: Path) -> Any:
        return lab.label(*paths, weights=assets / YAMNET_H5, embeddings=True)

    corpus = tmp_path / "esc10"
    shutil.copytree(assets / "esc10-dev", corpus)
    assert label(corpus).n_labelled == 40
    examples = [
        word
        for folder, name in CLASSES.items()
        for word in ("--examples", f"{name}={corpus / folder}")
    ]
    home = ("--home", lab.home)
    said = audioset("teach", "--name", "my-sounds", *examples, *home, "--json")
    assert said.code == 0, said
    told = json.loads(said.out)
    assert {each["recordings"] for each in told["classes"]} == {4}
    assert {each["other_recordings"] for each in told["classes"]} == {36}
    # Each recording's score is of heads that learned from three recordings of its class.
    assert told["mean_ap"] >= 0.92, told
    low, high = told["mean_ap_interval"]
    assert low > 0.84, told
    assert low < told["mean_ap"] < high
    assert sum(each["ap"] >= 0.9 for each in told["classes"]) >= 8, told
    curves = [[n["ap"] for n in each["learning_curve"]] for each in told["classes"]]
    of_one, of_two = (sum(aps) / len(curves) for aps in zip(*curves, strict=True))
    assert of_one < of_two < told["mean_ap"], "more examples help"
    assert audioset("label", "--model", "my-sounds", *home).code == 0
    # What arrives is scored by the run that labels it, without being asked.
    write_clip(tmp_path / "new.wav", 1, 5.0)
    summary = label(tmp_path / "new.wav")
    assert (summary.n_labelled, summary.taught) == (1, {told["model"]: 1})
    assert (f"scored by {told['model']}", "1 (taught)") in summary.rows()
    assert label(corpus).taught == {}
    said = audioset("label", "--model", "my-sounds", *home)
    assert "0 clips scored, 41 in all" in said.out
    # What cannot be scored does not stop the run, and is said.
    (weights,) = (lab.home / "taught").iterdir()
    weights.write_bytes(b"damaged")
    write_clip(tmp_path / "newer.wav", 2, 5.0)
    summary = label(tmp_path / "newer.wav")
    assert (summary.n_labelled, summary.taught) == (1, {})
    (problem,) = summary.taught_problems
    assert problem.startswith("not scored by my-sounds: ")


def test_the_whole_way_on_postgresql(
    lab: Lab, postgres_url: str, audioset: Callable[..., Any], tmp_path: Path
) -> None:
    other = Lab(lab.home, postgres_url, lab.weights)
    for seed in range(12):
        write_clip(tmp_path / ("saws" if seed < 4 else "rest") / f"{seed}.wav", seed, 3.0)
    assert other.label(tmp_path, embeddings=True).n_labelled == 12
    home = ("--home", lab.home, "--db", postgres_url)
    teach = ("teach", "--name", "my-sounds", "--examples", f"Chainsaw={tmp_path / 'saws'}")
    said = audioset(*teach, *home, "--json")
    assert said.code == 0, said
    (own,) = json.loads(said.out)["classes"]
    assert (own["recordings"], own["other_recordings"]) == (4, 8)
    label = ("label", "--model", "my-sounds")
    said = audioset(*label, tmp_path / "saws", *home)
    assert (said.code, "4 clips scored, 4 in all" in said.out) == (0, True), said
    assert "8 clips scored, 12 in all" in audioset(*label, *home).out
    query = ("query", "--under", "Engine", "--model", "my-sounds", "--min-score", "0.1", "--json")
    assert json.loads(audioset(*query, *home).out)
    assert audioset("verify", "--deep", *home).code == 0
    other.engine.dispose()
