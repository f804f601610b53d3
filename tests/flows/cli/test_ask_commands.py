"""The commands of an analyst, against numbers computed from the scores themselves."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from audioset_core.scores.pooling import sigmoid, sliding_scores
from db.catalog.sources import add_to_work_list, iter_items
from db.integrity.audit import stored_variants
from db.ledger.claims import claim_clip
from db.records import Lease
from tests.db.build import LEASE_S, NOW, RUN, clip, seen, sha
from tests.flows.collection import CLASSES, DURATION_S, Collection, make_collection

Audioset = Callable[..., Any]
DURATION_CS = round(100 * DURATION_S)
NAMES = (
    *(f"site-1/20240518_{hour:02}0000.wav" for hour in range(0, 24, 4)),
    *(f"site-2/2024-05-{day}T05-00-00Z.flac" for day in (18, 19, 20)),
    "unknown.wav",
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collection]:
    collection = make_collection(tmp_path_factory.mktemp("ask") / "home", NAMES)
    yield collection
    collection.engine.dispose()


@pytest.fixture
def ask(audioset: Audioset, made: Collection) -> Audioset:
    """The command's JSON."""

    def run(*arguments: object) -> Any:
        said = audioset(*arguments, "--home", made.home, "--json")
        assert said.code == 0, said
        return json.loads(said.out)

    return run


def _peaks(made: Collection, *classes: str) -> dict[str, float]:
    columns = [CLASSES.index(name) for name in classes]
    return {name: float(sigmoid(x[:, columns]).max()) for name, x in made.logits.items()}


def test_query_by_several_nodes(ask: Audioset, made: Collection) -> None:
    hits = ask("query", "--under", "Dog", "--under", "Vehicle", "--min-score", "0.3")
    expected = {sha(n): p for n, p in _peaks(made, "Dog", "Car").items() if p >= 0.3}
    assert {hit["clip"]: hit["score"] for hit in hits} == pytest.approx(expected, abs=1e-4)
    assert {hit["name"] for hit in hits} <= {"Dog", "Car"}


def test_query_all_of(ask: Audioset, made: Collection) -> None:
    hits = ask("query", "--all-of", "Dog", "--all-of", "Siren", "--min-score", "0.8")
    dogs, sirens = _peaks(made, "Dog"), _peaks(made, "Siren")
    expected = {sha(name) for name in NAMES if dogs[name] >= 0.8 and sirens[name] >= 0.8}
    assert {hit["clip"] for hit in hits} == expected
    assert 0 < len(expected) < len(NAMES)


def test_times_are_found_and_asked_for(ask: Audioset, audioset: Audioset, made: Collection) -> None:
    found = ask("times", "--timezone", "Europe/Berlin")
    counts = {row["found_by"]: row["n_sources"] for row in found["found"]}
    assert counts == {"name, Europe/Berlin": 6, "name, zone given there": 3, "not found": 1}
    question = ("query", "--under", "Dog", "--min-score", "0.1", "--between")
    night = ask(*question, "23:59", "04:01")
    assert {hit["path_text"] for hit in night} == {f"/audio/{name}" for name in NAMES[:2]}
    day = ask(*question, "2024-05-19", "2024-05-19")
    assert [hit["path_text"] for hit in day] == [f"/audio/{NAMES[7]}"]
    assert day[0]["recorded_at"] == "2024-05-19 05:00:00+00:00"
    said = audioset(*question, "2024-05-18T06:59", "2024-05-18T07:01", "--home", made.home)
    assert "--between is in Europe/Berlin" in said.err
    assert "no start time is known for 1 files" in said.err
    assert [line.split("\t")[-1] for line in said.out.splitlines()[1:]] == [f"/audio/{NAMES[6]}"]
    moments = [hit["heard_at"] for hit in ask(*question, "00:00", "00:00", "--order", "time")]
    assert len(moments) == 9
    assert moments == sorted(moments, key=datetime.fromisoformat)
    again = ask("times", "--timezone", "UTC")
    assert again["rules"] == [{"folder": "", "pattern": None, "timezone": "UTC"}]


