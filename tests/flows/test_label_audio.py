"""The flow end to end: what is labelled, once, and what its rows and files say."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import SecretStr

from audioset_core.errors import UserError
from audioset_core.models.registry import YAMNET
from audioset_core.scores.pooling import sigmoid
from audioset_core.storage.score_files import read_scores
from flows.label_audio import label_audio
from flows.run_options import ExecutionOptions
from tasks.labelling.options import LabelOptions
from tasks.store_check.check import check_store
from tests.bounds import assert_within
from tests.flows.build import Lab, write_clip, write_placeholder

CLIPS: dict[str, dict[str, Any]] = {
    "mono.wav": {},
    "deep/stereo.flac": {"rate_hz": 44_100, "channels": 2, "duration_s": 3.3},
    "deep/er/float.wav": {"rate_hz": 48_000, "subtype": "FLOAT"},
    "slow.ogg": {"rate_hz": 8_000},
    "six.aiff": {"rate_hz": 22_050, "channels": 6},
    "upper.MP3": {"rate_hz": 32_000, "format": "MP3"},
    "blink.wav": {"duration_s": 0.05},
}


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    folder = tmp_path / "corpus"
    for seed, (name, settings) in enumerate(CLIPS.items()):
        write_clip(folder / name, seed, **settings)
    (folder / "notes.txt").write_text("not a recording")
    return folder


def test_a_folder_becomes_rows_and_files_that_agree(lab: Lab, corpus: Path) -> None:
    summary = lab.label(corpus)

    assert (summary.n_found, summary.n_labelled, summary.n_failed) == (len(CLIPS), len(CLIPS), 0)
    assert summary.passed_over.by_suffix == {".txt": 1}
    lab.check()
    assert lab.sources() == {Path(name).name: ("identified", None) for name in CLIPS}
    facts = lab.rows("SELECT sample_rate_hz, n_channels, n_samples, duration_s FROM clips")
    assert (44_100, 2, 145_530, 3.3) in [tuple(row) for row in facts]
    # The placeholder's scores say something, or half of these tests would prove nothing.
    assert lab.count("clip_scores") > 10 * len(CLIPS)
    assert lab.count("detections") > 10 * len(CLIPS)
    runs = lab.rows("SELECT status, n_found, n_labelled, n_known, n_failed, audio_s FROM runs")
    assert [tuple(row) for row in runs] == [("completed", 7, 7, 0, 0, summary.audio_s)]


def test_a_second_run_finds_nothing_to_do(lab: Lab, corpus: Path) -> None:
    lab.label(corpus)
    before, times = lab.results(), lab.rows("SELECT id, labelled_at, token FROM labellings")

    summary = lab.label(corpus)

    assert (summary.n_labelled, summary.n_known, summary.n_copies) == (0, len(CLIPS), 0)
    assert lab.results() == before
    assert lab.rows("SELECT id, labelled_at, token FROM labellings") == times


def test_a_run_says_which_engine_and_which_execution_were_asked_for(
    lab: Lab, corpus: Path, caplog: pytest.LogCaptureFixture
) -> None:
    here = ExecutionOptions(dask_workers=3)
    common: dict[str, Any] = {
        "paths": [str(corpus)], "home": lab.home, "database": SecretStr(lab.url),
        "options": LabelOptions(weights=lab.weights, engine="torch"),
    }  # fmt: skip
    label_audio(**common, execution=here)
    assert "now called" not in caplog.text
    label_audio(**common, engine=here)  # as deployments of before have it
    assert caplog.text.count("the parameter 'engine' is now called 'execution'; rename it") == 1
    with pytest.raises(UserError, match="'execution' and 'engine' differ"):
        label_audio(**common, execution=here, engine=ExecutionOptions(dask_workers=4))
    told = [json.loads(row[0]) for row in lab.rows("SELECT parameters FROM runs")]
    assert [(each["engine"], each["execution"]["dask_workers"]) for each in told] == [
        ("torch", 3),
        ("torch", 3),
    ]


@pytest.mark.slow
def test_waveforms_for_a_gpu_give_the_same_scores(
    lab: Lab, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here torch's front end runs on the CPU; the long clip is cut into parts."""
    write_clip(corpus / "long.flac", 99, rate_hz=44_100, channels=2, duration_s=40.0)
    # Above 4 kHz it holds nothing but roundings, which a network of random weights makes much of.
    (corpus / "slow.ogg").unlink()
    monkeypatch.setattr("flows.run.shard_scheduler.shard_length_s", lambda *_: 12.0)
    lab.label(corpus, engine="torch", device="cpu", score_dtype="float32")
    other = replace(lab, home=tmp_path / "other", url=f"sqlite:///{tmp_path / 'other.db'}")
    taken = 0

    def takes_waveforms(*_: object) -> bool:
        nonlocal taken
        taken += 1
        return True

    monkeypatch.setattr("tasks.chunk_and_featurize.takes_waveforms", takes_waveforms)
    summary = other.label(corpus, engine="torch", device="cpu", score_dtype="float32")
    assert (summary.n_labelled, summary.n_failed) == (len(CLIPS), 0)
    assert taken == len(CLIPS)
    other.check()
    before, after = scores_of(lab), scores_of(other)
    assert before.keys() == after.keys()
    for clip, scores in before.items():
        # Whether the right samples were scored: one sample late moves every patch of these clips by
        # 0.1 and more, roundings in a network of random weights by 5e-4. How exact the scores
        # are is tested with the trained network, in test_torch_frontend.py.
        assert_within(after[clip], scores, 0.02)


