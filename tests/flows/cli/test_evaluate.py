"""`audioset evaluate` on hand-made scores with known answers, and matching of names."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from audioset_core.evaluation.truth_files import Item
from tasks.evaluation.match_truth import match_items
from tests.flows.scored import Collection

Audioset = Callable[..., Any]
DOG, CAT, SPEECH, ANIMAL = "/m/0bt9lr", "/m/01yrx", "/m/09x0r", "/m/0jbk"

pytest.importorskip("sklearn", reason="needs the extra 'evaluate'")


@pytest.fixture
def four(collection: Collection) -> Collection:
    """Means of Dog 0.9, 0.8, 0.7, 0.1 and peaks the other way round but for the first."""
    for name, scores in {
        "a": [0.9, 0.9],
        "b": [0.8, 0.8],
        "c": [0.55, 0.85],
        "d": [0.01, 0.19],
    }.items():
        collection.add(f"/x/{name}.wav", {"Dog": scores, "Speech": [0.3, 0.3]})
    return collection


@pytest.fixture
def evaluate(audioset: Audioset, collection: Collection, tmp_path: Path) -> Audioset:
    """Evaluates a truth file of this text; what it said, and its JSON."""

    def run(text: str, *arguments: object) -> tuple[Any, Any]:
        path = tmp_path / "truth"
        path.write_text(text)
        command = ("evaluate", "--truth", path, "--home", collection.home, "--json", *arguments)
        said = audioset(*command)
        return said, json.loads(said.out) if said.out else None

    return run


def test_known_answers(evaluate: Audioset, four: Collection) -> None:
    """+ - + - by mean: AP = (1 + 2/3) / 2 and AUC 3/4; by peak + + - -: perfect."""
    truth = "file,label\na.wav,Dog\nb.wav,\nc.wav,Dog\nd.wav,\n"
    said, found = evaluate(truth)
    assert (said.code, said.err) == (0, "")
    (dog,) = found["classes"]
    assert (dog["name"], dog["n_positives"], dog["n_negatives"]) == ("Dog", 2, 2)
    assert (found["mean_ap"], found["auc"]) == (pytest.approx(5 / 6), pytest.approx(3 / 4))
    assert found["d_prime"] == pytest.approx(0.9538726, abs=1e-6)
    assert dog["best"]["f1"] == pytest.approx(0.8)
    low, high = found["intervals"]["mAP"]
    assert low < found["mean_ap"] <= high
    assert evaluate(truth)[1] == found
    _, by_peak = evaluate(truth, "--score", "peak", "--bootstrap", "0")
    assert (by_peak["mean_ap"], by_peak["auc"], by_peak["intervals"]) == (1.0, 1.0, {})


def test_scores_that_sql_does_not_keep_count(evaluate: Audioset, collection: Collection) -> None:
    """All below the floor of 0.1, and yet in order."""
    for name, score in {"a": 0.05, "b": 0.04, "c": 0.03}.items():
        collection.add(f"/x/{name}.wav", {"Dog": [score]})
    assert collection.rows("SELECT count(*) FROM clip_scores") == [(0,)]
    assert evaluate("file,label\na.wav,Dog\nb.wav,Dog\nc.wav,\n")[1]["auc"] == 1.0


def test_nothing_is_left_out_silently(evaluate: Audioset, four: Collection) -> None:
    four.add("/y/a.wav", {"Dog": [0.5]})
    four.files["/x/b.wav"].unlink()
    four.add("/x/short.wav", {})
    text = (
        "file,label,start_s,end_s\na.wav,Dog,,\nb.wav,,,\nc.wav,Dog,,\nd.wav,,,\nzz.wav,Dog,,\n"
        "short.wav,Dog,,\nc.wav,Kettle whistle,,\nd.wav,Dog,100,101\n"
    )
    said, found = evaluate(text)
    assert said.code == 1
    assert found["truth"] | {"left_out": 0} == {
        "n_items": 7,
        "n_unmatched": 1,
        "n_ambiguous": 1,
        "n_unscored": 2,
        "n_beyond": 0,
        "examples": ["a.wav", "zz.wav"],
        "left_out": 0,
        "unpredictable": [found["truth"]["unpredictable"][0]],
    }
    assert found["n_recordings_not_in_truth"] == 2
    assert [each["reason"] for each in found["failures"]] == ["no such file"]
    for line in (
        "1 truth entries match no labelled recording, such as a.wav, zz.wav",
        "1 truth entries match several recordings",
        "2 truth entries have no score in their span",
        "2 labelled recordings are not in the truth",
        "1 classes that the model cannot predict: Kettle whistle",
        "no such file",
    ):
        assert line in said.err


def test_a_class_is_its_subtree_or_its_own_output(
    evaluate: Audioset, collection: Collection
) -> None:
    collection.add("/x/dog.wav", {"Dog": [0.9], "Animal": [0.1]})
    collection.add("/x/car.wav", {"Animal": [0.2]})
    truth = "file,label\ndog.wav,Animal\ncar.wav,\n"
    assert evaluate(truth)[1]["auc"] == 1.0
    assert evaluate(truth, "--reach", "class")[1]["auc"] == 0.0


def test_zero_shot_by_the_ontology(evaluate: Audioset, collection: Collection) -> None:
    """An engine is any engine, but not the chainsaw that is a class of its own."""
    collection.add("/x/1-1-A-41.wav", {"Chainsaw": [0.9, 0.7], "Engine": [0.3, 0.3]})
    collection.add("/x/1-2-A-44.wav", {"Lawn mower": [0.8], "Chainsaw": [0.2]})
    collection.add("/x/1-3-A-0.wav", {"Bark": [0.1], "Chainsaw": [0.2]})
    text = (
        "filename,fold,target,category,esc10,src_file,take\n1-1-A-41.wav,1,41,chainsaw,,,\n"
        "1-2-A-44.wav,1,44,engine,,,\n1-3-A-0.wav,1,0,dog,,,\n1-4-A-0.wav,1,36,washing_machine,,,\n"
    )
    said, found = evaluate(text, "--format", "esc")
    assert found["zero_shot"] == pytest.approx(2 / 3)
    assert "1 recordings of ESC-50 classes that AudioSet lacks" in said.err
    # The dog comes first among barks, if only just.
    assert {each["name"]: each["auc"] for each in found["classes"]}["Dog"] == 1.0


def test_audiosets_own_files(evaluate: Audioset, collection: Collection) -> None:
    """A segment's file by its usual names, and a segment in the file of the whole video."""
    collection.add("/v/aaaaaaaaaaa_30000.flac", {"Dog": [0.9] * 20})
    collection.add("/v/Ybbbbbbbbbbb.wav", {"Dog": [0.2] * 20})
    # 10 to 20 s are loud.
    collection.add("/v/ccccccccccc.mp4", {"Dog": [0.01] * 20 + [0.8] * 22 + [0.01] * 20})
    text = (
        "# YTID, start_seconds, end_seconds, positive_labels\n"
        f'aaaaaaaaaaa, 30.000, 40.000, "{DOG}"\nbbbbbbbbbbb, 0.000, 10.000, "{SPEECH}"\n'
        f'ccccccccccc, 10.000, 20.000, "{DOG}"\n'
    )
    said, found = evaluate(text, "--format", "audioset-segments")
    assert said.err == ""
    dog = next(each for each in found["classes"] if each["mid"] == DOG)
    assert dog["auc"] == 1.0
    assert 0.2 < dog["best"]["threshold"] < 0.8