def test_intervals_have_their_times(audioset: Audioset, made: Collection) -> None:
    said = audioset(
        "query", "--under", "Dog", "--intervals", "--csv", "--source", "site-1/*",
        "--min-duration", "1", "--order", "duration", "--home", made.home,
    )  # fmt: skip
    rows = list(csv.DictReader(io.StringIO(said.out)))
    lengths = [float(row["end_s"]) - float(row["start_s"]) for row in rows]
    assert lengths == sorted(lengths, reverse=True)
    assert min(lengths) >= 1
    assert all("/site-1/" in row["path"] for row in rows)


def test_exact_hours_are_those_of_the_scores(ask: Audioset, made: Collection) -> None:
    rows = ask("hours", "--by", "class", "--exact", "--min-score", "0.6")
    for row in rows:
        column = CLASSES.index(row["what"])
        expected_s, n_clips = 0.0, 0
        for logits in made.logits.values():
            marks = np.zeros(DURATION_CS, dtype=bool)
            for patch in np.flatnonzero(sigmoid(logits[:, column]) >= 0.6):
                marks[patch * 48 : patch * 48 + 96] = True
            expected_s += marks.sum() / 100
            n_clips += bool(marks.any())
        assert (row["n_clips"], row["hours"] * 3600) == (n_clips, pytest.approx(expected_s))
    assert len(rows) == len(CLASSES)
    whole = {
        row["what"]: row["hours"] for row in ask("hours", "--by", "class", "--min-score", "0.6")
    }
    assert all(row["hours"] <= whole[row["what"]] for row in rows)


@pytest.mark.parametrize("by", ["second-level", "day", "source"])
def test_exact_hours_have_the_same_rows(ask: Audioset, by: str) -> None:
    ask("times", "--timezone", "UTC")
    whole, exact = ask("hours", "--by", by), ask("hours", "--by", by, "--exact")
    clips = {row["what"]: row["n_clips"] for row in whole}
    assert {row["what"]: row["n_clips"] for row in exact} == clips
    hours = {row["what"]: row["hours"] for row in whole}
    assert all(0 < row["hours"] <= hours[row["what"]] + 1e-9 for row in exact if row["n_clips"])


def test_the_same_bytes_at_two_times_count_on_both_days(audioset: Audioset, tmp_path: Path) -> None:
    name = "20240518_050000.wav"
    made = make_collection(tmp_path / "home", (name,))
    again = [seen("/audio/20240520_050000.wav"), seen("/copy/20240518_050000.wav")]
    add_to_work_list(made.engine, RUN, [(file, 1.0) for file in again], start=1, now=NOW)
    variant = next(iter(stored_variants(made.engine)))
    for item in list(iter_items(made.engine, RUN))[1:]:
        claim_clip(
            made.engine, item.source_id, clip(name, DURATION_S), variant, Lease(RUN, LEASE_S, NOW)
        )
    made.engine.dispose()

    def days(*options: str) -> dict[str, tuple[int, float]]:
        said = audioset("times", "--home", made.home)
        assert said.code == 0
        said = audioset("hours", "--by", "day", "--json", "--home", made.home, *options)
        return {row["what"]: (row["n_clips"], row["hours"]) for row in json.loads(said.out)}

    for found in (days(), days("--exact"), days("--between", "2024-05-18", "2024-05-21")):
        assert list(found) == ["2024-05-18", "2024-05-20"]
        assert found["2024-05-18"] == found["2024-05-20"]
        assert found["2024-05-18"][0] == 1


