from __future__ import annotations

import fcntl
import functools
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given
from hypothesis import strategies as st
from threadpoolctl import threadpool_info, threadpool_limits
from torch.utils.data import DataLoader, Dataset, IterableDataset

from audioset_core import label_dataset
from audioset_core.audio.recording import Recording
from audioset_core.datasets import journal as dataset_folder
from audioset_core.datasets import label_dataset as module
from audioset_core.datasets.items import ItemReason
from audioset_core.datasets.journal import IdSet, LabelFolder, digest, scores_name
from audioset_core.datasets.label_dataset import DatasetReport
from audioset_core.errors import Reason, UserError
from audioset_core.features.patch_reader import LogMelPiece, LogMelReader
from audioset_core.features.shared_reader import SharedReader
from audioset_core.inference.interface import ComputeOptions
from audioset_core.inference.scorer import Scorer
from audioset_core.models.registry import YAMNET, Framing, ModelBundle, find_bundle
from audioset_core.scores.pooling import sigmoid
from audioset_core.storage.score_files import read_scores
from audioset_core.weights.conversion_proof import END_TO_END_BAR
from audioset_core.weights.locate import ReadyWeights
from tests.bounds import assert_within

REPOSITORY = Path(__file__).parents[3]
RATE_HZ = 16_000
Item = dict[str, Any]


def write_placeholder(
    path: Path, version: str, model: str = "yamnet", *, has_scores: bool = True
) -> Path:
    """A model of random weights, as converted weights."""
    from safetensors.torch import save_file

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(len(version))
        state = find_bundle(model, has_scores=has_scores).build().state_dict()
    metadata = {
        "model": model,
        "version": version,
        "source_sha256": "0" * 64,
        "has_scores": str(has_scores).lower(),
    }
    save_file({k: v.contiguous() for k, v in state.items()}, path, metadata=metadata)
    return path


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_placeholder(tmp_path_factory.mktemp("weights") / "a.safetensors", "placeholder")


@pytest.fixture(scope="module", autouse=True)
def shared_networks() -> Iterator[None]:
    """Each weights file is loaded once: that is most of a short call. The child processes load."""

    @functools.lru_cache(maxsize=4)
    def shared(bundle: ModelBundle, weights: ReadyWeights, compute: ComputeOptions) -> Scorer:
        return Scorer(bundle, weights, compute)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "Scorer", shared)
        yield


def noise(seed: int, duration_s: float = 1.0, rate_hz: int = RATE_HZ, n_channels: int = 1) -> Any:
    shape = (n_channels, round(duration_s * rate_hz))
    return np.random.default_rng(seed).normal(0, 0.1, shape).astype(np.float32)


def item(name: str, seed: int = 0, **fields: Any) -> Item:
    return {"id": name, "data": noise(seed), "sr": RATE_HZ, **fields}


def items(*names: str) -> list[Item]:
    return [item(name, seed) for seed, name in enumerate(names)]


def index_of(out: Path) -> Any:
    return json.loads((out / "audio_pred.json").read_text())


def logits_of(out: Path) -> dict[str, Any]:
    """Logits by id, as a reader of the JSON finds them."""
    return {
        entry["id"]: read_scores(out / entry["category_tsr_fname"])
        for entry in index_of(out)["predictions"]
    }


def reasons(report: DatasetReport) -> dict[str | None, str]:
    return {failure.id: failure.reason for failure in report.failures}


