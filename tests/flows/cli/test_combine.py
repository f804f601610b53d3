"""`audioset combine` on hand-made scores of two models."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from audioset_core.models.classes import load_categories
from audioset_core.models.registry import YAMNET
from audioset_core.scores.pooling import pool, sigmoid
from audioset_core.storage.score_files import new_file, npy_bytes, read_scores
from db.catalog.model_registry import register_model, register_parameters
from db.ledger.claims import claim_clip, commit_labellings
from db.records import Claim, Clip, Labelling, Lease, Model, Parameters, Variant
from tests.flows.build import REPOSITORY
from tests.flows.scored import INDEX, NOW, RUN, Collection

Audioset = Callable[..., Any]
CLASSES = load_categories("audioset527")
QUIET = -12.0
COLUMNS = {category.name: category.index for category in CLASSES}


@dataclass(slots=True)
class Both:
    """A collection labelled by YAMNet, to which labels by a second model are added."""

    collection: Collection
    variant: Variant

    def add(
        self,
        path: str,
        yamnet: Mapping[str, Sequence[float]],
        mn10: Mapping[str, Sequence[float]] | None,
    ) -> str:
        """A recording with these scores; None: the second model has not labelled it."""
        clip = self.collection.add(path, yamnet)
        if mn10 is not None:
            self.add_mn10(path, clip, mn10)
        return clip

    def add_mn10(self, path: str, clip_sha256: str, scores: Mapping[str, Sequence[float]]) -> None:
        engine, home = self.collection.engine, self.collection.home
        logits = np.full((max(map(len, scores.values()), default=0), len(CLASSES)), QUIET, "f2")
        for name, own in scores.items():
            values = np.array(own)
            logits[:, COLUMNS[name]] = np.log(values / (1 - values))
        file = new_file(logits, "mn10", clip_sha256)
        (home / file.path).parent.mkdir(parents=True, exist_ok=True)
        (home / file.path).write_bytes(npy_bytes(logits))
        self.collection.files[f"mn10 {path}"] = home / file.path
        ((source_id,),) = self.rows(f"SELECT id FROM sources WHERE path_text = '{path}'")
        duration_s = self.duration_s(clip_sha256)
        clip = Clip(clip_sha256, 9, duration_s, 16_000, 1, round(duration_s * 16_000), "wav")
        claim = claim_clip(engine, source_id, clip, self.variant, Lease(RUN, 60.0, NOW))
        assert isinstance(claim, Claim)
        pooled = pool(logits, floor=0.1, threshold=0.1)
        n = len(logits)
        row = Labelling(
            claim, clip, n, file.path if n else None, file.sha256 if n else None,
            "float16" if n else None, class_scores=pooled.class_scores,
            detections=pooled.detections,
        )  # fmt: skip
        assert commit_labellings(engine, self.variant, [row], RUN, NOW) == [True]

    def duration_s(self, clip: str) -> float:
        return float(self.rows(f"SELECT duration_s FROM clips WHERE sha256 = '{clip}'")[0][0])

    def rows(self, query: str) -> list[Any]:
        return self.collection.rows(query)

    def scores(self, clip: str, name: str = "both") -> Any:
        """The combined file of a clip."""
        (row,) = self.rows(
            "SELECT l.scores_path FROM labellings l JOIN clips c ON c.id = l.clip_id JOIN models m "
            f"ON m.id = l.model_id WHERE m.name = '{name}' AND c.sha256 = '{clip}'"
        )
        return read_scores(self.collection.home / row[0])

    def results(self) -> list[Any]:
        return self.rows(
            "SELECT c.sha256, l.scores_path, l.n_patches, l.is_current, "
            "(SELECT count(*) FROM clip_scores s WHERE s.labelling_id = l.id), "
            "(SELECT count(*) FROM detections d WHERE d.labelling_id = l.id) "
            "FROM labellings l JOIN clips c ON c.id = l.clip_id JOIN models m ON m.id = l.model_id "
            "WHERE m.name = 'both' AND l.status = 'done' ORDER BY 1"
        )


@pytest.fixture
def both(collection: Collection) -> Both:
    categories = tuple((c.index, c.mid, c.name) for c in CLASSES)
    model = Model("mn10", "hand", "d" * 64, 32_000, 10.0, 960, categories)
    variant = Variant(
        register_model(collection.engine, model, NOW),
        register_parameters(collection.engine, Parameters(7.5, 0.1, 0.1)),
    )
    return Both(collection, variant)


@pytest.fixture
def run(audioset: Audioset, collection: Collection) -> Audioset:
    return lambda *arguments: audioset(*arguments, "--home", collection.home)


def logit(score: float) -> float:
    return float(np.log(score / (1 - score)))


@pytest.fixture
def four(both: Both) -> dict[str, str]:
    """Three clips that both have labelled, one that YAMNet alone has."""
    dog = {"Dog": [0.9, 0.2, 0.2]}
    return {
        "dog": both.add("/a/dog.wav", dog, {"Dog": [0.5], "Male singing": [0.7]}),
        "long": both.add("/a/long.wav", {"Dog": [0.6] * 30}, {"Dog": [0.3, 0.8]}),
        "none": both.add("/a/none.wav", {}, {"Dog": [0.5]}),
        "only": both.add("/a/only.wav", dog, None),
    }


def test_the_combined_scores_are_mean_logits(
    run: Audioset, both: Both, four: dict[str, str]
) -> None:
    said = run("combine", "yamnet", "mn10", "--name", "both")
    assert said.code == 0
    version = both.rows("SELECT version FROM models WHERE name = 'both'")[0][0]
    assert said.out.splitlines()[-1] == f"both@{version}: 3 clips combined, 3 in all"
    assert "averaged as the models give them; to calibrate them first: --truth" in said.err
    assert "left out: 1 clips that mn10@hand has not labelled" in said.err
    whole = both.scores(four["dog"])
    assert (whole.shape, whole.dtype) == ((3, 527), np.float32)
    near = pytest.approx
    assert whole[:, COLUMNS["Dog"]].tolist() == near(
        [(logit(s) + logit(0.5)) / 2 for s in (0.9, 0.2, 0.2)], abs=0.01
    )
    # YAMNet lacks this class: its row is the other model's.
    assert whole[:, COLUMNS["Male singing"]].tolist() == near([logit(0.7)] * 3, abs=0.01)
    # Rows 15 to 19 have their centre in both windows of 10 s.
    dogs = sigmoid(both.scores(four["long"]))[:, COLUMNS["Dog"]]
    between = (logit(0.3) + logit(0.8)) / 2
    assert [dogs[14], dogs[15], dogs[18], dogs[25]] == [
        near(1 / (1 + np.exp(-(logit(0.6) + x) / 2)), abs=0.01)
        for x in (logit(0.3), between, between, logit(0.8))
    ]
    ((note, n_patches),) = both.rows(
        "SELECT l.note, l.n_patches FROM labellings l JOIN models m ON m.id = l.model_id "
        "WHERE m.name = 'both' AND l.scores_path IS NULL"
    )
    assert (note, n_patches) == ("too short for a patch of one of the models: no results", 0)


@pytest.mark.slow
def test_a_combined_model_is_asked_like_any_other(
    run: Audioset, both: Both, four: dict[str, str], tmp_path: Path
) -> None:
    run("combine", "yamnet", "mn10", "--name", "both")
    hits = json.loads(run("query", "--under", "Dog", "--min-score", "0.3", "--json").out)
    peak = 1 / (1 + np.exp(-logit(0.9) / 2))
    found = {Path(hit["path_text"]).name: hit["score"] for hit in hits}
    # It is the newest labelling, so the current one; YAMNet speaks for what it alone has.
    assert found["dog.wav"] == pytest.approx(peak, abs=0.001)
    assert found["only.wav"] == pytest.approx(0.9, abs=0.001)
    assert json.loads(run("diff", "yamnet", "both", "--json").out)["n_clips"] == 2
    ranked = run("rank", "--under", "Dog", "--model", "both", "--json")
    assert json.loads(ranked.out)[0]["score"] == pytest.approx(peak, abs=0.01)
    for said in (
        run("models", "promote", "both"),
        run("similar", "/a/dog.wav", "--model", "both"),
        run("show", "/a/dog.wav"),
        run("hours", "--under", "Animal", "--model", "both"),
        run("export", "csv", tmp_path / "csv", "--model", "both"),
        run("export", "sed-scores", tmp_path / "sed", "--model", "both"),
        run("verify", "--deep"),
    ):
        assert said.code == 0, said
    told = run("models").out.splitlines()[-1]
    assert told.endswith(", combined of mn10@hand, yamnet@hand, promoted")


def test_only_new_clips_are_combined(run: Audioset, both: Both, four: dict[str, str]) -> None:
    first = run("combine", "mn10", "yamnet", "--name", "both")
    before = both.results()
    n_runs = both.rows("SELECT count(*) FROM runs")
    again = run("combine", "yamnet", "mn10", "--name", "both")
    assert again.out.splitlines()[:-1] == first.out.splitlines()[:-1]
    assert "0 clips combined, 3 in all" in again.out
    # Nothing to do is no run.
    assert (both.results(), both.rows("SELECT count(*) FROM runs")) == (before, n_runs)
    both.add_mn10("/a/only.wav", four["only"], {"Dog": [0.9]})
    later = json.loads(run("combine", "yamnet", "mn10", "--name", "both", "--json").out)
    (entry,) = later["combined"]
    assert (entry["n_clips"], entry["n_clips_in_all"]) == (1, 4)
    assert [part["model"] for part in entry["parts"]] == ["mn10", "yamnet"]
    assert [row for row in both.results() if row[0] != four["only"]] == before
    assert both.rows("SELECT status, n_labelled FROM runs ORDER BY started_at DESC LIMIT 1") == [
        ("completed", 1)
    ]


def test_a_bad_score_file_is_named_and_the_others_are_combined(
    run: Audioset, both: Both, four: dict[str, str]
) -> None:
    both.collection.files["mn10 /a/dog.wav"].unlink()
    said = run("combine", "yamnet", "mn10", "--name", "both", "--json")
    found = json.loads(said.out)
    assert (said.code, found["combined"][0]["n_clips"]) == (1, 2)
    (failure,) = found["failures"]
    assert (failure["clip"], failure["reason"]) == (four["dog"], "no such file")
    assert failure["file"].startswith("scores/mn10/")
    assert "1 clips cannot be combined: audioset verify --repair" in said.err
    # Nothing is left of the attempt, and the clip comes again.
    assert both.rows("SELECT count(*) FROM labellings WHERE status = 'claimed'") == [(0,)]
    assert run("combine", "yamnet", "mn10", "--name", "both").code == 1


@pytest.mark.parametrize("step", ["write_many", "commit_labellings"])
def test_a_stopped_combination_goes_on(
    run: Audioset, both: Both, four: dict[str, str], monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    import tasks.combining.combine as module

    monkeypatch.setattr(module, "_BATCH_CLIPS", 1)
    whole, calls = getattr(module, step), []

    def dying(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return whole(*arguments)

    monkeypatch.setattr(module, step, dying)
    assert run("combine", "yamnet", "mn10", "--name", "both").code == 130
    assert len(both.results()) == 1
    assert "2 clips combined, 3 in all" in run("combine", "yamnet", "mn10", "--name", "both").out
    assert run("verify", "--deep").code == 0


@pytest.mark.slow
@pytest.mark.parametrize("step", ["claim_known", "write_many", "commit_labellings"])
def test_a_killed_combination_goes_on_at_once(
    run: Audioset, both: Both, four: dict[str, str], step: str
) -> None:
    """Killed after a claim, a file, a commit: the next run takes the dead one's claims."""
    program = (
        "import os, signal, sys, tasks.combining.combine as module\n"
        f"whole = module.{step}\n"
        "def dying(*arguments):\n"
        "    whole(*arguments); os.kill(os.getpid(), signal.SIGKILL)\n"
        f"module.{step} = dying\n"
        "from flows.cli.program import main; main()"
    )
    command = ("combine", "yamnet", "mn10", "--name", "both", "--home", both.collection.home)
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, command)],
        cwd=REPOSITORY, env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL
    assert "3 in all" in run("combine", "yamnet", "mn10", "--name", "both").out
    assert [row[0] for row in both.results()] == sorted(four[k] for k in ("dog", "long", "none"))
    assert run("verify", "--deep").code == 0
    # Where the commit was reached, nothing was left to do, and so no run looked for dead ones.
    statuses = both.rows("SELECT status FROM runs WHERE parameters LIKE '%combine%' ORDER BY 1")
    is_over = step == "commit_labellings"
    assert statuses == [("running",)] if is_over else [("completed",), ("crashed",)]


