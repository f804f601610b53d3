"""`audioset verdicts`, and what `evaluate`, `thresholds fit` and `estimate` make of them."""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.flows.scored import Collection

Audioset = Callable[..., Any]
DOG, CAT, ANIMAL = "/m/0bt9lr", "/m/01yrx", "/m/0jbk"


@pytest.fixture
def run(audioset: Audioset, collection: Collection) -> Audioset:
    def command(*arguments: object) -> Any:
        return audioset(*arguments, "--home", collection.home)

    return command


@pytest.fixture
def four(collection: Collection) -> Collection:
    """Recordings of 1.92 s in two folders of the same names; two are called a.wav."""
    for name in ("x/a.wav", "x/b.wav", "y/a.wav", "y/d.wav"):
        collection.add(f"/{name}", {"Dog": [0.9, 0.2, 0.3], "Cat": [0.3, 0.4, 0.1]})
    return collection


def _now(collection: Collection) -> set[tuple[Any, ...]]:
    query = """SELECT path, name, start_s, end_s, verdict, judged_by FROM verdicts_now AS v
               JOIN clip_sources AS s ON s.clip = v.clip"""
    return set(collection.rows(query))


class TestImport:
    def test_what_cannot_be_used_is_told_and_the_rest_is_stored(
        self, run: Audioset, four: Collection, tmp_path: Path
    ) -> None:
        path = tmp_path / "marks.csv"
        path.write_text(
            "file,start_s,end_s,label\nx/a.wav,0,1,Dog\na.wav,0,1,Dog\nbb.wav,0,1,Dog\n"
            "b.wav,0,1.95,Cat\nb.wav,1,3,Cat\nb.wav,0,1,Catt\nb.wav,0,1,Catt\nb.wav,,,Cat\n"
        )
        said = run("verdicts", "import", path, "--by", "anna")
        assert said.code == 1
        assert said.out == f"{path} (table): 3 verdicts stored: 3 present\n"
        told = said.err.splitlines()
        assert told == [
            f"not used: {path}, line 7 and 1 more: no AudioSet class or category is called 'Catt'; "
            "did you mean 'Cat', 'Cart', 'Cat communication'?",
            f"not used: {path}, line 3: 'a.wav' may be any of 2 recordings: name it by its path",
            f"not used: {path}, line 4: no recording here is called 'bb.wav'; did you mean "
            "'b.wav' or 'd.wav'?",
            f"not used: {path}, line 6: 1 s to 3 s is outside 'b.wav', which ends at 1.92 s",
        ]  # fmt: skip
        assert _now(four) == {
            ("/x/a.wav", "Dog", 0.0, 1.0, "present", "anna"),
            ("/x/b.wav", "Cat", 0.0, 1.92, "present", "anna"),
            ("/x/b.wav", "Cat", None, None, "present", "anna"),
        }

    def test_the_same_file_again(self, run: Audioset, four: Collection, tmp_path: Path) -> None:
        path = tmp_path / "b.wav.txt"
        path.write_text("0\t1\tDog\n")
        assert run("verdicts", "import", path, "--by", "anna").code == 0
        said = run("verdicts", "import", path)
        assert (said.code, said.err) == (0, "")
        assert said.out == f"{path} (audacity): 0 verdicts stored, 1 known already: 1 present\n"
        assert len(_now(four)) == 1

    def test_a_correction_speaks_and_the_history_stays(
        self, run: Audioset, four: Collection, tmp_path: Path
    ) -> None:
        old, new = tmp_path / "old.csv", tmp_path / "new.csv"
        for path, verdict, at in ((new, "no", 2_000_000), (old, "yes", 1_000_000)):
            path.write_text(f"clip,label,verdict\nx/b.wav,Dog,{verdict}\n")
            os.utime(path, (at, at))
            assert run("verdicts", "import", path, "--by", "anna").code == 0
        assert {row[4] for row in _now(four)} == {"absent"}
        shown = run("verdicts", "show").out.splitlines()
        assert shown[1:] == ["Dog\tall\tabsent\tanna\t1970-01-24 03:33Z\tnew.csv, line 2\t/x/b.wav"]
        rows = json.loads(run("verdicts", "history", "--under", "Animal", "--json").out)
        assert [(r["verdict"], r["is_newest"]) for r in rows] == [
            ("present", False),
            ("absent", True),
        ]
        assert run("verdicts", "show", "--under", "Cat").err == "no such verdict\n"
        listed = json.loads(run("verdicts", "list", "--json").out)
        assert [(f["name"], f["n_present"], f["n_absent"]) for f in listed] == [
            (str(old), 1, 0), (str(new), 0, 1),
        ]  # fmt: skip

    def test_complete_files_say_what_is_absent(
        self, run: Audioset, four: Collection, tmp_path: Path
    ) -> None:
        folder = tmp_path / "labels"
        for name, text in {
            "x/a.wav": "0\t1\tDog\n",
            "x/b.wav": "",
            "y/d.wav": "0\t1\tCat\n",
        }.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / f"{name}.txt").write_text(text)
        assert run("verdicts", "import", folder, "--complete").code == 0
        assert {row[:5] for row in _now(four)} == {
            ("/x/a.wav", "Dog", 0.0, 1.0, "present"), ("/x/a.wav", "Cat", None, None, "absent"),
            ("/x/b.wav", "Dog", None, None, "absent"), ("/x/b.wav", "Cat", None, None, "absent"),
            ("/y/d.wav", "Cat", 0.0, 1.0, "present"), ("/y/d.wav", "Dog", None, None, "absent"),
        }  # fmt: skip

    def test_labels_of_ones_own(self, run: Audioset, four: Collection, tmp_path: Path) -> None:
        path = tmp_path / "t.csv"
        path.write_text("file,label\nb.wav,Felis catus\n")
        said = run("verdicts", "import", path, "--class", "felis catus=Cat")
        assert said.code == 0
        assert {row[1] for row in _now(four)} == {"Cat"}
        for option, message in (("Cat", "write LABEL=CLASS"), ("a=Catt", "did you mean 'Cat'")):
            said = run("verdicts", "import", path, "--class", option)
            assert said.code == 2
            assert message in said.err

    def test_files_that_cannot_be_read(
        self, run: Audioset, four: Collection, tmp_path: Path
    ) -> None:
        (tmp_path / "bad.json").write_text("[")
        (tmp_path / "good.csv").write_text("file,label\nb.wav,Cat\n")
        said = run("verdicts", "import", tmp_path / "bad.json", tmp_path / "good.csv")
        assert said.code == 1
        assert said.err.startswith(f"not read: {tmp_path}/bad.json is not JSON")
        assert len(_now(four)) == 1
        assert run("verdicts", "import", tmp_path / "bad.json").code == 2
        said = run("verdicts", "import", tmp_path / "none.csv")
        assert said.code == 2
        assert "there is no file" in said.err

    @pytest.mark.parametrize("format", ["csv", "raven", "audacity", "webvtt", "dcase", "parquet"])
    def test_every_export_comes_home(
        self, run: Audioset, four: Collection, tmp_path: Path, format: str
    ) -> None:
        """What is left in an export is what was exported: each detection a verdict."""
        if format == "parquet":
            pytest.importorskip("pyarrow")
        is_folder = format in ("raven", "audacity", "webvtt")
        out = tmp_path / ("out" if is_folder else f"out.{format}")
        assert run("export", format, out).code == 0
        said = run("verdicts", "import", out)
        assert said.code == 0
        heard = """SELECT path, name, start_s, end_s FROM detection_times AS d
                   JOIN clip_sources AS s ON s.clip = d.clip"""
        expected = {(p, n, round(a, 3), round(b, 3)) for p, n, a, b in four.rows(heard)}
        assert {row[:4] for row in _now(four)} == expected
        assert {row[4] for row in _now(four)} == {"present"}

    def test_a_label_studio_export_that_was_corrected(
        self, run: Audioset, four: Collection, tmp_path: Path
    ) -> None:
        out = tmp_path / "tasks.json"
        assert run("export", "label-studio", out).code == 0
        tasks = json.loads(out.read_text())
        for n, task in enumerate(tasks):
            result = task["predictions"][0]["result"]
            kept = [r for r in result if n != 0 or r["value"]["labels"] != ["Dog"]]
            task["annotations"] = [{"completed_by": 7, "result": kept}]
        out.write_text(json.dumps(tasks))
        assert run("verdicts", "import", out).code == 0
        said = {row[:2] + row[4:] for row in _now(four)}
        assert ("/x/a.wav", "Dog", "absent", "7") in said
        assert ("/x/a.wav", "Cat", "present", "7") in said
        assert ("/x/b.wav", "Dog", "present", "7") in said