def test_strong_labels_by_the_second(evaluate: Audioset, collection: Collection) -> None:
    scores = [0.9 if 4 <= n <= 9 else 0.1 for n in range(20)]
    collection.add("/v/aaaaaaaaaaa_30000.wav", {"Dog": scores})
    text = (
        "segment_id\tstart_time_seconds\tend_time_seconds\tlabel\n"
        f"aaaaaaaaaaa_30000\t2.2\t4.8\t{DOG}\n"
    )
    strong = ("--format", "audioset-strong")
    _, found = evaluate(text, *strong, "--segment", "1")
    (dog,) = found["classes"]
    assert (dog["n_positives"], dog["n_negatives"], dog["auc"]) == (3, 7, 1.0)
    assert (found["n_items"], found["n_clips"], found["intervals"]) == (10, 1, {})
    assert evaluate(text, *strong)[1]["n_items"] == 1


def test_fsd50k_names_files_without_their_ending(
    evaluate: Audioset, collection: Collection
) -> None:
    collection.add("/f/64760.wav", {"Bark": [0.9]})
    collection.add("/f/16399.wav", {"Speech": [0.9]})
    text = f'fname,labels,mids\n64760,"Bark,Dog","/m/05tny_,{DOG}"\n16399,Speech,{SPEECH}\n'
    said, found = evaluate(text, "--format", "fsd50k")
    assert (said.err, found["mean_ap"]) == ("", 1.0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--score", "median"), "--score 'median': choose mean or peak"),
        (("--reach", "all"), "--reach 'all': choose class or subtree"),
        (("--model", "vggish"), "no labels by a model called 'vggish'"),
        (("--segment", "1"), "csv has none"),
    ],
)
def test_mistakes(
    evaluate: Audioset, four: Collection, arguments: tuple[str, ...], message: str
) -> None:
    said, _ = evaluate("file,label\na.wav,Dog\n", *arguments)
    assert (said.code, said.out) == (2, "")
    assert message in said.err