def scores_of(lab: Lab) -> dict[str, Any]:
    """Scores by clip."""
    rows = lab.rows(
        "SELECT c.sha256, l.scores_path FROM labellings l JOIN clips c ON c.id = l.clip_id"
    )
    return {clip: sigmoid(read_scores(lab.home / path)) for clip, path in rows}


@pytest.mark.slow
def test_other_settings_make_a_labelling_beside_the_old_one(
    lab: Lab, corpus: Path, tmp_path: Path
) -> None:
    lab.label(corpus)
    other = write_placeholder(tmp_path / "other.safetensors", seed=1)
    for options in ({"patch_hop_s": 0.24}, {"score_dtype": "float32"}, {"weights": other}):
        assert lab.label(corpus, **options).n_labelled == len(CLIPS)
        lab.check()
    assert lab.count("labellings") == 4 * len(CLIPS)
    assert lab.count("labellings", "is_current") == len(CLIPS)
    assert lab.count("clips") == len(CLIPS)


def test_seed_framing_labels_a_short_clip_with_no_patches_and_says_why(lab: Lab, tmp_path: Path):
    write_clip(tmp_path / "short.wav", 1, 0.9)
    write_clip(tmp_path / "long.wav", 2, 2.0)
    summary = lab.label(tmp_path / "short.wav", tmp_path / "long.wav", framing="seed")
    assert (summary.n_labelled, summary.n_failed) == (2, 0)
    found = lab.rows("SELECT n_patches, scores_path IS NULL, note FROM labellings ORDER BY 1")
    assert (found[0][0], bool(found[0][1]), "too short" in found[0][2]) == (0, True, True)
    assert (found[1][0], bool(found[1][1]), found[1][2]) == (2, False, None)


def test_the_json_export_is_the_schema_and_its_files_load(
    lab: Lab, corpus: Path, audioset: Callable[..., Any], tmp_path: Path
) -> None:
    lab.label(corpus)
    out = tmp_path / "elsewhere" / "predictions.json"
    said = audioset("export", "json", out, "--home", lab.home)
    assert said.code == 0
    exported = json.loads(out.read_text())
    assert list(exported) == ["model", "model_categories", "predictions"]
    assert exported["model"] == "yamnet"
    assert exported["model_categories"] == [
        {"name": c.name, "id": c.mid} for c in YAMNET.categories
    ]
    assert len(exported["predictions"]) == len(CLIPS)
    for entry in exported["predictions"]:
        assert list(entry)[:4] == ["id", "category_tsr_fname", "per_chunk_length", "meta"]
        assert (entry["id"], entry["per_chunk_length"], entry["meta"]) == (entry["clip"], 0.48, {})
        scores = read_scores(out.parent / entry["category_tsr_fname"])
        assert scores.shape[1] == 521