class TestTruth:
    @pytest.fixture
    def judged(self, collection: Collection, run: Audioset, tmp_path: Path) -> Path:
        pytest.importorskip("sklearn", reason="needs the extra 'evaluate'")
        lines = ["clip,label,verdict"]
        for n in range(12):
            score = 0.05 + n * 0.08
            collection.add(f"/x/{n}.wav", {"Dog": [score, 0.02]})
            lines.append(f"{n}.wav,Dog,{'yes' if n >= 6 else 'no'}")
        lines.append("3.wav,Cat,unsure")
        path = tmp_path / "v.csv"
        path.write_text("\n".join(lines))
        return path

    def test_the_databases_verdicts_are_as_good_as_their_file(
        self, run: Audioset, judged: Path
    ) -> None:
        assert run("evaluate", "--truth", "verdicts").code == 2
        assert run("verdicts", "import", judged).code == 0
        from_file = json.loads(run("evaluate", "--truth", judged, "--json").out)
        said = run("evaluate", "--truth", "verdicts", "--json")
        from_database = json.loads(said.out)
        assert from_database["classes"] == from_file["classes"]
        assert from_database["auc"] == 1.0
        assert "1 verdicts that are unsure" in said.err
        fitted = json.loads(
            run("thresholds", "fit", "--truth", "verdicts", "--name", "a", "--json").out
        )
        other = json.loads(run("thresholds", "fit", "--truth", judged, "--name", "b", "--json").out)
        assert fitted["thresholds"] == other["thresholds"]
        assert re.fullmatch("[0-9a-f]{64}", fitted["how"]["truth_sha256"])

    def test_people_who_contradict_each_other(
        self, run: Audioset, judged: Path, tmp_path: Path
    ) -> None:
        assert run("verdicts", "import", judged, "--by", "anna").code == 0
        other = tmp_path / "other.csv"
        other.write_text("clip,label,verdict\n11.wav,Dog,no\n10.wav,Dog,yes\n")
        assert run("verdicts", "import", other, "--by", "bo").code == 0
        said = run("evaluate", "--truth", "verdicts", "--json")
        (dog,) = json.loads(said.out)["classes"]
        assert (dog["n_positives"], dog["n_negatives"]) == (5, 6)
        assert "1 verdicts that contradict each other" in said.err

    @pytest.mark.parametrize("kind", ["folder", "raven", "label-studio"])
    def test_marks_are_truth_of_whole_recordings(
        self, run: Audioset, judged: Path, tmp_path: Path, kind: str
    ) -> None:
        truth = tmp_path / "truth"
        if kind == "folder":
            truth.mkdir()
            for n in range(12):
                (truth / f"{n}.wav.txt").write_text("0.1\t0.9\tDog\n" if n >= 6 else "")
        elif kind == "raven":
            rows = [f"{n}\tS 1\t1\t0.1\t0.9\t{n}.wav\tDog" for n in range(6, 12)]
            rows += [f"{n}\tS 1\t1\t0.1\t0.9\t{n}.wav\tRain" for n in range(6)]
            head = "Selection\tView\tChannel\tBegin Time (s)\tEnd Time (s)\tBegin File\tAnnotation"
            truth.write_text("\n".join([head, *rows]))
        else:
            value = {"start": 0.1, "end": 0.9}
            tasks = [
                {"data": {"audio": f"/data/local-files/?d={n}.wav"},
                 "annotations": [
                     {"result": [{"value": {**value, "labels": ["Dog" if n >= 6 else "Rain"]}}]}
                 ]}
                for n in range(12)
            ]  # fmt: skip
            truth.write_text(json.dumps(tasks))
        found = json.loads(run("evaluate", "--truth", truth, "--json").out)
        dog = next(each for each in found["classes"] if each["name"] == "Dog")
        assert (dog["n_positives"], dog["n_negatives"], dog["auc"]) == (6, 6, 1.0)


