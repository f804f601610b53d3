"""`audioset classes`, and every command that must know a class of one's own."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from audioset_core.ontology.graph import load_default
from db.catalog.own_classes import OwnClass
from flows.analysis.dataframes import open_labels
from tests.flows.collection import Collection, make_collection

TOOL = load_default().find("Power tool").mid
SAW = OwnClass("x:wood-saw", "Wood saw", (TOOL,), "A saw that cuts wood.")


@pytest.fixture
def home(tables: Path, tmp_path: Path) -> Path:
    """A home without labels."""
    home = tmp_path / "home"
    home.mkdir()
    (home / "labels.db").write_bytes(tables.read_bytes())
    return home


@pytest.fixture
def sawing(tmp_path: Path) -> Iterator[Collection]:
    """Recordings labelled by a model that predicts Wood saw."""
    made = make_collection(tmp_path / "home", ("a.wav", "b.wav"), own=(SAW,))
    yield made
    made.engine.dispose()


@pytest.mark.slow
def test_a_class_is_added_changed_and_removed(audioset: Callable[..., Any], home: Path) -> None:
    at = ("--home", home)
    added = audioset("classes", "add", " Wood  saw", "--under", "power tool", *at)
    assert (added.code, added.err) == (0, "")
    assert added.out == "Wood saw (x:wood-saw): added below Power tool\n"
    again = audioset("classes", "add", "wood saw", "--under", TOOL, *at)
    assert (again.code, again.out) == (
        0,
        "wood saw (x:wood-saw): is there already, below Power tool\n",
    )
    moved = audioset("classes", "change", "Wood saw", "--under", "Sawing", "--under", "Tools", *at)
    assert (moved.code, moved.out) == (0, "x:wood-saw: changed\n")
    assert json.loads(audioset("classes", "list", "--json", *at).out) == [
        {
            "mid": "x:wood-saw", "name": "Wood saw", "description": None,
            "below": ["Sawing", "Tools"], "n_present": 0, "n_absent": 0, "n_clips": 0,
        }
    ]  # fmt: skip
    assert "  Wood saw (-)" in audioset("ontology", "tree", "Sawing", *at).out
    assert audioset("classes", "remove", "Tools/wood saw", *at).out == "x:wood-saw: removed\n"
    listed = audioset("classes", "list", *at)
    assert "no classes of your own yet" in listed.err
    assert audioset("ontology", "show", "Wood saw", *at).code == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("add", "Wood saw", "--under", "Powr tool"), "did you mean 'Power tool'"),
        (("add", "dog", "--under", "Tools"), "'dog' is there already: /m/0bt9lr, Animal/Domestic"),
        (("add", "x:saw", "--under", "Tools"), "'x:saw' would be taken for a MID"),
        (
            ("add", "Tools/Wood saw", "--under", "Tools"),
            "'Tools/Wood saw' would be taken for a path",
        ),
        (("add", "...", "--under", "Tools"), "'...' needs a letter or a digit"),
        (("add", " ", "--under", "Tools"), "has 1 to 100 characters, not 0"),
        (("add", "a\x1b[2J", "--under", "Tools"), r"'a\x1b[2J' has characters that cannot be"),
        (("add", "Wood saw"), "Missing option '--under'"),
        (("change", "Dog", "--under", "Tools"), "'Dog' (/m/0bt9lr) is a class of AudioSet"),
        (("change", "Dog"), "say what to change: --under or --description"),
        (("remove", "Wood saw"), "no AudioSet class or category is called 'Wood saw'"),
    ],
)
def test_mistakes_are_one_line(
    audioset: Callable[..., Any], home: Path, arguments: tuple[str, ...], message: str
) -> None:
    said = audioset("classes", *arguments, "--home", home)
    assert (said.code, said.out) == (2, "")
    assert message in said.err
    assert "Traceback" not in said.err


@pytest.mark.slow
def test_a_new_home_gets_the_ontology_and_a_mistake_makes_none(
    audioset: Callable[..., Any], tmp_path: Path
) -> None:
    home = tmp_path / "new"
    assert audioset("classes", "add", "Dog", "--under", "Tools", "--home", home).code == 2
    assert not home.exists()
    assert audioset("classes", "add", "Wood saw", "--under", "Tools", "--home", home).code == 0
    assert "Wood saw" in audioset("ontology", "search", "saw", "--home", home).out
    official = tmp_path / "ontology.json"
    node = {"id": "x:mine", "name": "Mine", "child_ids": [], "restrictions": []}
    official.write_text(json.dumps([node]))
    refused = audioset("ontology", "load", official, "--home", home)
    assert refused.code == 2
    assert "has the id 'x:mine': such ids are of audioset classes add" in refused.err
    official.write_text(json.dumps([{**node, "id": "/m/07k1x", "name": "Tools"}]))
    assert audioset("ontology", "load", official, "--home", home).code == 0
    assert audioset("verify", "--home", home).code == 0
    (own,) = json.loads(audioset("classes", "list", "--json", "--home", home).out)
    assert own["below"] == ["Tools"]
    asked = audioset("query", "--under", "Wood saw", "--home", home)
    assert (asked.code, "nothing is labelled yet: run audioset label first" in asked.err) == (
        2,
        True,
    )


@pytest.mark.slow
def test_every_question_knows_an_own_class(
    audioset: Callable[..., Any], sawing: Collection, tmp_path: Path
) -> None:
    at = ("--home", sawing.home)
    names = {"Tools/Power tool/wood saw", "Power tool", "x:wood-saw"}
    for name in names:
        hits = json.loads(
            audioset("query", "--under", name, "--min-score", "0.1", "--json", *at).out
        )
        assert {hit["mid"] for hit in hits} == {"x:wood-saw"}, name
    asked = ("--under", "Tools", "--min-score", "0.1")
    for command in (
        ("query", "--all-of", "Wood saw", "--not-under", "Siren", "--min-score", "0.99"),
        ("hours", "--by", "class", *asked),
        ("hours", "--by", "class", "--exact", *asked),
        ("rank", "--under", "Wood saw"),
        ("curve", "--under", "Wood saw", "--json"),
        ("export", "csv", "-", "--under", "Tools"),
        ("export", "csv", "-", "--under", "Wood saw", "--not-under", "Power tool/Drill"),
        ("ontology", "show", "Wood saw"),
        ("ontology", "search", "cuts wood"),
        ("ontology", "missing", "Power tool"),
    ):
        said = audioset(*command, *at)
        assert said.code == 0, (command, said.err)
        assert "Wood saw" in said.out + said.err, command
    for model in ("yamnet", "yamnet@1"):
        said = audioset("query", "--under", "Drill", "--model", model, *at)
        assert (said.code, f"{model} cannot predict 'Drill'" in said.err) == (2, True)
    sed = tmp_path / "sed"
    assert audioset("export", "sed-scores", sed, "--under", "Tools", *at).code == 0
    assert (sed / "a.tsv").read_text().splitlines()[0] == "onset\toffset\tWood saw"
    for page in (("report", "--min-score", "0.1"), ("review", "--under", "Power tool")):
        out = tmp_path / "page.html"
        assert audioset(*page, "--out", out, *at).code == 0
        assert "Wood saw" in out.read_text()
    labels = open_labels(sawing.home)
    assert set(labels.clips("Tools", min_score=0.1)["name"]) == {"Wood saw"}
    assert list(labels.hours("class", "Wood saw", min_score=0.1)["what"]) == ["Wood saw"]
    labels.engine.dispose()


@pytest.mark.slow
def test_verdicts_and_thresholds_of_an_own_class_keep_it(
    audioset: Callable[..., Any], sawing: Collection, tmp_path: Path
) -> None:
    at = ("--home", sawing.home)
    judged = tmp_path / "judged.csv"
    judged.write_text("path,class,verdict\n/audio/a.wav,Wood saw,yes\n/audio/b.wav,wood saw,no\n")
    assert audioset("verdicts", "import", judged, "--by", "ann", *at).code == 0
    shown = json.loads(audioset("verdicts", "show", "--under", "Tools", "--json", *at).out)
    assert [each["mid"] for each in shown] == ["x:wood-saw"] * 2
    (own,) = json.loads(audioset("classes", "list", "--json", *at).out)
    assert (own["n_present"], own["n_absent"], own["n_clips"]) == (1, 1, 2)
    measured = json.loads(
        audioset("evaluate", "--truth", "verdicts", "--bootstrap", "0", "--json", *at).out
    )
    assert "Wood saw" in {each["name"] for each in measured["classes"]}
    fit = ("thresholds", "fit", "--truth", "verdicts", "--name", "mine", "--min-positives", "1")
    fitted = audioset(*fit, *at)
    assert (fitted.code, "Wood saw" in fitted.out) == (0, True)
    exported = audioset("thresholds", "export", "mine", *at).out
    assert "\nx:wood-saw,Wood saw," in exported.replace("\r", "")
    again = tmp_path / "mine.csv"
    again.write_text(exported.replace("x:wood-saw", ""))
    assert audioset("thresholds", "import", again, "--name", "other", *at).code == 0
    held = audioset("classes", "remove", "Wood saw", *at)
    counts = "labelled clips: 2, outputs of models: 1, verdicts: 2, thresholds: 2"
    assert (held.code, counts in held.err) == (2, True)
