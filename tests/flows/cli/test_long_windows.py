"""Answers about a model whose scores are each of 10 s of sound, every 7.5 s (mn04)."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from audioset_core.models.registry import find_bundle
from tests.flows.looking import SIREN, SPEECH, Collection

Audioset = Callable[..., Any]
MALE_SPEECH = "/m/05zppz"
"""Which YAMNet lacks."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collection]:
    home = tmp_path_factory.mktemp("long")
    collection = Collection(home, find_bundle("mn04"))
    # Patches begin at 0, 7.5, ... 52.5 s; the last one ends with the recording.
    collection.add(home / "minute.wav", 61.0, {SIREN: (3, 4, 0.9), SPEECH: (7, 7, 0.6)})
    collection.add(home / "second.wav", 1.0, {SIREN: (0, 0, 0.7), MALE_SPEECH: (0, 0, 0.8)})
    collection.add(home / "a_little_longer.wav", 12.6, {SIREN: (1, 1, 0.5)})
    yield collection
    collection.engine.dispose()


def test_intervals_end_with_the_window_or_the_recording(
    made: Collection, audioset: Audioset
) -> None:
    said = audioset(
        "query", "--under", "Siren", "--under", "Speech", "--intervals", "--json",
        "--home", made.home,
    )  # fmt: skip
    found = [
        (Path(h["path_text"]).stem, h["name"], h["start_s"], h["end_s"], h["window_s"])
        for h in json.loads(said.out)
    ]
    assert found == [
        ("minute", "Siren", 22.5, 40.0, 10.0),
        ("second", "Male speech, man speaking", 0.0, 1.0, 10.0),
        ("second", "Siren", 0.0, 1.0, 10.0),
        ("minute", "Speech", 52.5, 61.0, 10.0),
        ("a_little_longer", "Siren", 7.5, 12.6, 10.0),
    ]


def test_a_class_that_yamnet_lacks_is_found(made: Collection, audioset: Audioset) -> None:
    for under in ("Male speech, man speaking", "Human voice"):
        said = audioset(
            "query", "--under", under, "--min-score", 0.7, "--json", "--home", made.home
        )
        assert [(h["mid"], h["score"]) for h in json.loads(said.out)] == [(MALE_SPEECH, 0.8)]


@pytest.mark.parametrize(("least_s", "n_found"), [(0, 3), (1, 3), (5, 2), (10, 1), (17.5, 1)])
def test_a_duration_below_the_window_is_no_condition_on_the_sound(
    made: Collection, audioset: Audioset, least_s: float, n_found: int
) -> None:
    said = audioset(
        "query", "--under", "Siren", "--min-duration", least_s, "--json", "--home", made.home
    )
    assert len(json.loads(said.out)) == n_found
    said = audioset("query", "--under", "Siren", "--min-duration", least_s, "--home", made.home)
    is_said = f"--min-duration {least_s:g} leaves out only recordings that are shorter" in said.err
    assert is_said == (0 < least_s <= 10)


@pytest.mark.parametrize(
    ("window_s", "spans", "is_shorter"),
    [
        (5, [(22.5, 32.5), (30.0, 40.0)], True),
        (10, [(22.5, 32.5), (30.0, 40.0)], False),
        (17.5, [(15.0, 32.5), (30.0, 47.5)], False),
    ],
)
def test_rank_says_where_a_window_cannot_be_as_short_as_asked(
    made: Collection,
    audioset: Audioset,
    window_s: float,
    spans: list[tuple[float, float]],
    is_shorter: bool,
) -> None:
    rank = ("rank", "--under", "Siren", "--window", window_s, "--top", 2, "--home", made.home)
    said = audioset(*rank)
    assert ("one score is of 10 s of sound" in said.err) == is_shorter
    found = json.loads(audioset(*rank, "--json").out)
    assert [(w["start_s"], w["end_s"]) for w in found] == spans


@pytest.mark.slow
def test_a_review_plays_all_that_a_score_is_of(
    made: Collection, audioset: Audioset, tmp_path: Path
) -> None:
    page = tmp_path / "r.html"
    assert audioset("review", "--under", "Siren", "-o", page, "--home", made.home).code == 0
    data = re.search(r'id="data">(.*?)</script>', page.read_text(), re.DOTALL)
    assert data is not None
    items = {Path(i["path"]).stem: i for i in json.loads(data.group(1))["items"]}
    assert {
        name: (i["start_s"], i["end_s"], i["heard"]) for name, i in sorted(items.items())
    } == {
        "a_little_longer": (2.6, 12.6, [7.5, 12.6]),
        "minute": (22.5, 32.5, [22.5, 32.5]),
        "second": (0.0, 1.0, [0.0, 1.0]),
    }  # fmt: skip


def test_spans_shorter_than_a_window_are_counted(
    made: Collection, audioset: Audioset, tmp_path: Path
) -> None:
    truth = tmp_path / "truth.csv"
    # Of 22 to 41 s two windows lie within; the one around 26 s begins at 22.5 s; a recording's last
    # window ends with it, and lies within 52 to 61 s.
    truth.write_text(
        "file,label,start_s,end_s\nminute.wav,Siren,22,41\nminute.wav,Siren,25,27\n"
        "minute.wav,,0,10\nminute.wav,,52,61\nsecond.wav,Siren,,\n"
    )
    evaluate = ("evaluate", "--truth", truth, "--model", "mn04", "--bootstrap", 0)
    said = audioset(*evaluate, "--home", made.home)
    assert "1 spans are shorter than a window" in said.err
    found = json.loads(audioset(*evaluate, "--json", "--home", made.home).out)
    assert found["truth"]["n_beyond"] == 1
    assert found["classes"][0]["ap"] == 1.0


@pytest.mark.parametrize(("model", "is_predicted"), [("yamnet", False), ("mn04", True)])
def test_the_ontology_shows_what_a_model_predicts(
    audioset: Audioset, model: str, is_predicted: bool
) -> None:
    shown = json.loads(audioset("ontology", "show", MALE_SPEECH, "--model", model, "--json").out)
    assert shown[f"predicted_by_{model}"] is is_predicted
    lines = audioset("ontology", "tree", "Speech", "--model", model).out.splitlines()
    assert ("  Male speech, man speaking (-)" in lines) is not is_predicted