@pytest.mark.parametrize("pooling", ["max", "mean"])
def test_rank_is_that_of_all_windows(ask: Audioset, made: Collection, pooling: str) -> None:
    found = ask("rank", "--under", "Animal", "--window", "2", "--pooling", pooling, "--top", "12")
    expected = []
    for name, logits in made.logits.items():
        columns = logits[:, [CLASSES.index("Dog"), CLASSES.index("Meow")]]
        scores = sliding_scores(columns, window=3, stride=3, mode=pooling).max(axis=1)  # type: ignore[arg-type]
        expected += [(-float(score), sha(name)) for score in scores]
    expected = sorted(expected)[:12]
    assert [(row["clip"], row["score"]) for row in found] == [
        (clip, pytest.approx(-score)) for score, clip in expected
    ]
    assert all(row["end_s"] - row["start_s"] <= 2 for row in found)


def test_similar_by_recording_and_by_moment(ask: Audioset, made: Collection) -> None:
    means = {name: x.astype(float).mean(axis=0) for name, x in made.embeddings.items()}
    own = means.pop("unknown.wav")

    def cosine(a: np.ndarray, b: np.ndarray) -> float:
        return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))

    found = ask("similar", "/audio/unknown.wav", "--top", "3")
    assert found["compared_by"] == "embeddings"
    expected = sorted(means, key=lambda name: -cosine(means[name], own))[:3]
    assert [row["clip"] for row in found["found"]] == [sha(name) for name in expected]
    # The patch in whose middle 5 s lies: 0.48 * 9 + 0.48 is 4.8.
    moment = made.embeddings["unknown.wav"][9].astype(float)
    found = ask("similar", f"{sha('unknown.wav')[:9]}@5.0", "--top", "1")
    best = max(
        (cosine(row, moment), sha(name), patch)
        for name, x in made.embeddings.items()
        if name != "unknown.wav"
        for patch, row in enumerate(x.astype(float))
    )
    (row,) = found["found"]
    assert (row["cosine"], row["clip"]) == (pytest.approx(best[0]), best[1])
    assert row["start_s"] == pytest.approx(best[2] * 0.48)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["query"], "say what to look for"),
        (["query", "--under", "Dogg"], "'Dog'"),
        (["query", "--under", "Dog", "--all-of", "Piano"], "cannot predict 'Piano'"),
        (["query", "--under", "Dog", "--between", "04:00", "2024-05-18"], "one is a time of day"),
        (["query", "--under", "Dog", "--between", "x", "y"], "'x' is not a time"),
        (["query", "--under", "Dog", "--between", "2024-05-19", "2024-05-18"], "not after"),
        (["query", "--under", "Dog", "--between", "2024-05-19", "2024-05-20",
          "--timezone", "Mars"], "unknown time zone 'Mars'"),
        (["query", "--under", "Dog", "--source", "[z-a]"], "is not a valid pattern"),
        (["query", "--under", "Dog", "--intervals", "--min-score", "0.05"], "below 0.1"),
        (["hours", "--exact", "--between", "04:00", "05:00"], "leave out --between"),
        (["rank"], "say what to look for"),
        (["rank", "--under", "Piano"], "cannot predict"),
        (["similar", "/audio/unknown.wav@99"], "ends at 10.56 s"),
        (["similar", "/audio/nothing.wav"], "no file"),
        (["times", "--pattern", "%Q"], "%Q"),
        (["ontology", "missing", "Dogg"], "'Dog'"),
        (["ontology", "missing", "Dog", "--model", "yamnot"], "yamnet"),
    ],
)  # fmt: skip
def test_mistakes_are_answered_in_one_line(
    audioset: Audioset, made: Collection, arguments: list[str], said: str
) -> None:
    home = [] if arguments[0] == "ontology" else ["--home", made.home]
    result = audioset(*arguments, *home)
    assert result.code == 2
    assert result.out == ""
    assert result.err.splitlines()[-1].startswith("audioset: ")
    assert said in result.err


def test_what_a_model_lacks(audioset: Audioset) -> None:
    said = audioset("ontology", "missing", "Vehicle")
    assert said.code == 0
    assert [line.split("\t")[1] for line in said.out.splitlines()[1:]] == [
        "Non-motorized land vehicle",
        "Electric rotor drone, quadcopter",
        "Cart",
        "Windscreen wiper, windshield wiper",
    ]
    assert "yamnet lacks 4 of 48 classes" in said.err
