"""Several models in one run: a file is decoded once, and each finds what it finds alone."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
from prefect.utilities.callables import parameter_schema
from prefect.utilities.schema_tools.validation import validate
from pydantic import SecretStr
from safetensors.torch import save_file

from audioset_core.audio.recording import Recording
from audioset_core.errors import UserError
from audioset_core.models.registry import BUNDLES
from db.records import Clip, NotClaimed, Variant, WorkItem
from flows.label_audio import label_audio
from flows.prepare_model import prepare_model
from flows.run_options import ExecutionOptions
from tasks import chunk_and_featurize, persist
from tasks.labelling import shards
from tasks.labelling.job import labelling_settings
from tasks.labelling.options import MOST_MODELS, LabelOptions
from tests.flows.build import Lab, sound, write_clip

BOTH = ("mn04", "pocket")
COUNTED = ("n_found", "n_labelled", "n_known", "n_copies", "n_failed", "n_partial")


@pytest.fixture(scope="session")
def mn04(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights: 32 kHz and windows of 10 s, where pocket has 16 kHz and 0.96 s."""
    import torch

    path = tmp_path_factory.mktemp("mn04") / "mn04.safetensors"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        state = BUNDLES["mn04"].build().state_dict()
    metadata = {"model": "mn04", "version": "random", "source_sha256": "4" * 64}
    save_file({name: array.contiguous() for name, array in state.items()}, path, metadata=metadata)
    return path


@pytest.fixture(autouse=True)
def _weights(monkeypatch: pytest.MonkeyPatch, mn04: Path) -> None:
    monkeypatch.setenv("AUDIOSET_WEIGHTS_MN04", str(mn04))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three recordings, a copy, and one whose last second is not finite."""
    folder = tmp_path_factory.mktemp("corpus")
    write_clip(folder / "a.wav", 1, 12.0)
    write_clip(folder / "b.flac", 2, 31.0, rate_hz=44_100, channels=2)
    write_clip(folder / "c.wav", 3, 2.0, rate_hz=32_000)
    shutil.copy(folder / "a.wav", folder / "z-copy.wav")
    samples = sound(4, 15.0).astype(np.float32)
    samples[14 * 16_000] = np.nan
    soundfile.write(folder / "spoilt.wav", samples, 16_000, subtype="FLOAT")
    return folder


@pytest.fixture
def other(lab: Lab, tables: Path, tmp_path: Path) -> Iterator[Lab]:
    """A second home."""
    home = tmp_path / "other"
    home.mkdir()
    shutil.copy(tables, home / "labels.db")
    second = Lab(home, f"sqlite:///{home / 'labels.db'}", lab.weights)
    yield second
    second.engine.dispose()


def _label(lab: Lab, *paths: Path, model: Any = BOTH, **options: Any) -> Any:
    return lab.label(*paths, model=model, weights=None, **options)


def _files(lab: Lab) -> dict[str, bytes]:
    root = lab.home / "scores"
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*.npy")}


def _labels(lab: Lab) -> list[Any]:
    """Everything but ids and times."""
    return lab.rows(
        "SELECT m.name, c.sha256, l.scores_sha256, l.n_patches, n.mid, s.peak, s.mean "
        "FROM labellings l JOIN clips c ON c.id = l.clip_id JOIN models m ON m.id = l.model_id "
        "LEFT JOIN clip_scores s ON s.labelling_id = l.id LEFT JOIN nodes n ON n.id = s.node_id "
        "WHERE l.status = 'done' ORDER BY m.name, c.sha256, n.mid"
    )


def _counts(summary: Any) -> list[int]:
    return [getattr(summary, name) for name in COUNTED]


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each file's sound is decoded."""
    blocks, seen = Recording.blocks, Counter[str]()

    def counting(recording: Recording) -> Any:
        seen[recording.sha256] += 1
        return blocks(recording)

    monkeypatch.setattr(Recording, "blocks", counting)
    return seen


@pytest.mark.slow
def test_each_file_is_decoded_once_and_found_as_by_each_model_alone(
    lab: Lab, other: Lab, corpus: Path, opened: Counter[str]
) -> None:
    summary = _label(lab, corpus)
    assert _counts(summary) == [5, 3, 0, 1, 1, 0]
    assert summary.audio_s == pytest.approx(45.0)
    assert summary.shown_failures[0][1] == "samples are not finite"
    assert [named.split()[0] for named in summary.models] == list(BOTH)
    assert len(opened) == 4
    assert set(opened.values()) == {1}
    # The failed file's claims are gone under both models, and its clip with them.
    assert (lab.count("labellings"), lab.count("clips"), lab.count("run_items")) == (6, 3, 0)
    assert lab.count("sources", "status = 'failed'") == 1
    assert lab.rows("SELECT n_labelled, n_failed, audio_s FROM runs")[0][:2] == (3, 1)

    for model in BOTH:
        assert _counts(_label(other, corpus, model=model))[1] == 3
    assert _files(lab) == _files(other)
    assert _labels(lab) == _labels(other)
    assert len(_files(lab)) == 6

    again = _label(lab, corpus)
    assert _counts(again) == [5, 0, 4, 0, 0, 0]
    current = "SELECT DISTINCT m.name FROM labellings l JOIN models m ON m.id = l.model_id"
    assert lab.rows(f"{current} WHERE l.is_current") == [("mn04",)]