class Spy:
    """What the network was given: patches per group, patches per call."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.groups: list[list[int]] = []
        self.n_batches = 0
        score, flush = Scorer.score, Scorer._forward

        def spied_score(scorer: Scorer, pieces: Any, *args: Any, **how: Any) -> Any:
            if not pieces:
                return score(scorer, pieces, *args, **how)
            self.groups.append([piece.n_patches for piece in pieces])
            return score(scorer, pieces, *args, **how)

        def spied_flush(scorer: Scorer, *args: Any) -> None:
            self.n_batches += 1
            flush(scorer, *args)

        monkeypatch.setattr(Scorer, "score", spied_score)
        monkeypatch.setattr(Scorer, "_forward", spied_flush)

    @property
    def n_patches(self) -> int:
        return sum(map(sum, self.groups))


@pytest.fixture
def spy(monkeypatch: pytest.MonkeyPatch) -> Spy:
    return Spy(monkeypatch)


# --- results ------------------------------------------------------------------------------------


def test_json_has_the_schema(tmp_path: Path, weights: Path) -> None:
    report = label_dataset(
        [item("a", meta={"site": "é", "n": [1, None]}), item("b/c")], tmp_path, weights=weights
    )
    found = index_of(tmp_path)
    assert (report.n_items, report.n_labelled, report.n_failed) == (2, 2, 0)
    assert report.stopped is None
    assert report.audio_s == 2.0
    assert found["model"] == "yamnet"
    assert found["model_categories"] == [{"name": c.name, "id": c.mid} for c in YAMNET.categories]
    common = {
        "per_chunk_length": 0.48,
        "n_patches": 2,
        "duration_s": 1.0,
        "model_version": "placeholder",
    }
    first, second = found["predictions"]
    assert first == {
        "id": "a",
        "category_tsr_fname": "audio_pred/a.npy",
        "meta": {"site": "é", "n": [1, None]},
        **common,
    }
    assert second == {
        "id": "b/c",
        "category_tsr_fname": f"audio_pred/{scores_name('b/c')}",
        "meta": {},
        **common,
    }
    for logits in logits_of(tmp_path).values():
        assert (logits.shape, logits.dtype) == ((2, 521), np.float32)
    assert (tmp_path / "audio_pred.failures.jsonl").read_text() == ""


FILES = {
    "stereo int16": (44_100, 2, "PCM_16", "int16"),
    "mono int32": (22_050, 1, "PCM_32", "int32"),
    "float": (48_000, 3, "FLOAT", "float32"),
    "double": (8_000, 1, "DOUBLE", "float64"),
    "at the model's rate": (16_000, 2, "FLOAT", "float32"),
}


@pytest.mark.parametrize("framing", ["reference", "seed"])
def test_logits_equal_those_from_files(tmp_path: Path, weights: Path, framing: Framing) -> None:
    config = YAMNET.framed(patch_hop_s=None, framing=framing)
    ready = ReadyWeights(weights, "yamnet", "placeholder", "")
    scorer = Scorer(YAMNET, ready, ComputeOptions("cpu"))
    expected, given_items = {}, []
    for seed, (name, (rate_hz, n_channels, subtype, dtype)) in enumerate(FILES.items()):
        path = tmp_path / f"{seed}.wav"
        data = noise(seed, 9.3 + seed, rate_hz, n_channels)
        soundfile.write(path, data.T, rate_hz, subtype=subtype)
        reader = SharedReader(Recording(os.fsencode(path)), [(config, False)])
        pieces: list[LogMelPiece] = []
        while not reader.is_finished:
            [[piece]] = reader.read(5.0)
            pieces.append(piece)
        reader.close()
        expected[name] = np.concatenate(scorer.score(pieces, config))
        samples = soundfile.read(path, dtype=dtype, always_2d=True)[0].T
        as_given = torch.from_numpy(samples.copy()) if seed % 2 else samples
        given_items.append({"id": name, "data": as_given, "sr": rate_hz})
    label_dataset(given_items, tmp_path / "out", weights=weights, device="cpu", framing=framing)
    found = logits_of(tmp_path / "out")
    assert found.keys() == expected.keys()
    for name, logits in expected.items():
        np.testing.assert_array_equal(found[name], logits)


@pytest.mark.numeric
def test_waveforms_for_a_gpu_give_the_same_scores(
    tmp_path: Path, assets: Path, yamnet_weights: ReadyWeights, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here torch's front end runs on the CPU; groups are small, so that clips are cut."""
    golden = np.load(assets / "golden" / "yamnet_golden.npz")
    names = ["esc_dog", "noise", "short"]
    given_items = [
        {"id": name, "data": golden[f"{name}/waveform"][np.newaxis], "sr": 16_000} for name in names
    ]
    monkeypatch.setattr(module, "takes_waveforms", lambda *_: True)
    monkeypatch.setattr(module, "_GROUP_PATCHES_OF_WAVEFORMS", 7)
    with_torch = ComputeOptions("cpu", "torch")
    monkeypatch.setattr(module, "Scorer", lambda *given: Scorer(*given[:2], with_torch))
    label_dataset(
        given_items, tmp_path, weights=yamnet_weights.path, device="cpu", score_dtype="float32"
    )
    found = logits_of(tmp_path)
    assert found.keys() == set(names)
    for name in names:
        assert_within(sigmoid(found[name]), golden[f"{name}/scores"], END_TO_END_BAR, name)