@pytest.fixture
def judged(both: Both, tmp_path: Path) -> Path:
    """24 clips, half with a dog. YAMNet is too sure by half, mn10 too timid."""
    path = tmp_path / "truth.csv"
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["filename", "mid"])
        for n in range(24):
            is_dog = n % 2 == 0
            mistaken = n in (0, 1)
            yamnet = 0.95 if is_dog != mistaken else 0.6
            mn10 = 0.3 if is_dog != mistaken else 0.02
            both.add(f"/j/{n}.wav", {"Dog": [yamnet]}, {"Dog": [mn10]})
            rows.writerow([f"{n}.wav", YAMNET.categories[INDEX["Dog" if is_dog else "Rain"]].mid])
    return path


@pytest.mark.slow
def test_truth_calibrates_each_part_and_the_lines_are_kept(
    run: Audioset, both: Both, judged: Path
) -> None:
    combine = ("combine", "yamnet", "mn10", "--name", "both", "--json")
    said = run(*combine, "--truth", judged)
    (entry,) = json.loads(said.out)["combined"]
    assert (said.code, entry["n_clips"]) == (0, 24)
    lines = {part["model"]: (part["scale"], part["shift"]) for part in entry["parts"]}
    assert lines["mn10"][1] > lines["yamnet"][1]
    digest = hashlib.sha256(judged.read_bytes()).hexdigest()
    assert entry["calibration"]["truth_sha256"] == digest
    ((told,),) = both.rows(
        "SELECT p.parameters FROM parameter_sets p JOIN labellings l ON l.parameter_set_id = p.id "
        "JOIN models m ON m.id = l.model_id WHERE m.name = 'both' LIMIT 1"
    )
    assert json.loads(told)["extra"]["parts"] == entry["parts"]
    # The stored scores are what the lines say.
    clip = hashlib.sha256(b"/j/2.wav").hexdigest()
    dog = both.scores(clip)[0, COLUMNS["Dog"]]
    wanted = [a * logit(s) + b for (a, b), s in zip(
        (lines["yamnet"], lines["mn10"]), (0.95, 0.3), strict=True
    )]  # fmt: skip
    assert dog == pytest.approx(np.mean(wanted), abs=0.01)
    # Without a truth the next run goes on with them; the same truth is the same version.
    both.add("/j/later.wav", {"Dog": [0.9]}, {"Dog": [0.9]})
    later = run(*combine)
    assert f"calibrated as {entry['model']}" in later.err
    for said in (later, run(*combine, "--truth", judged)):
        (again,) = json.loads(said.out)["combined"]
        assert {**again, "n_clips": 24, "n_clips_in_all": 24} == entry