@pytest.mark.slow
def test_a_model_added_later_labels_alone_what_the_first_has_done(
    lab: Lab, corpus: Path, opened: Counter[str]
) -> None:
    _label(lab, corpus / "a.wav", model="pocket")
    before = lab.rows("SELECT id, labelled_at FROM labellings")
    summary = _label(lab, corpus / "a.wav", corpus / "c.wav", model=("pocket", "mn04"))
    assert (summary.n_found, summary.n_labelled, summary.n_known) == (2, 2, 0)
    assert lab.count("labellings") == 4
    assert lab.rows("SELECT id, labelled_at FROM labellings ORDER BY id")[:1] == before
    current = lab.rows(
        "SELECT m.name FROM labellings l JOIN models m ON m.id = l.model_id WHERE l.is_current"
    )
    assert current == [("pocket",), ("pocket",)]
    assert sorted(opened.values()) == [1, 2]


@pytest.mark.parametrize(
    ("outcomes", "n_asked"),
    [
        ([NotClaimed.COPY], 1),
        ([NotClaimed.DONE, NotClaimed.COPY], 2),
        ([NotClaimed.DONE, NotClaimed.BUSY, NotClaimed.AGAIN], 3),
    ],
)
def test_a_copy_of_what_this_run_labels_is_claimed_under_no_other_model(
    monkeypatch: pytest.MonkeyPatch, outcomes: list[NotClaimed], n_asked: int
) -> None:
    """Else two files of one content would share the models between them, and both be decoded."""
    left = iter(outcomes)
    monkeypatch.setattr(chunk_and_featurize, "claim_clip", lambda *_, **__: next(left))
    monkeypatch.setattr(chunk_and_featurize, "engine_for", lambda _: None)
    job: Any = SimpleNamespace(database_url="", run_id="run", variant=Variant(1, 1))
    item, clip = WorkItem(1, b"/a.wav", 1, 1, 1.0), Clip("a" * 64, 1, 1.0, 16_000, 1, 16_000, "wav")
    found = chunk_and_featurize._claim((job,) * 3, item, clip, 1)
    assert list(found.values()) == outcomes
    assert len(found) == n_asked