class TestIdentity:
    def test_a_copy_costs_no_inference(self, lab: Lab, tmp_path: Path) -> None:
        write_clip(tmp_path / "a" / "one.wav", 1)
        shutil.copy(tmp_path / "a" / "one.wav", tmp_path / "a" / "two.wav")
        summary = lab.label(tmp_path / "a")
        assert (summary.n_labelled, summary.n_copies, summary.n_busy) == (1, 1, 0)
        assert (lab.count("clips"), lab.count("sources"), lab.count("labellings")) == (1, 2, 1)
        assert lab.label(tmp_path / "a").n_known == 2
        shutil.copy(tmp_path / "a" / "one.wav", tmp_path / "a" / "three.wav")
        later = lab.label(tmp_path / "a")
        assert (later.n_labelled, later.n_known, later.n_copies) == (0, 2, 1)
        lab.check()

    def test_a_renamed_file_costs_no_inference(self, lab: Lab, tmp_path: Path) -> None:
        folder = tmp_path / "a"
        write_clip(folder / "old.wav", 1)
        lab.label(folder)
        (folder / "old.wav").rename(folder / "new.wav")
        summary = lab.label(folder)
        assert (summary.n_labelled, summary.n_copies, lab.count("labellings")) == (0, 1, 1)

    def test_a_changed_file_is_a_new_clip(self, lab: Lab, tmp_path: Path) -> None:
        file = tmp_path / "a.wav"
        write_clip(file, 1)
        lab.label(file)
        write_clip(file, 2)
        os.utime(file, ns=(1, 1))
        assert lab.label(file).n_labelled == 1
        assert (lab.count("clips"), lab.count("sources")) == (2, 1)
        assert lab.count("sources", "clip_id = (SELECT max(id) FROM clips)") == 1
        lab.check()

    def test_a_touched_file_is_known(self, lab: Lab, tmp_path: Path) -> None:
        file = tmp_path / "a.wav"
        write_clip(file, 1)
        lab.label(file)
        os.utime(file, ns=(5, 5))
        assert lab.label(file).n_copies == 1
        assert lab.label(file).n_known == 1

    @pytest.mark.parametrize("kind", ["csv", "jsonl"])
    def test_a_manifests_ids_and_meta_are_exported_verbatim(
        self, lab: Lab, audioset: Callable[..., Any], tmp_path: Path, kind: str
    ) -> None:
        meta = {"a": {"start": "2020-01-01T00:00:00Z", "n": [1, 2.5, None], "Ü": "✓"}, "b": {}}
        write_clip(tmp_path / "x.wav", 1)
        shutil.copy(tmp_path / "x.wav", tmp_path / "same.wav")
        write_clip(tmp_path / "y.wav", 2)
        listed = [
            ("x.wav", "../site/1", meta["a"]),
            ("same.wav", "b", meta["b"]),
            ("y.wav", None, {}),
        ]
        manifest = tmp_path / f"list.{kind}"
        if kind == "csv":
            rows = [
                f'{p},{i or ""},"{json.dumps(m).replace(chr(34), chr(34) * 2)}"'
                for p, i, m in listed
            ]
            manifest.write_text("\n".join(["path,id,meta", *rows]) + "\n")
        else:
            manifest.write_text(
                "\n".join(json.dumps({"path": p, "id": i, "meta": m}) for p, i, m in listed)
            )
        summary = lab.label(manifest=manifest)
        assert (summary.n_found, summary.n_labelled, lab.count("clips")) == (3, 2, 2)
        said = audioset("export", "json", tmp_path / "out.json", "--home", lab.home)
        assert said.code == 0
        entries = json.loads((tmp_path / "out.json").read_text())["predictions"]
        by_path = {Path(entry["path"]).name: entry for entry in entries}
        assert set(by_path) == {"x.wav", "same.wav", "y.wav"}
        assert (by_path["x.wav"]["id"], by_path["x.wav"]["meta"]) == ("../site/1", meta["a"])
        assert (by_path["same.wav"]["id"], by_path["same.wav"]["meta"]) == ("b", {})
        assert by_path["x.wav"]["category_tsr_fname"] == by_path["same.wav"]["category_tsr_fname"]
        assert (by_path["y.wav"]["id"], by_path["y.wav"]["meta"]) == (by_path["y.wav"]["clip"], {})


def test_a_manifest_read_later_annotates_what_is_labelled(lab: Lab, tmp_path: Path) -> None:
    write_clip(tmp_path / "x.wav", 1)
    lab.label(tmp_path / "x.wav")
    (tmp_path / "m.csv").write_text("path,id,site\nx.wav,clip-1,north\n")
    assert lab.label(manifest=tmp_path / "m.csv").n_labelled == 0
    assert [r[0] for r in lab.rows("SELECT user_id FROM sources")] == ["clip-1"]


def test_options_are_refused_when_misspelt() -> None:
    with pytest.raises(ValueError, match="Extra inputs"):
        LabelOptions(patch_hop=0.48)  # type: ignore[call-arg]