def test_verdicts_calibrate(run: Audioset, both: Both, judged: Path, tmp_path: Path) -> None:
    path = tmp_path / "verdicts.csv"
    lines = [f"{n}.wav,Dog,{'yes' if n % 2 == 0 else 'no'}" for n in range(24)]
    path.write_text("\n".join(["file,class,verdict", *lines]) + "\n")
    imported = run("verdicts", "import", path, "--by", "anna")
    assert imported.code == 0, imported
    said = run("combine", "yamnet", "mn10", "--name", "both", "--truth", "verdicts", "--json")
    (entry,) = json.loads(said.out)["combined"]
    assert entry["calibration"]["n_present"] == [12, 12]
    assert entry["calibration"]["n_absent"] == [12, 12]


def test_too_little_truth_is_one_line(run: Audioset, four: dict[str, str], tmp_path: Path) -> None:
    path = tmp_path / "truth.csv"
    path.write_text("filename,label\ndog.wav,Dog\n")
    said = run("combine", "yamnet", "mn10", "--name", "both", "--truth", path)
    assert (said.code, said.out) == (2, "")
    assert said.err == (
        "audioset: mn10@hand: the truth has 1 present and 0 absent sounds; calibration needs at "
        "least 10 of each\n"
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("yamnet", "--name", "x"), "combine needs two different models, and was given yamnet"),
        (("yamnet", "yamnet@hand", "--name", "x"), "combine needs two different models"),
        (("yamnet", "yamnet", "mn10", "--name", "x"), "yamnet@hand is given twice"),
        (("yamnet", "mn1", "--name", "x"), "no labels by a model called 'mn1'; did you mean mn10?"),
        (("yamnet", "mn10@2", "--name", "x"), "did you mean mn10?"),
        (("yamnet", "zebra", "--name", "x"), "there is mn10, yamnet"),
        (("yamnet", "ced_tiny", "--name", "x"), "audioset label --model ced_tiny PATH"),
        (("yamnet", "mn10", "--name", "mn04"), "--name mn04 is the name of a model"),
        (("yamnet", "mn10", "--name", "../x"), "cannot be the name of a folder; allowed: a-z"),
        (("yamnet", "mn10", "--name", "x", "--truth", "verdicts"), "there are no verdicts yet"),
    ],
)
def test_mistakes_are_one_line(
    run: Audioset, four: dict[str, str], arguments: tuple[str, ...], said: str
) -> None:
    told = run("combine", *arguments)
    assert (told.code, told.out) == (2, "")
    assert said in told.err
    assert told.err.count("\n") == 1


