"""`audioset thresholds` and `query --threshold-set` on hand-made scores."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.flows.scored import Collection

Audioset = Callable[..., Any]
QUIET = 0.01


@pytest.fixture
def barks(collection: Collection) -> Collection:
    """A swell of barks; a bark too faint; two barks with 0.96 s of silence between; no patch."""
    collection.add("/a/swell.wav", {"Dog": [0.2, 0.4, 0.7, 0.4, 0.2, QUIET], "Bark": [0.1] * 6})
    collection.add("/a/faint.wav", {"Dog": [0.4, 0.4, QUIET]})
    collection.add("/a/two.wav", {"Dog": [0.8, QUIET, QUIET, QUIET, 0.6], "Speech": [0.9] * 5})
    collection.add("/a/short.wav", {})
    return collection


def table(tmp_path: Path, *lines: str) -> Path:
    path = tmp_path / "thresholds.csv"
    header = "mid,name,high,low,min_duration_s,merge_gap_s,model"
    path.write_text("\n".join([header, *lines]) + "\n")
    return path


@pytest.fixture
def run(audioset: Audioset, collection: Collection) -> Audioset:
    return lambda *arguments: audioset(*arguments, "--home", collection.home)


@pytest.fixture
def dogs(run: Audioset, barks: Collection, tmp_path: Path) -> Collection:
    path = table(tmp_path, "*,,,,0,0.5,yamnet", ",dog,0.5,0.3,,,")
    assert run("thresholds", "import", path, "--name", "dogs").code == 0
    return barks


INTERVALS = "SELECT path, i.name, start_s, end_s FROM interval_times i JOIN clip_sources s ON i.clip = s.clip ORDER BY path, start_s"  # noqa: E501


def test_intervals_follow_from_the_stored_scores(run: Audioset, dogs: Collection) -> None:
    said = run("thresholds", "apply", "dogs")
    assert (said.code, said.out) == (0, "dogs@1: 3 intervals in 4 clips\n")
    near = pytest.approx
    assert dogs.rows(INTERVALS) == [
        ("/a/swell.wav", "Dog", near(0.48), near(2.4)),
        ("/a/two.wav", "Dog", near(0.0), near(0.96)),
        ("/a/two.wav", "Dog", near(1.92), near(2.88)),
    ]
    assert run("thresholds", "apply", "dogs").out == "dogs@1: 0 intervals in 0 clips\n"
    assert len(dogs.rows(INTERVALS)) == 3


def test_a_longer_gap_makes_one_of_two(run: Audioset, dogs: Collection, tmp_path: Path) -> None:
    path = table(tmp_path, "*,,,,1.5,1,yamnet", ",dog,0.5,0.3,,,")
    assert run("thresholds", "import", path, "--name", "dogs").out == "dogs@2: 1 classes\n"
    run("thresholds", "apply", "dogs")
    run("thresholds", "apply", "dogs@1")
    longer = dogs.rows(INTERVALS.replace("ORDER", "WHERE set_version = 2 ORDER"))
    assert [row[2:] for row in longer] == [
        (pytest.approx(0.48), pytest.approx(2.4)),
        (pytest.approx(0.0), pytest.approx(2.88)),
    ]
    assert len(dogs.rows("SELECT * FROM detections")) > 0


def test_a_query_by_a_set(run: Audioset, dogs: Collection) -> None:
    ask = ("query", "--under", "Animal", "--threshold-set", "dogs", "--json")
    before = run(*ask)
    assert (json.loads(before.out), before.code) == ([], 0)
    assert "4 clips are not included yet: audioset thresholds apply dogs@1" in before.err
    run("thresholds", "apply", "dogs")
    said = run(*ask)
    assert said.err == ""
    hits = json.loads(said.out)
    assert [(hit["path_text"], hit["score"]) for hit in hits] == [
        ("/a/two.wav", 0.8),
        ("/a/swell.wav", 0.7),
    ]
    assert (hits[1]["start_s"], hits[1]["end_s"]) == (pytest.approx(0.48), pytest.approx(2.4))
    assert len(json.loads(run(*ask, "--limit", "1").out)) == 1
    other = run(*ask, "--model", "yamnet@hand")
    assert other.code == 2
    assert "dogs@1 is for yamnet" in other.err


def test_a_bad_score_file_is_named_and_the_rest_goes_on(run: Audioset, dogs: Collection) -> None:
    dogs.files["/a/swell.wav"].unlink()
    data = bytearray(dogs.files["/a/faint.wav"].read_bytes())
    data[-1] ^= 1
    dogs.files["/a/faint.wav"].write_bytes(data)
    said = run("thresholds", "apply", "dogs", "--json")
    found = json.loads(said.out)
    assert said.code == 1
    assert (found["n_clips"], found["n_intervals"]) == (2, 2)
    reasons = {Path(each["file"]).name: each["reason"] for each in found["failures"]}
    assert reasons[dogs.files["/a/swell.wav"].name] == "no such file"
    assert "SHA-256" in reasons[dogs.files["/a/faint.wav"].name]
    # Told again until it is put right.
    assert run("thresholds", "apply", "dogs").code == 1
    data[-1] ^= 1
    dogs.files["/a/faint.wav"].write_bytes(data)
    assert len(json.loads(run("thresholds", "apply", "dogs", "--json").out)["failures"]) == 1


def test_a_killed_apply_goes_on(
    run: Audioset, dogs: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tasks.evaluation.derive_intervals as module

    monkeypatch.setattr(module, "_BATCH_CLIPS", 1)
    whole, calls = module.commit_intervals, []

    def dying(*arguments: Any) -> int:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return whole(*arguments)

    monkeypatch.setattr(module, "commit_intervals", dying)
    assert run("thresholds", "apply", "dogs").code == 130
    assert dogs.rows("SELECT count(*) FROM derivations") == [(2,)]
    assert run("thresholds", "apply", "dogs").out.endswith("in 2 clips\n")
    assert len(dogs.rows(INTERVALS)) == 3


def test_a_folder_that_is_not_mounted_is_one_line(run: Audioset, dogs: Collection) -> None:
    (dogs.home / "scores").rename(dogs.home / "elsewhere")
    said = run("thresholds", "apply", "dogs")
    assert (said.code, said.out) == (2, "")
    assert "is its disk mounted" in said.err


def test_export_and_import_give_the_same_set(
    run: Audioset, dogs: Collection, tmp_path: Path
) -> None:
    exported = run("thresholds", "export", "dogs").out
    rows = list(csv.DictReader(io.StringIO(exported)))
    assert [(row["mid"], row["name"], row["high"], row["low"]) for row in rows] == [
        ("*", "every other class", "", ""),
        ("/m/0bt9lr", "Dog", "0.5", "0.3"),
    ]
    (tmp_path / "again.csv").write_text(exported)
    said = run("thresholds", "import", tmp_path / "again.csv", "--name", "dogs")
    assert said.out == "dogs@1: 1 classes\n"


def test_list_show_and_remove(run: Audioset, dogs: Collection) -> None:
    run("thresholds", "apply", "dogs")
    (listed,) = json.loads(run("thresholds", "list", "--json").out)
    assert (listed["name"], listed["n_derived"], listed["n_intervals"]) == ("dogs", 4, 3)
    assert "dogs@1\tyamnet\t1\t4\t3" in run("thresholds", "list").out
    shown = run("thresholds", "show", "dogs")
    assert "Dog\t/m/0bt9lr\t0.5\t0.3" in shown.out
    described = json.loads(run("thresholds", "show", "dogs", "--json").out)
    assert (described["merge_gap_s"], described["default"]) == (0.5, None)
    assert run("thresholds", "remove", "dogs").code == 2
    assert run("thresholds", "remove", "dogs@1").code == 0
    assert dogs.rows(INTERVALS) == []
    gone = run("thresholds", "apply", "dogs")
    assert (gone.code, gone.out) == (2, "")
    assert "no set of thresholds is called 'dogs'" in gone.err


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (",dogg,0.5,0.3,,,", "line 2: no AudioSet class or category is called 'dogg'; did you"),
        (",dog,0.3,0.5,,,", "line 2: thresholds high 0.3 and low 0.5"),
        (",dog,high,0.5,,,", "line 2: the high 'high' is not a number"),
        (",dog,0.3,0.2,,,\n,dog,0.3,0.2,,,", "line 3: /m/0bt9lr (Dog) is listed twice"),
        ("*,,,,-1,,", "min_duration_s -1"),
    ],
)
def test_mistakes_in_a_table(
    run: Audioset, collection: Collection, tmp_path: Path, line: str, message: str
) -> None:
    said = run("thresholds", "import", table(tmp_path, line), "--name", "x")
    assert (said.code, said.out) == (2, "")
    assert message in said.err
    assert said.err.count("\n") == 1


class TestFit:
    @pytest.fixture(autouse=True)
    def _sklearn(self) -> None:
        pytest.importorskip("sklearn", reason="needs the extra 'evaluate'")

    def test_from_a_review(self, run: Audioset, collection: Collection, tmp_path: Path) -> None:
        """Of one recording, spans are judged: barks from 0.6 on, what is below is none."""
        peaks = [0.9, 0.4, 0.6, 0.5, 0.8, 0.3, 0.7, 0.2]
        spread = [p for peak in peaks for p in (peak, QUIET, QUIET, QUIET)]
        clip = collection.add("/a/long.wav", {"Dog": spread, "Cat": spread})
        lines = ["clip,path,start_s,end_s,mid,name,score,verdict,reviewed_at"]
        for n, peak in enumerate(peaks):
            start_s = n * 4 * 0.48
            verdict = "yes" if peak >= 0.6 else "no"
            row = f"{clip},/a/long.wav,{start_s:.2f},{start_s + 0.96:.2f}"
            lines.append(f"{row},/m/0bt9lr,Dog,{peak},{verdict},2026-01-01")
            lines.append(f"{row},/m/01yrx,Cat,{peak},{'yes' if n == 0 else 'unsure'},2026-01-01")
        (tmp_path / "review.csv").write_text("\n".join(lines))
        said = run(
            "thresholds", "fit", "--truth", tmp_path / "review.csv", "--name", "mine",
            "--min-positives", "3", "--json",
        )  # fmt: skip
        assert said.code == 0
        found = json.loads(said.out)
        assert found["thresholds"] == {"/m/0bt9lr": [pytest.approx(0.55), pytest.approx(0.275)]}
        dog = found["how"]["classes"]["/m/0bt9lr"]
        assert (dog["positives"], dog["negatives"], dog["f1"]) == (4, 4, 1.0)
        assert "not fitted: 1 classes with under 3 positives: Cat" in said.err
        assert "left out: 7 verdicts that are unsure" in said.err
        run("thresholds", "apply", "mine")
        assert collection.rows("SELECT count(*) FROM intervals") == [(4,)]
        how = json.loads(run("thresholds", "show", "mine", "--json").out)["how"]
        assert (how["by"], how["format"], how["items"]) == ("fit", "csv", 8)

    def test_too_little_to_fit_is_one_line(
        self, run: Audioset, barks: Collection, tmp_path: Path
    ) -> None:
        (tmp_path / "truth.csv").write_text("file,label\nswell.wav,Dog\n")
        said = run("thresholds", "fit", "--truth", tmp_path / "truth.csv", "--name", "x")
        assert (said.code, said.out) == (2, "")
        assert "no class could be fitted (under 5 positives)" in said.err
