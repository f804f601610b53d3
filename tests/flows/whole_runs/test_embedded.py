"""The whole way with the embedded model: what works on any machine, with nothing to download."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from audioset_core.demo_sounds import DEMO_SOUNDS, write_demo
from audioset_core.models.registry import POCKET, YAMNET
from flows.cli.commands import demo as commands_demo
from tests.flows.build import Lab, write_clip

Run = Callable[..., Any]


@pytest.fixture
def unreachable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No weights on this machine, and no network."""

    def stream(*_: object, **__: object) -> None:
        raise httpx.ConnectError("Name or service not known")

    monkeypatch.setattr(httpx, "stream", stream)
    monkeypatch.setenv("AUDIOSET_CACHE", str(tmp_path / "empty"))
    monkeypatch.delenv("AUDIOSET_ASSETS", raising=False)


@pytest.fixture
def labelled(lab: Lab, tmp_path: Path) -> Lab:
    """Three of the demo's sounds under the embedded model."""
    write_demo(tmp_path / "audio")
    for sound in DEMO_SOUNDS:
        if sound.file_name not in {"siren.wav", "silence.wav", "surf.ogg"}:
            (tmp_path / "audio" / sound.file_name).unlink()
    summary = lab.label(tmp_path / "audio", model="pocket", weights=None)
    assert (summary.n_labelled, summary.n_failed) == (3, 0)
    assert ("model", summary.model) in summary.rows()
    assert POCKET.caution in summary.model
    return lab


def test_labels_queries_and_verifies(labelled: Lab, audioset: Run) -> None:
    labelled.check()
    found = audioset(
        "query", "--under", "Silence", "--min-score", "0.5", "--json", "--home", labelled.home
    )
    assert [Path(hit["path_text"]).name for hit in json.loads(found.out)] == ["silence.wav"]
    assert audioset("verify", "--deep", "--home", labelled.home).code == 0


@pytest.mark.slow
def test_says_what_it_is_wherever_it_speaks(labelled: Lab, audioset: Run, tmp_path: Path) -> None:
    """By name and version: `models`, `show`, exports, the report."""
    ((version,),) = labelled.rows("SELECT version FROM models")
    home = ("--home", labelled.home)
    models = audioset("models", *home).out
    assert f"pocket: {POCKET.caution}" in models
    assert POCKET.title in audioset("models", "show", "pocket").out
    assert f"3 clips labelled with pocket@{version}" in models
    assert f"pocket {version}" in audioset("show", tmp_path / "audio" / "siren.wav", *home).out
    table = tmp_path / "out.csv"
    assert audioset("export", "csv", table, *home).code == 0
    assert f",pocket,{version}," in table.read_text()
    page = tmp_path / "report.html"
    assert audioset("report", "-o", page, *home).code == 0
    assert f"pocket {version}" in page.read_text()


@pytest.mark.slow
def test_stands_beside_another_model(labelled: Lab, audioset: Run, tmp_path: Path) -> None:
    """`diff yamnet pocket`; the placeholder stands for YAMNet's weights."""
    labelled.label(tmp_path / "audio")
    said = audioset("diff", "yamnet", "pocket", "--home", labelled.home)
    assert (said.code, said.err) == (0, "")
    assert "3 clips scored by both" in said.out


@pytest.mark.usefixtures("unreachable")
def test_label_names_three_ways_out_and_changes_no_model(audioset: Run, tmp_path: Path) -> None:
    write_clip(tmp_path / "a.wav", 1)
    said = audioset("label", tmp_path / "a.wav", "--home", tmp_path / "home")
    assert (said.code, said.out) == (2, "")
    last = said.err.strip().splitlines()[-1]
    assert last.startswith("audioset: cannot download https://")
    for way in ("--weights", "connect this machine", "--model pocket"):
        assert way in last


@pytest.mark.usefixtures("unreachable")
def test_the_demo_goes_on_with_pocket(capsys: pytest.CaptureFixture[str]) -> None:
    assert commands_demo.chosen_model() == "pocket"
    (_, line) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("cannot download https://")
    assert "The demo uses pocket instead" in line


@pytest.mark.slow
def test_the_demo_takes_yamnet_where_its_weights_are(
    monkeypatch: pytest.MonkeyPatch, placeholder: Path
) -> None:
    monkeypatch.setenv("AUDIOSET_WEIGHTS", str(placeholder))
    assert commands_demo.chosen_model() == YAMNET.name