def test_models_that_share_no_clip_are_one_line(run: Audioset, both: Both) -> None:
    both.add("/a/a.wav", {"Dog": [0.5]}, None)
    clip = both.add("/a/b.wav", {"Dog": [0.5]}, {"Dog": [0.5]})
    with both.collection.engine.begin() as conn:
        conn.exec_driver_sql(
            f"DELETE FROM labellings WHERE model_id = {both.collection.variant.model_id} AND "
            f"clip_id = (SELECT id FROM clips WHERE sha256 = '{clip}')"
        )
    said = run("combine", "yamnet", "mn10", "--name", "x")
    assert (said.code, "no clip is labelled by all of these models" in said.err) == (2, True)


def test_a_model_without_scores_is_one_line(run: Audioset, both: Both) -> None:
    both.add("/a/a.wav", {"Dog": [0.5]}, {"Dog": [0.5]})
    with both.collection.engine.begin() as conn:
        conn.exec_driver_sql("UPDATE models SET n_classes = 0 WHERE name = 'mn10'")
    said = run("combine", "yamnet", "mn10", "--name", "x")
    assert (said.code, "embeddings only" in said.err) == (2, True)


@pytest.mark.slow
def test_a_combination_of_combinations(run: Audioset, both: Both, four: dict[str, str]) -> None:
    run("combine", "yamnet", "mn10", "--name", "both")
    assert run("combine", "both", "yamnet", "--name", "more").code == 0
    own = run("combine", "both", "yamnet", "--name", "both")
    assert (own.code, "cannot be a part of itself" in own.err) == (2, True)
    a, b = both.scores(four["dog"]), both.scores(four["dog"], "more")
    column = COLUMNS["Dog"]
    wanted = (a[:, column] + [logit(0.9), logit(0.2), logit(0.2)]) / 2
    np.testing.assert_allclose(b[:, column], wanted, atol=0.01)
    assert run("verify", "--deep").code == 0