@pytest.mark.numeric
def test_scores_equal_the_reference(
    tmp_path: Path, assets: Path, yamnet_weights: ReadyWeights
) -> None:
    golden = np.load(assets / "golden" / "yamnet_golden.npz")
    names = ["esc_dog", "noise", "short", "silence", "chirp"]
    given_items = [
        {"id": name, "data": golden[f"{name}/waveform"][np.newaxis], "sr": 16_000.0}
        for name in names
    ]
    label_dataset(given_items, tmp_path, weights=yamnet_weights.path)
    for name, logits in logits_of(tmp_path).items():
        assert_within(sigmoid(logits), golden[f"{name}/scores"], END_TO_END_BAR, name)


def test_half_precision_and_hop(tmp_path: Path, weights: Path) -> None:
    label_dataset(items("a"), tmp_path, weights=weights, score_dtype="float16", patch_hop_s=0.1)
    (logits,) = logits_of(tmp_path).values()
    assert (logits.shape, logits.dtype) == ((2, 521), np.float16)
    assert index_of(tmp_path)["predictions"][0]["per_chunk_length"] == 0.1


def test_too_short_for_a_patch_is_labelled_with_none(tmp_path: Path, weights: Path) -> None:
    short = item("a", data=np.zeros((1, 100), np.float32))
    report = label_dataset([short], tmp_path, weights=weights, framing="seed")
    assert report.n_labelled == 1
    assert logits_of(tmp_path)["a"].shape == (0, 521)
    assert "too short" in index_of(tmp_path)["predictions"][0]["note"]


@pytest.mark.slow
def test_another_model(tmp_path: Path) -> None:
    path = write_placeholder(tmp_path / "v.safetensors", "1", "vggish")
    label_dataset([item("a", data=noise(1, 2.5))], tmp_path / "out", model="vggish", weights=path)
    found = index_of(tmp_path / "out")
    assert (found["model"], len(found["model_categories"])) == ("vggish", 527)
    assert found["predictions"][0]["per_chunk_length"] == 0.96
    assert logits_of(tmp_path / "out")["a"].shape == (2, 527)


@pytest.mark.slow
def test_weights_without_scores_are_refused_first(tmp_path: Path) -> None:
    path = write_placeholder(tmp_path / "v.safetensors", "1", "vggish", has_scores=False)
    with pytest.raises(UserError, match="no classifier head"):
        label_dataset([None], tmp_path / "out", model="vggish", weights=path)  # type: ignore[list-item]
    assert not (tmp_path / "out").exists()


# --- kinds of datasets --------------------------------------------------------------------------


class MapStyle(Dataset[Item]):
    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> Item:
        if index == 1:
            raise OSError("archive 1 is gone")
        return item(f"i{index}", index, data=torch.from_numpy(noise(index)))


class Stream(IterableDataset[Item]):
    def __iter__(self) -> Iterator[Item]:
        yield from items("a", "b")


def test_map_style_goes_on_after_an_error(tmp_path: Path, weights: Path) -> None:
    report = label_dataset(MapStyle(), tmp_path, weights=weights)
    assert list(logits_of(tmp_path)) == ["i0", "i2", "i3"]
    (failure,) = report.failures
    assert (failure.index, failure.id, failure.reason) == (1, None, ItemReason.RAISED)
    assert failure.detail == "OSError: archive 1 is gone"


@pytest.mark.parametrize("batch_size", [None], ids=["loader"])
def test_torch_streams_and_loaders(tmp_path: Path, weights: Path, batch_size: None) -> None:
    label_dataset(Stream(), tmp_path / "a", weights=weights)
    label_dataset(DataLoader(Stream(), batch_size=batch_size), tmp_path / "b", weights=weights)
    found, loaded = logits_of(tmp_path / "a"), logits_of(tmp_path / "b")
    assert found.keys() == loaded.keys() == {"a", "b"}
    np.testing.assert_array_equal(found["b"], loaded["b"])


def test_an_iterator_that_raises_ends_cleanly(tmp_path: Path, weights: Path) -> None:
    def broken() -> Iterator[Item]:
        yield from items("a", "b")
        raise RuntimeError("the network is down")

    report = label_dataset(broken(), tmp_path, weights=weights)
    assert report.stopped == "RuntimeError: the network is down"
    assert report.n_labelled == 2
    assert list(logits_of(tmp_path)) == ["a", "b"]