def test_a_truth_of_other_recordings_is_one_line(evaluate: Audioset, four: Collection) -> None:
    said, _ = evaluate("file,label\nq.wav,Dog\n")
    assert (said.code, said.out, said.err.count("\n")) == (2, "", 1)
    assert (
        "none of the 1 recordings of the truth is labelled by yamnet, such as 'q.wav'" in said.err
    )


def test_the_table_for_people(audioset: Audioset, four: Collection, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("file,label\na.wav,Dog\nb.wav,\nc.wav,Dog\nd.wav,\n")
    said = audioset("evaluate", "--truth", tmp_path / "t.csv", "--home", four.home)
    lines = said.out.splitlines()
    assert lines[0].split("\t")[:4] == ["class", "positives", "negatives", "AP"]
    assert lines[1].startswith("Dog\t2\t2\t0.833\t")
    assert "mAP\t0.833\t" in said.out
    assert "means over 1 of 1 classes" in said.out


class TestNames:
    NAMED = (
        (1, "a" * 64, b"/music/2024/one.wav", "field-7"),
        (1, "a" * 64, b"/copies/one.wav", None),
        (2, "b" * 64, b"/music/2025/one.wav", None),
        (3, "c" * 64, b"/music/2025/field-7.wav", None),
    )

    @pytest.mark.parametrize(
        ("key", "labelling"),
        [
            ("a" * 64, 1),
            ("field-7", 1),  # an id is surer than a file's name
            ("field-7.wav", 3),
            ("2024/one.wav", 1),
            ("./2025/../2025/one.wav", 2),
            ("/music/2025/one.wav", 2),
            ("copies\\one.wav", 1),
            ("one.wav", None),
            ("one", None),
            ("none.wav", None),
        ],
    )
    def test_what_a_name_means(self, key: str, labelling: int | None) -> None:
        matched = match_items([Item((key,), frozenset())], self.NAMED)
        assert [each for _, each in matched.pairs] == ([labelling] if labelling else [])
        assert matched.n_ambiguous == (1 if key in ("one.wav", "one") else 0)
        assert matched.n_unmatched == (1 if key == "none.wav" else 0)

    def test_the_first_name_that_is_found_counts(self) -> None:
        item = Item(("f" * 64, "/music/2025/one.wav", "field-7"), frozenset())
        ((_, labelling),) = match_items([item], self.NAMED).pairs
        assert labelling == 2