@pytest.mark.slow
def test_scores_that_cannot_be_stored_fail_the_file_once(
    lab: Lab, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check = persist.check_scores

    def refuse(array: Any, width: int, kind: Any) -> None:
        check(np.full_like(array, np.nan) if width == 527 else array, width, kind)

    monkeypatch.setattr(persist, "check_scores", refuse)
    summary = _label(lab, corpus / "a.wav", corpus / "c.wav")
    assert (summary.n_labelled, summary.n_failed, summary.audio_s) == (0, 2, 0.0)
    assert len(summary.shown_failures) == 2
    assert lab.count("labellings", "status = 'claimed'") == 0


@pytest.mark.slow
@pytest.mark.parametrize("long_run_s", [1.0, 1e9], ids=["one task", "three tasks"])
def test_where_a_recording_is_cut_never_shows(
    lab: Lab, other: Lab, corpus: Path, monkeypatch: pytest.MonkeyPatch, long_run_s: float
) -> None:
    _label(other, corpus)
    monkeypatch.setattr(shards, "MIN_SHARD_S", 4.0)
    monkeypatch.setattr(shards, "MAX_SHARD_S", 4.0)
    monkeypatch.setattr("flows.run.shard_scheduler.PART_S", 4.0)
    monkeypatch.setattr("flows.run.shard_scheduler.LONG_RUN_S", long_run_s)
    summary = _label(lab, corpus)
    assert _counts(summary) == [5, 3, 0, 1, 1, 0]
    assert _files(lab) == _files(other)
    assert _labels(lab) == _labels(other)


class TestOptions:
    def test_a_single_name_stays_a_text(self) -> None:
        for given in ("pocket", ["pocket"], ("pocket",)):
            options = LabelOptions(model=given)
            assert (options.model, options.models) == ("pocket", ("pocket",))
            assert options.model_dump(mode="json")["model"] == "pocket"

    def test_several_come_back_from_json(self) -> None:
        options = LabelOptions(model=["mn04", "pocket"])
        assert options.models == ("mn04", "pocket")
        assert LabelOptions(**options.model_dump(mode="json")) == options
        assert hash(options) == hash(LabelOptions(model=BOTH))

    @pytest.mark.parametrize("model", ["yamnet", ["mn10", "yamnet"]])
    def test_prefect_takes_a_name_or_several(self, model: str | list[str]) -> None:
        """By the check that its server makes of a deployment's parameters."""
        schema = parameter_schema(label_audio.fn).model_dump_for_openapi()
        given = {"paths": ["/recordings"], "options": {"model": model}}
        validate(given, schema, raise_on_error=True)
        assert label_audio.validate_parameters(given)["options"].model in (model, tuple(model))

    def test_the_form_takes_one_or_several(self) -> None:
        schema = LabelOptions.model_json_schema()["properties"]["model"]
        assert [kind["type"] for kind in schema["anyOf"]] == ["string", "array"]
        assert schema["default"] == "yamnet"

    @pytest.mark.parametrize(
        ("model", "problem"),
        [
            (("pocket", "mn04", "pocket"), "pocket is named twice"),
            ((), "name 1 to 8 models"),
            (tuple(f"m{n}" for n in range(MOST_MODELS + 1)), "name 1 to 8 models"),
        ],
    )
    def test_what_cannot_be_one_run(self, model: tuple[str, ...], problem: str) -> None:
        with pytest.raises(ValueError, match=problem):
            LabelOptions(model=model)

    @pytest.mark.parametrize(
        ("options", "problem"),
        [
            ({"weights": "w.pt"}, "AUDIOSET_WEIGHTS_MN04 and AUDIOSET_WEIGHTS_POCKET"),
            ({"patch_hop_s": 5.0}, "from 0.01 to 0.96 for pocket"),
            ({"framing": "seed"}, "--framing seed: mn04 has reference, pad"),
            ({"model": ("mn04", "poket")}, "did you mean 'pocket'"),
        ],
    )
    def test_what_one_of_the_models_does_not_have(
        self, lab: Lab, corpus: Path, options: dict[str, Any], problem: str
    ) -> None:
        with pytest.raises(UserError, match=problem):
            lab.label(corpus, **{"model": BOTH, "weights": None, **options})
        assert lab.count("runs") == 0


@pytest.mark.slow
def test_the_weights_of_several_are_prepared_at_once(prefect_server: str) -> None:
    assert [ready.model for ready in prepare_model(model=list(BOTH))] == list(BOTH)
    assert [ready.model for ready in prepare_model(model="pocket")] == ["pocket"]


class TestCommand:
    @pytest.mark.slow
    def test_both_are_named_and_the_second_call_starts_nothing(
        self, lab: Lab, corpus: Path, audioset: Any
    ) -> None:
        line = ("label", "--model", "mn04", "--model", "pocket", corpus / "a.wav")
        said = audioset(*line, "--home", lab.home)
        assert said.code == 0, said.err
        assert "models\tmn04 random and pocket 1-" in said.out
        assert "labelled now\t1 (12.0 s of audio)" in said.out
        again = audioset(*line, "--home", lab.home)
        assert (again.code, lab.count("runs")) == (0, 1)
        assert "labelled before\t1" in again.out
        assert again.err == ""

    def test_the_same_model_twice(self, lab: Lab, corpus: Path, audioset: Any) -> None:
        twice = ("--model", "pocket", "--model", "pocket")
        said = audioset("label", corpus, *twice, "--home", lab.home)
        assert (said.code, said.out) == (2, "")
        assert said.err == "audioset: --model 'pocket pocket': pocket is named twice\n"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")
def test_on_dask(lab: Lab, other: Lab, corpus: Path) -> None:
    summary = label_audio(
        paths=[str(corpus)], home=lab.home, options=LabelOptions(model=BOTH),
        execution=ExecutionOptions(task_runner="dask", dask_workers=2),
        database=SecretStr(lab.url),
    )  # fmt: skip
    assert _counts(summary) == [5, 3, 0, 1, 1, 0]
    _label(other, corpus)
    assert _files(lab) == _files(other)
    assert _labels(lab) == _labels(other)


def test_fast_scores_are_a_labelling_of_their_own() -> None:
    plain, fast, bf16 = (
        labelling_settings(LabelOptions(precision=precision), "yamnet")[1]
        for precision in ("float32", "fast", "bf16")
    )
    assert dict(fast.extra) == {**plain.extra, "precision": "fast", "fast_recipe": 1}
    assert len({plain.digest, fast.digest, bf16.digest}) == 3
    with pytest.raises(UserError, match="fast: yamnet has such a form, mn04 has none"):
        labelling_settings(LabelOptions(precision="fast"), "mn04")