def test_a_buffer_used_again_does_no_harm(tmp_path: Path, weights: Path) -> None:
    def reusing() -> Iterator[Item]:
        buffer, meta = np.empty((1, RATE_HZ), np.float32), {"seed": -1}
        for seed in (1, 2):
            buffer[:] = noise(seed)
            meta["seed"] = seed
            yield {"id": str(seed), "data": buffer, "sr": RATE_HZ, "meta": meta}

    label_dataset(reusing(), tmp_path / "a", weights=weights)
    label_dataset([item("1", 1), item("2", 2)], tmp_path / "b", weights=weights)
    found, expected = logits_of(tmp_path / "a"), logits_of(tmp_path / "b")
    for name in expected:
        np.testing.assert_array_equal(found[name], expected[name])
    assert [e["meta"] for e in index_of(tmp_path / "a")["predictions"]] == [
        {"seed": 1},
        {"seed": 2},
    ]


@pytest.mark.parametrize("dataset", [5, None, {"id": "a"}, "text"])
def test_no_dataset_at_all(tmp_path: Path, weights: Path, dataset: Any) -> None:
    with pytest.raises(UserError, match="dataset: "):
        label_dataset(dataset, tmp_path / "out", weights=weights)
    assert not (tmp_path / "out").exists()


def test_nothing_to_label(tmp_path: Path, weights: Path) -> None:
    report = label_dataset([], tmp_path, weights=weights)
    assert report.n_items == 0
    assert index_of(tmp_path)["predictions"] == []


def test_progress(tmp_path: Path, weights: Path) -> None:
    calls: list[tuple[int, int | None]] = []
    label_dataset(items("a", "b"), tmp_path, weights=weights, progress=lambda *at: calls.append(at))
    label_dataset(
        iter(items("a")), tmp_path, weights=weights, progress=lambda *at: calls.append(at)
    )
    assert calls == [(1, 2), (2, 2), (1, None)]


# --- bad items ----------------------------------------------------------------------------------


class Exploding(Mapping[str, Any]):
    def __getitem__(self, key: str) -> Any:
        raise RuntimeError("boom")

    def __iter__(self) -> Iterator[str]:
        return iter(["id"])

    def __len__(self) -> int:
        return 1


def nested(depth: int) -> Any:
    found: Any = {}
    for _ in range(depth):
        found = {"a": found}
    return found


NAN, INFINITE = noise(1), noise(1, 30.0)
NAN[0, 5], INFINITE[0, -1] = np.nan, np.inf
BAD_ITEMS: dict[str, tuple[Any, str]] = {
    "nan": (item("x", data=NAN), Reason.NOT_FINITE),
    "infinity at the end": (item("x", data=INFINITE), Reason.NOT_FINITE),
    "beyond float32": (item("x", data=np.full((1, 9), 1e300)), Reason.NOT_FINITE),
    "flat": (item("x", data=np.zeros(99)), ItemReason.MALFORMED),
    "three axes": (item("x", data=np.zeros((1, 1, 99))), ItemReason.MALFORMED),
    "turned": (item("x", data=np.zeros((99, 2))), Reason.OUT_OF_RANGE),
    "no channels": (item("x", data=np.zeros((0, 99))), Reason.OUT_OF_RANGE),
    "no samples": (item("x", data=np.zeros((1, 0))), Reason.EMPTY),
    "bytes": (item("x", data=np.zeros((1, 99), np.uint8)), ItemReason.MALFORMED),
    "complex": (item("x", data=np.zeros((1, 99), complex)), ItemReason.MALFORMED),
    "objects": (item("x", data=np.zeros((1, 99), object)), ItemReason.MALFORMED),
    "list": (item("x", data=[[0.0] * 99]), ItemReason.MALFORMED),
    "int64 tensor": (item("x", data=torch.zeros(1, 9, dtype=torch.int64)), ItemReason.MALFORMED),
    "sparse": (item("x", data=torch.zeros(1, 9).to_sparse()), ItemReason.MALFORMED),
    "rate 0": (item("x", sr=0), Reason.OUT_OF_RANGE),
    "rate 1e6": (item("x", sr=1_000_000), Reason.OUT_OF_RANGE),
    "rate 16000.5": (item("x", sr=16_000.5), ItemReason.MALFORMED),
    "rate nan": (item("x", sr=float("nan")), ItemReason.MALFORMED),
    "no rate": (item("x", sr=None), ItemReason.MALFORMED),
    "number as id": (item("x", id=5), ItemReason.MALFORMED),
    "no data": ({"id": "x", "sr": 1}, ItemReason.MALFORMED),
    "tuple": (("x", noise(1)), ItemReason.MALFORMED),
    "nothing": (None, ItemReason.MALFORMED),
    "explodes": (Exploding(), ItemReason.RAISED),
    "meta set": (item("x", meta={"a": {1}}), ItemReason.BAD_META),
    "meta nan": (item("x", meta={"a": float("nan")}), ItemReason.BAD_META),
    "meta text": (item("x", meta="text"), ItemReason.BAD_META),
    "meta deep": (item("x", meta=nested(100_000)), ItemReason.BAD_META),
    "duplicate": (item("first"), ItemReason.DUPLICATE),
}