def _page(path: Path) -> dict[str, Any]:
    data = re.search(
        r'<script type="application/json" id="data">(.*?)</script>', path.read_text(), re.DOTALL
    )
    assert data is not None
    found: dict[str, Any] = json.loads(data[1])
    return found


def _judge(page: dict[str, Any], is_true: Callable[[dict[str, Any]], bool]) -> str:
    """What the page would save (tests/flows/pages/test_pages.py reads it from a browser)."""
    text = io.StringIO()
    rows = csv.writer(text)
    rows.writerow(page["columns"])
    for item in page["items"]:
        verdict = "yes" if is_true(item) else "no"
        for node in ({}, page["root"]) if item["mid"] != page["root"]["mid"] else ({},):
            row = {**item, **node, "verdict": verdict, "reviewed_at": "2026-05-02T10:00:00Z"}
            rows.writerow([row[name] for name in page["columns"]])
    return text.getvalue()


class TestReviewAndEstimate:
    @pytest.fixture
    def animals(self, collection: Collection) -> Collection:
        """True where the score is over a half; 30 dogs, 20 cats, 4 frogs."""
        for name, n_clips in (("Dog", 30), ("Cat", 20), ("Frog", 4)):
            for n in range(n_clips):
                score = 0.12 + 0.85 * n / n_clips
                collection.add(f"/{name}/{n}.wav", {name: [score] * 3})
        return collection

    def test_from_the_page_to_the_estimate(
        self, run: Audioset, animals: Collection, tmp_path: Path
    ) -> None:
        out = tmp_path / "r.html"
        asked = ("review", "--under", "Animal", "--sample", "40", "--per-class", "20", "-o", out)
        said = run(*asked)
        assert (said.code, said.out) == (0, f"{out}\n")
        assert said.err.splitlines() == [
            "asked about: Animal (20 clips), Dog (20 clips); a threshold can be fitted where at "
            "least 5 are judged yes and one no",
            "asked about as 'Animal' only, so without a threshold of their own: 2 classes (Cat, "
            "Frog); to ask about each, --sample 60 or a class further down",
        ]  # fmt: skip
        nothing = run("estimate", "--under", "Animal")
        assert nothing.code == 2
        assert (
            "has a verdict yet: save the page's CSV, and audioset verdicts import it" in nothing.err
        )
        verdicts = tmp_path / "verdicts.csv"
        verdicts.write_text(_judge(_page(out), lambda item: item["score"] > 0.5))
        assert run("verdicts", "import", verdicts).code == 0
        said = run("estimate", "--under", "Animal", "--json")
        found = json.loads(said.out)
        assert (found["n_clips"], found["n_drawn"], found["n_judged"]) == (54, 40, 40)
        true = sum(0.12 + 0.85 * n / k > 0.5 for k in (30, 20, 4) for n in range(k))
        assert found["clips"]["low"] <= true <= found["clips"]["high"]
        assert abs(found["clips"]["estimate"] - true) < 4
        # Each recording is heard to its end.
        assert found["detected_hours"] == pytest.approx(54 * 1.92 / 3600)
        assert found["hours"]["estimate"] == pytest.approx(
            found["clips"]["estimate"] * 1.92 / 3600, rel=1e-6
        )
        precision = found["precision"]
        assert [round(p["min_score"], 2) for p in precision] == [0.1, 0.28, 0.46, 0.64, 0.82]
        assert precision[-1]["estimate"] == 1.0
        assert precision[0]["estimate"] < precision[1]["estimate"] < precision[2]["estimate"] < 1
        assert "not counted: clips whose score is below 0.1" in said.err
        table = run("estimate", "--under", "Animal").out
        assert table.startswith("Animal: 54 clips of score 0.1 or above on ")
        assert "\nscore from\tclips\tprecision\t95 %\tjudged\n0.10\t54\t" in table
        # The verdicts are of the dogs as well, and good enough for a fit.
        pytest.importorskip("sklearn", reason="needs the extra 'evaluate'")
        fitted = json.loads(
            run("thresholds", "fit", "--truth", "verdicts", "--name", "a", "--json").out
        )
        assert 0.3 < fitted["thresholds"][DOG][0] <= 0.55

    def test_what_was_not_judged_is_told(
        self, run: Audioset, animals: Collection, tmp_path: Path
    ) -> None:
        out, verdicts = tmp_path / "r.html", tmp_path / "v.csv"
        assert run("review", "--under", "Animal", "--sample", "20", "-o", out).code == 0
        page = _page(out)
        page["items"] = [item for item in page["items"] if item["score"] < 0.6]
        verdicts.write_text(_judge(page, lambda item: True))
        assert run("verdicts", "import", verdicts).code == 0
        said = run("estimate", "--under", "Animal")
        assert "clips of the sample have no clear verdict: left out" in said.err
        assert "they are taken to be like the others" in said.err
        assert "\t-\t\t0\n" in said.out

    def test_other_questions(self, run: Audioset, animals: Collection, tmp_path: Path) -> None:
        out = tmp_path / "r.html"
        said = run("estimate", "--under", "Dog")
        assert said.code == 2
        assert "there is no review of 'Dog': audioset review --under 'Dog' draws" in said.err
        asked = ("review", "--under", "Animal", "--source", "Frog", "-o", out, "--min-score", "0.3")
        said = run(*asked)
        assert said.code == 0
        assert said.err.splitlines() == [
            "only 3 clips reach 0.3: all of them are on the page",
            "too few clips to fit a threshold: Frog (3 clips)",
        ]
        assert {item["name"] for item in _page(out)["items"]} == {"Frog"}
        said = run("review", "--under", "Animal", "--source", "Cow", "-o", out)
        assert said.code == 2
        assert "no clip has 'Animal' at 0.1 or above, with all that is asked" in said.err
        said = run("review", "--under", "Animal", "--min-score", "0.05", "-o", out)
        assert said.code == 2
        assert "below 0.1 are not stored" in said.err