@pytest.mark.slow
class TestEmbeddings:
    def test_they_lie_beside_the_scores(self, lab: Lab, corpus: Path) -> None:
        lab.label(corpus, embeddings=True)
        rows = lab.rows(
            "SELECT scores_path, embeddings_path, embeddings_sha256, n_patches FROM labellings"
        )
        assert rows
        for scores, path, digest, n_patches in rows:
            assert path.startswith("embeddings/yamnet/")
            data = (lab.home / path).read_bytes()
            assert hashlib.sha256(data).hexdigest() == digest
            array = np.load(lab.home / path, allow_pickle=False)
            assert array.shape == (n_patches, 1024)
            assert array.dtype == np.float16
            assert (lab.home / scores).exists()

    def test_with_them_a_recording_is_labelled_without_them_too(
        self, lab: Lab, corpus: Path, tmp_path: Path
    ) -> None:
        first = lab.label(corpus, embeddings=True)
        again = lab.label(corpus)
        assert (again.n_labelled, again.n_known) == (0, first.n_labelled + first.n_copies)
        assert lab.label(corpus, embeddings=True).n_labelled == 0
        # So is a copy, whose content is known once it is read.
        copy = tmp_path / "copies" / "copy.wav"
        copy.parent.mkdir()
        copy.write_bytes(next(corpus.rglob("*.wav")).read_bytes())
        assert (lab.label(copy).n_copies, lab.count("labellings")) == (1, first.n_labelled)

    def test_they_are_added_to_labels_that_are_there(self, lab: Lab, corpus: Path) -> None:
        columns = (
            "id, clip_id, status, n_patches, scores_path, scores_sha256, is_current, labelled_at"
        )

        def stored() -> list[Any]:
            labels = "SELECT * FROM clip_scores ORDER BY labelling_id, node_id"
            found = "SELECT * FROM detections ORDER BY labelling_id, node_id, start_patch"
            own = f"SELECT {columns} FROM labellings ORDER BY id"
            return [lab.rows(query) for query in (own, labels, found)]

        first = lab.label(corpus)
        before = stored()
        second = lab.label(corpus, embeddings=True)
        assert (second.n_labelled, second.n_added) == (first.n_labelled, first.n_labelled)
        assert ("embeddings added", f"{second.n_added} (had labels, which stay as they are)") in (
            second.rows()
        )
        assert stored() == before
        for path, n_patches in lab.rows("SELECT embeddings_path, n_patches FROM labellings"):
            assert np.load(lab.home / path).shape == (n_patches, 1024)
        report = check_store(lab.engine, lab.home, is_deep=True, is_repair=False)
        assert report.found_kinds() == []
        for embeddings in (True, False):
            assert lab.label(corpus, embeddings=embeddings).n_labelled == 0
        assert stored() == before

    def test_weights_without_a_head_give_embeddings_and_no_labels(
        self, lab: Lab, corpus: Path, tmp_path: Path, vggish_without_head: Path
    ) -> None:
        lab.label(corpus)
        said = lab.rows("SELECT clip, name FROM labels")
        summary = lab.label(corpus, model="vggish", weights=vggish_without_head)
        assert summary.n_failed == 0
        rows = lab.rows(
            "SELECT l.scores_path, l.embeddings_path, l.note, l.is_current, l.n_patches "
            "FROM labellings l JOIN models m ON m.id = l.model_id WHERE m.name = 'vggish'"
        )
        assert len(rows) == summary.n_labelled
        for scores, path, note, is_current, n_patches in rows:
            assert scores is None
            assert not is_current
            # VGGish drops the tail: a clip under 0.975 s gives nothing, and says so.
            assert (path is None) == (n_patches == 0) == (note is not None)
            if path:
                assert np.load(lab.home / path).shape == (n_patches, 128)
        # What was known of the clips is still what is said of them.
        assert lab.rows("SELECT clip, name FROM labels") == said


@pytest.mark.parametrize("follow_symlinks", [False, True])
def test_links_in_folders_are_followed_on_request(
    lab: Lab, tmp_path: Path, follow_symlinks: bool
) -> None:
    write_clip(tmp_path / "rec" / "a.wav", 1)
    write_clip(tmp_path / "elsewhere" / "b.wav", 2)
    (tmp_path / "rec" / "aside").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "rec" / "loop").symlink_to(tmp_path / "rec")
    summary = lab.label(tmp_path / "rec", follow_symlinks=follow_symlinks)
    assert summary.n_labelled == 1 + follow_symlinks
    assert summary.passed_over.n_links == (1 if follow_symlinks else 2)


def test_the_start_of_a_recording_is_found_by_its_name(lab: Lab, tmp_path: Path) -> None:
    for seed, name in enumerate(("20240518_043000.wav", "meadow.wav")):
        write_clip(tmp_path / "times" / name, seed)
    lab.label(tmp_path / "times")
    rows = lab.rows("SELECT recorded_unix_s, recorded_by FROM clip_sources ORDER BY path")
    began_s = datetime(2024, 5, 18, 4, 30, tzinfo=UTC).timestamp()
    assert list(map(tuple, rows)) == [(began_s, "name, UTC assumed"), (None, "not found")]