def test_bad_items_stop_nobody(tmp_path: Path, weights: Path) -> None:
    given_items = [item("first", 1), *(bad for bad, _ in BAD_ITEMS.values()), item("last", 2)]
    # The same id again after a failure would be a duplicate: each gets its own.
    for number, given_item in enumerate(given_items):
        if isinstance(given_item, dict) and given_item["id"] == "x":
            given_items[number] = {**given_item, "id": f"x{number}"}
    report = label_dataset(given_items, tmp_path, weights=weights)
    found = {failure.index: failure.reason for failure in report.failures}
    names = list(BAD_ITEMS)
    assert {names[at - 1]: reason for at, reason in found.items()} == {
        name: str(reason) for name, (_, reason) in BAD_ITEMS.items()
    }
    assert (report.n_labelled, report.n_failed) == (2, len(BAD_ITEMS))
    assert list(logits_of(tmp_path)) == ["first", "last"]
    lines = (tmp_path / "audio_pred.failures.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [
        {"index": f.index, "id": f.id, "reason": f.reason, "detail": f.detail}
        for f in report.failures
    ]
    # Alone, the good items have the same logits: what failed beside them left no trace.
    label_dataset([given_items[0], given_items[-1]], tmp_path / "alone", weights=weights)
    for name, logits in logits_of(tmp_path / "alone").items():
        np.testing.assert_array_equal(logits_of(tmp_path)[name], logits)