def test_a_damaged_combined_file_is_combined_again(
    run: Audioset, both: Both, four: dict[str, str]
) -> None:
    run("combine", "yamnet", "mn10", "--name", "both")
    before = both.results()
    path = both.collection.home / next(row[1] for row in before if row[0] == four["dog"])
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    both.add_mn10("/a/only.wav", four["only"], {"Dog": [0.9]})
    run("models", "promote", "yamnet")
    assert run("verify", "--deep").code == 1
    said = run("verify", "--deep", "--repair")
    assert (said.code, "labelled again" in said.out) == (0, True), said
    # The very bytes, and nothing else; what was current stays so.
    assert path.read_bytes() == data
    assert [row[:3] for row in both.results()] == [row[:3] for row in before]
    assert [row[3] for row in both.results() if row[1]] == [0, 0]
    assert run("verify", "--deep").code == 0


def test_it_is_kept_where_its_parts_are_not_all_there(
    run: Audioset, both: Both, four: dict[str, str]
) -> None:
    run("combine", "yamnet", "mn10", "--name", "both")
    before = both.results()
    (both.collection.home / next(row[1] for row in before if row[0] == four["dog"])).unlink()
    both.collection.files["/a/dog.wav"].unlink()
    said = run("verify", "--repair")
    assert said.code == 1
    assert "no such file; kept, as the scores that were combined are not all there" in said.out
    assert both.results() == before


def test_a_folder_that_is_not_mounted_is_one_line(
    run: Audioset, both: Both, four: dict[str, str]
) -> None:
    (both.collection.home / "scores").rename(both.collection.home / "elsewhere")
    said = run("combine", "yamnet", "mn10", "--name", "both")
    assert (said.code, said.out, "is its disk mounted" in said.err) == (2, "", True)
    assert both.rows("SELECT count(*) FROM runs") == [(1,)]
