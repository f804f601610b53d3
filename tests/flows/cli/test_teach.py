"""`audioset teach` and `audioset label` with what was taught, on hand-made embeddings."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from audioset_core.arrays import unit_rows
from audioset_core.scores.pooling import sigmoid
from audioset_core.storage.score_files import read_scores
from audioset_core.teaching.heads import read_heads
from tests.flows.build import REPOSITORY
from tests.flows.embedded import SAW, Embedded
from tests.flows.scored import Collection

Audioset = Callable[..., Any]
TEACH = ("teach", "--name", "my-sounds", "--examples", "Wood saw=/c/saw", "--examples",
         "Dog=/c/dog")  # fmt: skip
LABEL = ("label", "--model", "my-sounds")


@pytest.fixture
def run(audioset: Audioset, collection: Collection) -> Audioset:
    return lambda *arguments: audioset(*arguments, "--home", collection.home)


@pytest.fixture
def made(collection: Collection) -> Embedded:
    """Five saws, four dogs; six recordings of rain and four of wind, which nobody judged."""
    made = Embedded(collection)
    for kind, n in (("saw", 5), ("dog", 4), ("rain", 6), ("wind", 4)):
        for at in range(n):
            made.add(f"/c/{kind}/{at}.wav", kind)
    return made


def heads_file(made: Embedded) -> Path:
    (path,) = (made.collection.home / "taught").iterdir()
    return path


def test_classes_are_taught_and_score_the_collection(run: Audioset, made: Embedded) -> None:
    said = run(*TEACH, "--json")
    told = json.loads(said.out)
    assert said.code == 0, said
    heads = read_heads(heads_file(made))
    assert told["model"] == f"my-sounds@{heads_file(made).stem.removeprefix('my-sounds-')}"
    assert (told["base"], [each["mid"] for each in told["classes"]]) == (
        "yamnet@emb", ["/m/0bt9lr", SAW],
    )  # fmt: skip
    dog, saw = told["classes"]
    assert (saw["recordings"], saw["patches"], saw["other_recordings"]) == (5, 20, 14)
    assert (dog["recordings"], dog["patches"], dog["other_recordings"]) == (4, 16, 15)
    assert min(dog["ap"], saw["ap"]) == 1.0
    # Of five recordings in five folds, a head learns from four at most: all those are the AP.
    assert [each["recordings"] for each in saw["learning_curve"]] == [1, 2]
    assert heads.about["classes"] == told["classes"]
    assert heads.about["examples_sha256"] == told["examples_sha256"]
    # The same examples are the same version.
    assert json.loads(run(*TEACH, "--json").out) == told
    assert run(*LABEL).out.splitlines()[0] == f"{told['model']}: 19 clips scored, 19 in all"
    paths = {row[0]: row[1] for row in made.taught()}
    ((clip, embeddings),) = made.rows(
        "SELECT c.sha256, l.embeddings_path FROM labellings l JOIN clips c ON c.id = l.clip_id "
        "JOIN sources s ON s.clip_id = c.id WHERE s.path_text = '/c/saw/1.wav' "
        "AND l.embeddings_path IS NOT NULL"
    )
    rows = unit_rows(read_scores(made.collection.home / embeddings))
    logits = read_scores(made.collection.home / paths[clip])
    assert (logits.shape, logits.dtype) == ((4, 2), np.float16)
    assert logits == pytest.approx(rows @ heads.weight.T + heads.bias, abs=0.01)
    assert sigmoid(logits[:, 1]).min() > 0.5 > sigmoid(logits[:, 0]).max()
    made.check_rows()
    assert run("verify", "--deep").code == 0


@pytest.mark.slow
def test_a_taught_model_is_asked_like_any_other(
    run: Audioset, made: Embedded, tmp_path: Path
) -> None:
    run(*TEACH)
    run(*LABEL)
    # YAMNet stays current: a model of two classes would hide all others.
    assert {row[4] for row in made.taught()} == {0}
    query = ("query", "--under", "Power tool", "--min-score", "0.5", "--json")
    hits = json.loads(run(*query, "--model", "my-sounds").out)
    assert {Path(hit["path_text"]).parent.name for hit in hits} == {"saw"}
    assert len(hits) == 5
    # No question needs to name it: what it says counts beside what YAMNet says.
    assert json.loads(run(*query).out) == hits
    shown = json.loads(run("show", "/c/saw/1.wav", "--json").out)
    assert [each["name"] for each in shown["labels"]] == ["Wood saw"]
    marks = [(each["model"], each["is_current"], each["is_beside"]) for each in shown["labellings"]]
    assert marks == [("yamnet", True, False), ("my-sounds", False, True)]
    hours = json.loads(run("hours", "--under", "Tools", "--by", "class", "--json").out)
    assert [row["n_clips"] for row in hours if row["what"] == "Wood saw"] == [5]
    counted = made.rows("SELECT count(*) FROM subtree_labels WHERE ancestor_name = 'Tools'")
    assert counted == [(5,)]
    for line in (
        ("rank", "--under", "Power tool", "--model", "my-sounds"),
        ("similar", "/c/saw/1.wav"),
        ("hours", "--under", "Dog", "--model", "my-sounds"),
        ("show", "/c/dog/1.wav"),
        ("plot", "/c/saw/1.wav", "-o", tmp_path / "clip.png"),
        ("diff", "yamnet", "my-sounds"),
        ("export", "csv", tmp_path / "csv", "--model", "my-sounds"),
        ("combine", "yamnet", "my-sounds", "--name", "both"),
        ("verify", "--deep"),
    ):
        said = run(*line)
        assert said.code == 0, said
    assert "my-sounds@" in run("models").out
    assert ", taught on yamnet@emb" in run("models").out
    assert run("combine", "yamnet", "both", "--name", "my-sounds").code == 2
    run("models", "promote", "my-sounds")
    assert len(json.loads(run(*query).out)) == 5


@pytest.mark.slow
def test_a_taught_model_counts_until_it_is_retired(run: Audioset, made: Embedded) -> None:
    run(*TEACH)
    run(*LABEL)
    with made.collection.engine.begin() as conn:  # YAMNet without dogs
        conn.exec_driver_sql(
            "DELETE FROM categories WHERE name <> 'Wood saw' AND node_id IN (SELECT descendant_id "
            "FROM closure JOIN nodes ON nodes.id = ancestor_id WHERE nodes.name = 'Power tool')"
        )
    query = ("query", "--under", "Power tool", "--min-score", "0.5", "--json")
    said = run(*query)
    assert (len(json.loads(said.out)), said.err) == (5, "")
    # A retired one is asked where no other model predicts the class, or where it is named.
    retired = run("models", "retire", "my-sounds")
    assert retired.out == "my-sounds is retired: its labels stay, and are asked with --model\n"
    assert ", retired\n" in run("models").out
    said = run(*query)
    assert len(json.loads(said.out)) == 5
    assert (
        said.err == "my-sounds is asked, which alone predicts this, and is not the current model\n"
    )
    assert json.loads(run("query", "--under", "Dog", "--min-score", "0.5", "--json").out) == []
    assert run("models", "retire", "my-sounds", "--undo").code == 0
    assert len(json.loads(run("query", "--under", "Dog", "--min-score", "0.5", "--json").out)) == 4
    said = run("models", "retire", "yamnet")
    assert (said.code, said.err.count("\n"), "is no taught model" in said.err) == (2, 1, True)


@pytest.mark.slow
def test_only_what_is_new_is_scored_and_only_where_it_was_asked(
    run: Audioset, made: Embedded
) -> None:
    run(*TEACH)
    assert "5 clips scored, 5 in all" in run(*LABEL, "/c/saw").out
    before = made.taught()
    assert "14 clips scored, 19 in all" in run(*LABEL).out
    n_runs = made.rows("SELECT count(*) FROM runs")
    assert "0 clips scored, 19 in all" in run(*LABEL).out
    assert made.rows("SELECT count(*) FROM runs") == n_runs  # nothing to do is no run
    made.add("/c/new/1.wav", "saw")
    made.add("/c/new/short.wav", "saw", n_patches=0)
    made.commit("/c/new/bare.wav", "ab" * 32, 4, {})
    said = run(*LABEL)
    assert "2 clips scored, 21 in all" in said.out
    lacking = "left out: 1 clips without embeddings of yamnet@emb"
    command = "audioset label --model yamnet --embeddings /c/new"
    assert f"{lacking}: {command}/bare.wav adds them\n" in said.err
    made.commit("/c/new/gone/bare.wav", "cd" * 32, 4, {})
    with made.collection.engine.begin() as conn:
        conn.exec_driver_sql("UPDATE sources SET status = 'missing' WHERE path_text LIKE '%gone%'")
    both = lacking.replace("1", "2")
    assert f"{both} (1 files have vanished): {command}/bare.wav adds them\n" in run(*LABEL).err
    made.commit("/c/new/another.wav", "ef" * 32, 4, {})
    assert f"(1 files have vanished): {command} adds them\n" in run(*TEACH).err
    with made.collection.engine.begin() as conn:
        conn.exec_driver_sql("UPDATE sources SET status = 'missing'")
    assert f"{lacking.replace('1', '3')}, whose files have vanished\n" in run(*LABEL).err
    assert [row for row in made.taught() if row in before] == before
    assert run("verify", "--deep").code in (0, 1)  # the bare one has no files
    made.check_rows()


@pytest.mark.slow
def test_verdicts_are_examples(run: Audioset, made: Embedded, tmp_path: Path) -> None:
    path = tmp_path / "said.csv"
    lines = ["path,start_s,end_s,class,verdict"]
    for at in range(5):  # the first two patches of each have their centre before a second
        lines.append(f"/c/saw/{at}.wav,0.0,1.0,Chainsaw,present")
    lines += [f"/c/rain/{at}.wav,,,Engine,absent" for at in range(3)]
    lines += [f"/c/wind/{at}.wav,,,Chainsaw,absent" for at in range(3)]
    path.write_text("\n".join(lines) + "\n")
    said = run("verdicts", "import", path)
    assert said.code == 0, said
    taught = json.loads(run("teach", "Chainsaw", "--name", "saws", "--json").out)
    (own,) = taught["classes"]
    assert (own["recordings"], own["patches"], own["ap"]) == (5, 10, 1.0)
    # As judged, of rain by what is above the class; and all others at random.
    assert (own["other_recordings"], own["other_patches"]) == (14, 56)
    # What is below a class is an example of the class.
    both = run("teach", "Chainsaw", "Engine", "--name", "two", "--json")
    assert both.code == 0, both
    assert {each["patches"] for each in json.loads(both.out)["classes"]} == {10}


MISTAKES = [
    ("Dgo", "no AudioSet class or category is called 'Dgo'; did you mean 'Dog'"),
    ("Wood-sw", "did you mean 'Wood saw'"),
    ("", "name the classes to teach, or give --examples CLASS=FOLDER"),
    ("Cat", "there are no examples with embeddings: import verdicts"),
    ("--examples Cat", "--examples 'Cat': write CLASS=FOLDER"),
    ("--examples Cat=/no", "--examples /no: no labelled recording is there; first run"),
    ("--examples Cat=/c/dog/1.wav", "Cat: 4 patches of 1 recordings are examples"),
    ("Dog --model mn10", "no embeddings of mn10 are stored here"),
    ("Dog --name yamnet", "--name yamnet is the name of a model"),
    ("Dog --name ../x", "cannot be the name of a folder"),
]


def test_mistakes_are_one_line(run: Audioset, made: Embedded) -> None:
    for line, said in MISTAKES:
        found = run("teach", "--name", "my-sounds", *line.split())
        assert (found.code, found.out, found.err.count("\n")) == (2, "", 1), found
        assert said in found.err
    assert not (made.collection.home / "taught").exists()
    assert run(*LABEL).err.startswith("audioset: no model is called 'my-sounds'; there")


@pytest.mark.slow
def test_what_a_taught_model_cannot_do_is_said(run: Audioset, made: Embedded) -> None:
    run(*TEACH)
    for words, said in (
        (
            "--model my-sounds --patch-hop 0.24",
            "--patch-hop does not go with my-sounds: a taught model scores",
        ),
        (
            "--model my-sounds --model yamnet",
            "my-sounds is a taught model, which scores stored embeddings",
        ),
        ("--model my-sound", "no model is called 'my-sound'; did you mean 'my-sounds'?"),
        (
            "--model my-sounds /nowhere",
            "/nowhere: no labelled recording is there; first run audioset label",
        ),
    ):
        found = run("label", *words.split())
        assert (found.code, found.out, found.err.count("\n")) == (2, "", 1), found
        assert said in found.err


@pytest.mark.slow
def test_a_damaged_file_is_named_and_the_others_are_used(run: Audioset, made: Embedded) -> None:
    path = made.collection.files["embeddings /c/saw/2.wav"]
    path.write_bytes(path.read_bytes()[:-1] + b"\0\0")
    said = run(*TEACH)
    assert (said.code, "left out: embeddings/yamnet/" in said.err) == (1, True)
    said = run(*LABEL)
    assert (said.code, "18 clips scored, 18 in all" in said.out) == (1, True)
    assert f"embeddings/yamnet/{path.parent.name}/{path.name}" in said.out
    assert made.rows("SELECT count(*) FROM labellings WHERE status = 'claimed'") == [(0,)]
    assert made.rows("SELECT n_labelled, n_failed FROM runs ORDER BY started_at DESC LIMIT 1") == [
        (18, 1)
    ]


@pytest.mark.slow
@pytest.mark.parametrize("step", ["claim_known", "write_many", "commit_labellings"])
def test_a_killed_taught_labelling_goes_on_at_once(
    run: Audioset, made: Embedded, step: str
) -> None:
    """Killed in the second batch, then the rest: equal to an undisturbed run."""
    run(*TEACH)
    run("teach", "--name", "other", *TEACH[3:])
    run("label", "--model", "other")
    undisturbed = [(row[0], *row[2:]) for row in made.taught("other")]
    program = (
        "import os, signal, sys, tasks.combining.combine as module\n"
        f"whole, calls = module.{step}, []\n"
        "def dying(*arguments):\n"
        "    found = whole(*arguments); calls.append(1)\n"
        "    if len(calls) == 2: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return found\n"
        f"module.{step}, module._BATCH_CLIPS = dying, 5\n"
        "from flows.cli.program import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *LABEL, "--home", str(made.collection.home)],
        cwd=REPOSITORY, env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL, done.stderr
    before = made.taught()
    assert len(before) == (10 if step == "commit_labellings" else 5)
    assert "19 in all" in run(*LABEL).out
    assert [(row[0], *row[2:]) for row in made.taught()] == undisturbed
    assert [row for row in made.taught() if row in before] == before
    assert run("verify", "--deep").code == 0


@pytest.mark.slow
def test_a_lost_score_file_is_made_again_from_embeddings(run: Audioset, made: Embedded) -> None:
    run(*TEACH)
    run(*LABEL)
    before = made.taught()
    lost = made.collection.home / before[3][1]
    data = lost.read_bytes()
    lost.unlink()
    assert run("verify").code == 1
    assert run("verify", "--repair").code == 0
    assert lost.read_bytes() == data
    assert made.taught() == before
    # Without the weights the labels are kept, as nothing can make them again.
    lost.unlink()
    weights = heads_file(made)
    weights.unlink()
    said = run("verify", "--repair")
    assert (said.code, "its embeddings and taught weights are not all there" in said.out) == (
        1, True,
    )  # fmt: skip
    assert made.taught() == before
    assert f"{weights.relative_to(made.collection.home)}\tthe taught weights " in said.out
    assert "put a copy of the file back, or teach again with the same examples" in said.out
    said = run(*LABEL)
    assert (said.code, "are not there: teach again" in said.err) == (2, True)
    weights.write_bytes(b"damaged")
    said = run("verify")
    assert (said.code, "is not the file that was written when it was taught; " in said.out) == (
        1, True,
    )  # fmt: skip
    assert run(*TEACH).code == 0
    assert run("verify", "--repair").code == 0
    assert made.taught() == before