def test_log_mel_is_computed_by_one_blas_thread_as_that_of_a_file(
    tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sums of a mel matrix of 513 x 128 depend on the number of threads."""

    def threads() -> set[int]:
        blas = [lib for lib in threadpool_info() if lib["user_api"] == "blas"]
        return {lib["num_threads"] for lib in blas if "numpy" in lib["filepath"]}

    seen: list[set[int]] = []

    def read(self: LogMelReader, budget_s: float) -> LogMelPiece:
        seen.append(threads())
        return plain(self, budget_s)

    plain = LogMelReader.read
    monkeypatch.setattr(LogMelReader, "read", read)
    with threadpool_limits(2, user_api="blas"):
        assert label_dataset([item("a")], tmp_path, weights=weights).n_labelled == 1
        assert threads() == {2}, "the caller's own setting stands again"
    assert seen
    assert all(each == {1} for each in seen)


def test_bad_meta_is_known_before_inference(tmp_path: Path, weights: Path, spy: Spy) -> None:
    report = label_dataset([item("a", meta={"a": object()})], tmp_path, weights=weights)
    assert reasons(report) == {"a": ItemReason.BAD_META}
    assert spy.n_batches == 0


def test_late_nan_in_a_long_clip(
    tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch, spy: Spy
) -> None:
    monkeypatch.setattr(module, "_GROUP_PATCHES", 30)
    data = noise(3, 60.0)
    data[0, -1] = np.nan
    report = label_dataset(
        [item("a", 1), item("bad", data=data), item("b", 2)], tmp_path, weights=weights
    )
    assert spy.n_patches > 60
    assert reasons(report) == {"bad": Reason.NOT_FINITE}
    assert list(logits_of(tmp_path)) == ["a", "b"]


def test_scores_beyond_half_precision(tmp_path: Path, weights: Path) -> None:
    from safetensors.torch import load_file, save_file

    state = load_file(weights)
    state["classifier.bias"] = torch.full_like(state["classifier.bias"], 1e6)
    metadata = {"model": "yamnet", "version": "huge", "source_sha256": "0" * 64}
    save_file(state, tmp_path / "huge.safetensors", metadata=metadata)
    report = label_dataset(
        items("a"), tmp_path / "out", weights=tmp_path / "huge.safetensors", score_dtype="float16"
    )
    assert (report.n_labelled, reasons(report)) == (0, {"a": Reason.INTERNAL})


def test_a_report_of_many_failures_stays_small(tmp_path: Path, weights: Path) -> None:
    report = label_dataset([None] * 1500, tmp_path, weights=weights)  # type: ignore[list-item]
    assert (report.n_failed, len(report.failures)) == (1500, 1000)
    assert len((tmp_path / "audio_pred.failures.jsonl").read_text().splitlines()) == 1500


# --- ids ----------------------------------------------------------------------------------------

NASTY_IDS = [
    "", ".", "..", "...", "a", "A", "a.npy", "a/b", "a\\b", "a_b", "../../etc/passwd", "/abs",
    "x" * 255, "x" * 256, "x" * 100_000, "é", "e\u0301", "日本語", "nul\0", "line\nbreak", " ", "~",
    "con", "CON", "-rf", ".hidden", "a~b", "caf\udce9", "😀", "Dog", "dog", "DOG", "a.", "a ",
]  # fmt: skip


def test_nasty_ids_get_files_of_their_own(tmp_path: Path, weights: Path) -> None:
    report = label_dataset(items(*NASTY_IDS), tmp_path / "out", weights=weights)
    assert (report.n_labelled, report.n_failed) == (len(NASTY_IDS), 0)
    entries = index_of(tmp_path / "out")["predictions"]
    assert [entry["id"] for entry in entries] == NASTY_IDS
    files = [entry["category_tsr_fname"] for entry in entries]
    assert len({name.lower() for name in files}) == len(NASTY_IDS)
    folder = tmp_path / "out" / "audio_pred"
    assert sorted(files) == sorted(f"audio_pred/{path.name}" for path in folder.iterdir())
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert label_dataset(items(*NASTY_IDS), tmp_path / "out", weights=weights).n_skipped == len(
        NASTY_IDS
    )


@given(st.text() | st.text("aAbB._-~/", max_size=4), st.text() | st.text("aAbB._-~/", max_size=4))
def test_names_are_safe_and_differ(one: str, other: str) -> None:
    for text in (one, other):
        name = scores_name(text)
        assert re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.~-]*\.npy", name)
        assert len(name) <= 110
    assert (scores_name(one).lower() == scores_name(other).lower()) == (one == other)


def test_a_surrogate_pair_is_its_character(tmp_path: Path, weights: Path) -> None:
    report = label_dataset(items("😀", "\ud83d\ude00"), tmp_path, weights=weights)
    assert reasons(report) == {"😀": ItemReason.DUPLICATE}


def test_id_set_of_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataset_folder, "_MERGE_IDS", 7)
    ids = IdSet()
    digests = [digest(str(number)) for number in range(500)]
    assert all(ids.add(one) for one in digests)
    assert not any(ids.add(one) for one in digests)
    assert len(ids) == 500
    assert all(one in ids for one in digests)
    assert digest("else") not in ids


# --- again --------------------------------------------------------------------------------------


def test_a_second_call_does_the_rest(tmp_path: Path, weights: Path, spy: Spy) -> None:
    label_dataset(items("a", "b"), tmp_path, weights=weights)
    before = logits_of(tmp_path)
    report = label_dataset(items("a", "b", "c"), tmp_path, weights=weights)
    assert (report.n_labelled, report.n_skipped, spy.n_patches) == (1, 2, 6)
    after = logits_of(tmp_path)
    assert list(after) == ["a", "b", "c"]
    np.testing.assert_array_equal(before["b"], after["b"])
    # The JSON describes the folder, also what this call's dataset lacks.
    label_dataset([], tmp_path, weights=weights)
    assert list(logits_of(tmp_path)) == ["a", "b", "c"]


def test_a_failed_item_is_tried_again(tmp_path: Path, weights: Path) -> None:
    label_dataset([item("a", data=NAN)], tmp_path, weights=weights)
    report = label_dataset(items("a"), tmp_path, weights=weights)
    assert (report.n_labelled, report.n_failed) == (1, 0)
    assert (tmp_path / "audio_pred.failures.jsonl").read_text() == ""


@pytest.mark.parametrize(
    "change",
    [{"patch_hop_s": 0.24}, {"framing": "seed"}, {"score_dtype": "float16"}, {"weights": "other"}],
    ids=lambda change: next(iter(change)),
)
def test_other_parameters_label_again(
    tmp_path: Path, weights: Path, change: dict[str, Any]
) -> None:
    if "weights" in change:
        change = {"weights": write_placeholder(tmp_path / "b.safetensors", "another")}
    how = {"weights": weights, **change}
    label_dataset(items("a", "b"), tmp_path / "out", weights=weights)
    report = label_dataset(items("b", "c"), tmp_path / "out", **how)
    assert (report.n_labelled, report.n_skipped) == (2, 0)
    # Only what these parameters made is in the JSON; the rest is known, should they come back.
    assert list(logits_of(tmp_path / "out")) == ["b", "c"]
    back = label_dataset(items("a", "b", "c"), tmp_path / "out", weights=weights)
    assert (back.n_labelled, back.n_skipped) == (2, 1)
    label_dataset(items("a", "b", "c"), tmp_path / "fresh", weights=weights)
    for name, logits in logits_of(tmp_path / "fresh").items():
        np.testing.assert_array_equal(logits_of(tmp_path / "out")[name], logits)


def test_a_crash_while_overwriting_trusts_no_file(
    tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    label_dataset(items("a"), tmp_path, weights=weights)
    append = LabelFolder._append

    def dies_after_the_files(folder: Any, entries: Any) -> None:
        entries = list(entries)
        if entries and entries[0]["variant"] is not None:
            raise KeyboardInterrupt
        append(folder, entries)

    # Same size, other values: only the journal can tell.
    other = write_placeholder(tmp_path / "b.safetensors", "another")
    with monkeypatch.context() as patch:
        patch.setattr(LabelFolder, "_append", dies_after_the_files)
        with pytest.raises(KeyboardInterrupt):
            label_dataset(items("a"), tmp_path, weights=other)
    assert not (tmp_path / "audio_pred.json").exists()
    assert label_dataset(items("a"), tmp_path, weights=weights).n_labelled == 1


@pytest.mark.parametrize("damage", ["gone", "short"])
def test_a_damaged_score_file_is_made_again(tmp_path: Path, weights: Path, damage: str) -> None:
    label_dataset(items("a", "b"), tmp_path, weights=weights)
    victim = tmp_path / "audio_pred" / "a.npy"
    if damage == "gone":
        victim.unlink()
    else:
        victim.write_bytes(victim.read_bytes()[:-1])
    report = label_dataset(items("b"), tmp_path, weights=weights)
    assert list(logits_of(tmp_path)) == ["b"]
    report = label_dataset(items("a", "b"), tmp_path, weights=weights)
    assert (report.n_labelled, report.n_skipped) == (1, 1)
    assert sorted(logits_of(tmp_path)) == ["a", "b"]


def test_a_torn_line_is_no_line(tmp_path: Path, weights: Path) -> None:
    label_dataset(items("a", "b"), tmp_path, weights=weights)
    journal = tmp_path / "audio_pred.journal"
    whole = journal.read_bytes()
    last = whole.rindex(b"\n", 0, len(whole) - 1) + 1
    for end in range(last, len(whole) - 1, 17):
        journal.write_bytes(whole[:end])
        report = label_dataset(items("a", "b"), tmp_path, weights=weights)
        assert (report.n_labelled, report.n_skipped) == (1, 1)
        assert list(logits_of(tmp_path)) == ["a", "b"]
    # Rubbish of a damaged disk is passed over as well.
    journal.write_bytes(b"\xff\x00{}\n00000000 \n00000000 {}\n" + whole.replace(b'"a"', b'"z"'))
    assert label_dataset(items("a", "b"), tmp_path, weights=weights).n_skipped == 1


KILLED = """
import sys
import numpy as np
from audioset_core.datasets import label_dataset as dataset
dataset._GROUP_PATCHES = 20

def items():
    for seed in range(120):
        data = np.random.default_rng(seed).normal(0, 0.1, (1, 16000)).astype(np.float32)
        yield {"id": f"Clip {seed}", "data": data, "sr": 16000, "meta": {"seed": seed}}

dataset.label_dataset(items(), sys.argv[1], weights=sys.argv[2], device="cpu")
"""


@pytest.mark.slow
def test_kill_9_loses_nothing(
    tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-c", KILLED, str(out), str(weights)]
    child = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    try:
        while len(list((out / "audio_pred").glob("*.npy"))) < 30:
            assert time.monotonic() < deadline
            assert child.poll() is None
            time.sleep(0.005)
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
    assert not (out / "audio_pred.json").exists()
    # The same items as the child's.
    given_items = [item(f"Clip {seed}", seed, meta={"seed": seed}) for seed in range(120)]
    monkeypatch.setattr(module, "_GROUP_PATCHES", 20)
    done = label_dataset(given_items, out, weights=weights, device="cpu")
    assert done.n_labelled + done.n_skipped == 120
    assert done.n_skipped >= 20
    entries = index_of(out)["predictions"]
    assert [(e["id"], e["meta"]) for e in entries] == [
        (f"Clip {seed}", {"seed": seed}) for seed in range(120)
    ]
    ends = [given_items[0], given_items[-1]]
    label_dataset(ends, tmp_path / "fresh", weights=weights, device="cpu")
    found = logits_of(out)
    for name, expected in logits_of(tmp_path / "fresh").items():
        np.testing.assert_array_equal(found[name], expected)


def test_one_call_at_a_time(tmp_path: Path, weights: Path) -> None:
    label_dataset(items("a"), tmp_path, weights=weights)
    failures = tmp_path / "audio_pred.failures.jsonl"
    failures.write_text("kept")
    with (tmp_path / "audio_pred.journal").open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="another call"):
            label_dataset(items("b"), tmp_path, weights=weights)
    assert failures.read_text() == "kept"


def test_what_progress_raises_ends_the_call(tmp_path: Path, weights: Path) -> None:
    def stop(done: int, _: int | None) -> None:
        if done == 2:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        label_dataset(items("a", "b", "c"), tmp_path, weights=weights, progress=stop)
    assert label_dataset(items("a", "b", "c"), tmp_path, weights=weights).n_items == 3


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"model": "nothing"}, "no model is called 'nothing'"),
        ({"score_dtype": "int8"}, "choose float16 or float32"),
        ({"patch_hop_s": 5.0}, "5"),
        ({"weights": "/nowhere"}, "no weights file"),
    ],
    ids=["model", "dtype", "hop", "weights"],
)
def test_settings_are_checked_first(tmp_path: Path, how: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        label_dataset([], tmp_path / "out", **how)
    assert not (tmp_path / "out").exists()


def test_a_file_in_the_way(tmp_path: Path, weights: Path) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(UserError, match="there is a file"):
        label_dataset([], tmp_path / "out", weights=weights)


# --- bounds -------------------------------------------------------------------------------------


def test_batches_are_filled_across_clips(tmp_path: Path, weights: Path, spy: Spy) -> None:
    label_dataset(items(*map(str, range(40))), tmp_path, weights=weights, device="cpu")
    assert spy.groups == [[2] * 40]
    assert spy.n_batches == 5


def test_a_long_clip_goes_in_groups(
    tmp_path: Path, weights: Path, spy: Spy, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = noise(1, 90.0, 8_000, 2)
    given_items = [item("before", 1), item("long", data=data, sr=8_000), item("after", 2)]
    label_dataset(given_items, tmp_path / "whole", weights=weights)
    assert len(spy.groups) == 1
    spy.groups.clear()
    monkeypatch.setattr(module, "_GROUP_PATCHES", 12)
    label_dataset(given_items, tmp_path / "cut", weights=weights)
    assert len(spy.groups) > 8
    assert max(map(sum, spy.groups)) < 30
    whole, cut = logits_of(tmp_path / "whole"), logits_of(tmp_path / "cut")
    assert list(cut) == ["before", "long", "after"]
    for name in whole:
        np.testing.assert_array_equal(whole[name], cut[name])


def test_clips_without_patches_fill_a_group_too(
    tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_GROUP_PATCHES", 10)
    held = 0
    flush = module._Run._flush

    def spied(run: Any) -> None:
        nonlocal held
        held = max(held, len(run._clips))
        flush(run)

    monkeypatch.setattr(module._Run, "_flush", spied)
    short = np.zeros((1, 100), np.float32)
    given_items = [item(str(number), data=short) for number in range(35)]
    report = label_dataset(given_items, tmp_path, weights=weights, framing="seed")
    assert (report.n_labelled, held) == (35, 10)


# --- import and documentation -------------------------------------------------------------------


def test_the_package_loads_nothing_heavy() -> None:
    code = (
        "import sys, audioset_core\n"
        "heavy = {'torch', 'numpy', 'soundfile', 'scipy'} & sys.modules.keys()\n"
        "assert not heavy, heavy\n"
        "from audioset_core import label_dataset\n"
        "assert callable(label_dataset)\n"
        "assert not hasattr(audioset_core, 'nothing')\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=True)


def test_the_documented_example_runs(
    tmp_path: Path,
    weights: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    text = (REPOSITORY / "docs" / "python-api.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    monkeypatch.setenv("AUDIOSET_WEIGHTS", str(weights))
    monkeypatch.chdir(tmp_path)
    exec(example, {"__name__": "__main__"})  # a namespace of its own, as in a fresh file
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "3 labelled, 0 skipped, 0 failed"
    assert [line.split(" {")[0] for line in lines[1:]] == [
        "tones/220 Hz", "tones/440 Hz", "tones/880 Hz",
    ]  # fmt: skip
