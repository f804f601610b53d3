"""`--sun` on the command line: the moments of a recording, and what is said of the others."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete

from audioset_core.inputs.sun import sun_periods
from db.engine import writing
from db.schema.tables import sun_periods as stored_periods
from flows.analysis.dataframes import open_labels
from tests.flows.collection import make_collection

SUNSET_S = 5


@pytest.mark.slow
def test_a_recording_across_sunset(
    audioset: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    day = (date(2024, 5, 18) - date(1970, 1, 1)).days
    (sunset,) = [begin for phase, begin, _ in sun_periods(51.48, 0, day) if phase == "dusk"]
    name = f"{datetime.fromtimestamp(sunset - SUNSET_S, UTC):%Y%m%d_%H%M%S}.wav"
    made = make_collection(tmp_path / "home", (name, "20240518_120000.wav", "unknown.wav"))
    made.engine.dispose()

    def ask(*options: object) -> Any:
        said = audioset(*options, "--home", made.home, "--json")
        assert said.code == 0, said
        return json.loads(said.out)

    added = audioset(
        "sites",
        "add",
        "Here",
        "--lat",
        51.48,
        "--lon",
        0,
        "--folder",
        "/audio",
        "--home",
        made.home,
    )
    assert added.code == 0, added
    by_sun = {row["what"]: row["n_clips"] for row in ask("hours", "--by", "sun")}
    assert by_sun == {"day": 2, "dusk": 1, "unknown": 1}

    def windows(*options: object) -> set[float]:
        found = ask("rank", "--under", "Dog", "--window", 0.5, "--top", 999, *options)
        return {row["start_s"] for row in found if row["path"].endswith(name)}

    every, by_day, at_dusk = windows(), windows("--sun", "day"), windows("--sun", "dusk")
    assert by_day | at_dusk == every
    assert max(by_day) < SUNSET_S < min(at_dusk) + 0.96
    assert by_day & at_dusk == {start for start in every if start < SUNSET_S < start + 0.96}
    hours = ("hours", "--under", "Dog", "--by", "source", "--exact", "--min-score", 0.5)
    assert [row["n_clips"] for row in ask(*hours, "--sun", "dusk")] == [1]
    long, short = ask(*hours, "--source", name), ask(*hours, "--source", name, "--sun", "dusk")
    assert 0 < short[0]["hours"] < long[0]["hours"]
    said = audioset("query", "--under", "Dog", "--sun", "night", "--home", made.home)
    assert "left out: 1 recording has no place or no start" in said.err
    said = audioset("query", "--under", "Dog", "--sun", "noon", "--home", made.home)
    assert (said.code, said.err.count("\n")) == (2, 1)
    assert "night, dawn, day, dusk" in said.err
    said = audioset("similar", "/audio/unknown.wav", "--sun", "day", "--home", made.home)
    assert said.code == 2
    labels = open_labels(made.home)
    assert set(labels.clips("Dog", sun="dusk", min_score=0.1)["path"]) == {f"/audio/{name}"}
    assert "days of places" not in said.err
    with writing(labels.engine) as conn:
        conn.execute(delete(stored_periods))
    monkeypatch.setattr("flows.asking.may_write", lambda engine: False)
    said = audioset("query", "--under", "Dog", "--sun", "day", "--home", made.home)
    assert "left out: 1 days of places, whose sun cannot be stored here" in said.err
    labels.engine.dispose()


@pytest.mark.parametrize("asked", [("similar", "a.wav"), ("redact", "--out", "x"),
                                   ("export", "sed-scores", "x")])  # fmt: skip
def test_where_the_sun_leaves_nothing_out_it_is_refused(
    audioset: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    asked: tuple[str, ...],
) -> None:
    """Otherwise copies of whole nights would pass for those of days."""
    monkeypatch.chdir(tmp_path)
    said = audioset(*asked, "--sun", "day", "--home", tmp_path)
    assert (said.code, said.out) == (2, "")
    assert said.err.startswith("audioset: --sun is not for ")
    assert not (tmp_path / "x").exists()
