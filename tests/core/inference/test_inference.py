from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from audioset_core.errors import UserError, WeightsError
from audioset_core.features.config import YAMNET as FRONTEND
from audioset_core.features.log_mel import log_mel
from audioset_core.features.patch_reader import LogMelPiece
from audioset_core.inference.engines import open_network
from audioset_core.inference.interface import ComputeOptions, EngineName
from audioset_core.inference.scorer import Cancelled, Scorer
from audioset_core.inference.torch_engine import resolve_device
from audioset_core.models.registry import BUNDLES, YAMNET, find_bundle
from audioset_core.scores.pooling import sigmoid
from audioset_core.weights.conversion_proof import EMBEDDING_BAR, END_TO_END_BAR, NETWORK_BAR
from audioset_core.weights.locate import ReadyWeights
from tests.bounds import assert_within

BATCH = YAMNET.cpu_batch_patches
ENGINES = ("torch", "openvino")
OPENVINO = ComputeOptions(engine="openvino")


@pytest.fixture(scope="module", params=ENGINES)
def scorer(request: pytest.FixtureRequest, yamnet_weights: ReadyWeights) -> Scorer:
    """Everything here holds for every engine."""
    found = Scorer(YAMNET, yamnet_weights, ComputeOptions("cpu", request.param))
    assert found.network.engine == request.param
    return found


def piece(n_patches: int, seed: int = 0) -> LogMelPiece:
    n_frames = 48 * (n_patches - 1) + 96 if n_patches else 0
    frames = np.random.default_rng(seed).normal(-4, 2, (n_frames, 64)).astype(np.float32)
    return LogMelPiece(frames, n_patches)


@pytest.fixture
def batches(scorer: Scorer, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The shapes of the batches that the network is given."""
    shapes: list[tuple[int, ...]] = []
    forward = scorer.network.forward

    def counting(batch: Any) -> Any:
        shapes.append(batch.shape)
        return forward(batch)

    monkeypatch.setattr(scorer.network, "sharing", lambda _: None)  # however long it ran
    monkeypatch.setattr(scorer.network, "forward", counting)
    return shapes


@pytest.mark.numeric
@pytest.mark.parametrize("name", ["esc_dog", "noise", "short", "silence", "chirp"])
def test_scores_equal_the_reference(scorer: Scorer, assets: Path, name: str) -> None:
    golden = np.load(assets / "golden" / "yamnet_golden.npz")
    waveform, scores = golden[f"{name}/waveform"], golden[f"{name}/scores"]
    frames = log_mel(waveform, FRONTEND)
    (logits,) = scorer.score([LogMelPiece(frames, FRONTEND.n_patches(len(waveform)))], FRONTEND)
    assert logits.dtype == np.float32
    assert_within(sigmoid(logits), scores, END_TO_END_BAR, name)


@pytest.mark.numeric
def test_neighbours_change_nothing(scorer: Scorer) -> None:
    clip = piece(5)
    (alone,) = scorer.score([clip], FRONTEND)
    for before, after in ((1, 0), (0, 40), (14, 3), (30, 3), (27, 60)):
        clips = [piece(before, 1), clip, piece(after, 2)]
        np.testing.assert_array_equal(scorer.score(clips, FRONTEND)[1], alone)


@pytest.mark.numeric
def test_long_clips_equal_their_parts(scorer: Scorer) -> None:
    clip = piece(70)
    (whole,) = scorer.score([clip], FRONTEND)
    parts = [
        LogMelPiece(clip.frames[48 * at : 48 * (at + n - 1) + 96], n)
        for at, n in ((0, 33), (33, 1), (34, 36))
    ]
    np.testing.assert_array_equal(np.concatenate(scorer.score(parts, FRONTEND)), whole)


def test_batches_are_filled_across_clips(scorer: Scorer, batches: list[tuple[int, ...]]) -> None:
    results = scorer.score([piece(10, i) for i in range(7)], FRONTEND)
    assert batches == [(BATCH, 96, 64)] * 5
    assert [len(result) for result in results] == [10] * 7
    assert all(np.isfinite(result).all() for result in results)


@pytest.mark.parametrize("counts", [[], [0], [0, 0, 3, 0], [BATCH], [BATCH, BATCH + 1, 0]])
def test_any_number_of_patches(
    scorer: Scorer, batches: list[tuple[int, ...]], counts: list[int]
) -> None:
    results = scorer.score([piece(count, seed) for seed, count in enumerate(counts)], FRONTEND)
    assert [result.shape for result in results] == [(count, 521) for count in counts]
    assert len(batches) == -(-sum(counts) // BATCH)


def test_another_hop(scorer: Scorer) -> None:
    frames = piece(9).frames
    config = replace(FRONTEND, patch_hop_frames=96)
    (every,) = scorer.score([LogMelPiece(frames, 9)], FRONTEND)
    (second,) = scorer.score([LogMelPiece(frames, 5)], config)
    np.testing.assert_array_equal(second, every[::2])


def test_cancelled_between_two_batches(scorer: Scorer, batches: list[tuple[int, ...]]) -> None:
    answers = iter([False, False, True])
    with pytest.raises(Cancelled):
        scorer.run([piece(200)], FRONTEND, should_stop=lambda: next(answers))
    assert len(batches) == 2
    # What was left half done does not show in what follows.
    (after,) = scorer.score([piece(2)], FRONTEND)
    np.testing.assert_array_equal(after, scorer.score([piece(2)], FRONTEND)[0])


def test_threads_take_turns(scorer: Scorer) -> None:
    clips = [piece(3, seed) for seed in range(4)]
    alone = [scorer.score([clip], FRONTEND)[0] for clip in clips]
    found: dict[int, Any] = {}

    def work(index: int) -> None:
        found[index] = scorer.score([clips[index]], FRONTEND)[0]

    threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for index in range(4):
        np.testing.assert_array_equal(found[index], alone[index])


def test_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve_device("cpu").type == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device("auto").type == "cpu"
    with pytest.raises(UserError, match="--device cpu or auto"):
        resolve_device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert resolve_device("auto").type == resolve_device("cuda").type == "cuda"
    assert resolve_device("cpu").type == "cpu"


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("keep", [0, 200, 1_000_000])
def test_damaged_weights_are_named(
    yamnet_weights: ReadyWeights, tmp_path: Path, keep: int, engine: EngineName
) -> None:
    path = tmp_path / "cut.safetensors"
    path.write_bytes(yamnet_weights.path.read_bytes()[:keep])
    with pytest.raises(WeightsError, match=r"cut\.safetensors is damaged"):
        Scorer(YAMNET, replace(yamnet_weights, path=path), ComputeOptions("cpu", engine))


def test_another_networks_weights_are_named(yamnet_weights: ReadyWeights, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    path = tmp_path / "other.safetensors"
    save_file({"classifier.bias": torch.zeros(521)}, path)
    with pytest.raises(WeightsError, match="is damaged"):
        Scorer(YAMNET, replace(yamnet_weights, path=path), ComputeOptions("cpu"))


def test_no_lower_precision_on_a_gpu(
    yamnet_weights: ReadyWeights, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also while several threads compute: the settings are the process's."""
    seen: list[bool] = []

    def model(batch: torch.Tensor) -> Any:
        time.sleep(0.002 * (len(seen) % 3))
        # Convolutions in TF32, cuDNN's default, have 10 bits of mantissa.
        seen.append(torch.backends.cudnn.allow_tf32)
        seen.append(torch.get_float32_matmul_precision() != "highest")
        return torch.zeros(len(batch), 521), torch.zeros(len(batch), 1024)

    scorer = Scorer(YAMNET, yamnet_weights, ComputeOptions("cpu", "torch"), n_lanes=4)
    monkeypatch.setattr(scorer.network, "device", "cuda")
    monkeypatch.setattr(scorer.network, "_model", model)
    before = torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        scorer.score([piece(20 * BATCH)], FRONTEND)
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision(before[1])
    assert seen == [False] * 40
    assert torch.backends.cudnn.allow_tf32 == before[0]


# --- embeddings, and every model ----------------------------------------------------------------


@pytest.mark.numeric
def test_embeddings_on_request(scorer: Scorer, assets: Path) -> None:
    golden = np.load(assets / "golden" / "yamnet_golden.npz")
    pieces = [
        LogMelPiece(golden[f"{name}/log_mel"], len(golden[f"{name}/scores"]))
        for name in ("esc_dog", "short", "noise")
    ]
    with_them = scorer.run(pieces, FRONTEND, embeddings=True)
    without = scorer.run(pieces, FRONTEND)
    plain = scorer.score(pieces, FRONTEND)
    for name, both, none, logits in zip(
        ("esc_dog", "short", "noise"), with_them, without, plain, strict=True
    ):
        assert none.embeddings is None
        assert both.embeddings is not None
        assert both.embeddings.dtype == np.float32
        np.testing.assert_array_equal(both.logits, logits)
        np.testing.assert_array_equal(none.logits, logits)
        expected = golden[f"{name}/embeddings"]
        assert_within(both.embeddings, expected, EMBEDDING_BAR * np.abs(expected).max(), name)


@pytest.fixture(
    scope="module", params=[(n, e) for n in ("vggish", "headless vggish", "panns") for e in ENGINES]
)
def other(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Scorer:
    """The other models with random weights, in every engine."""
    from safetensors.torch import save_file

    what, engine = request.param
    name, has_scores = what.split()[-1], "headless" not in what
    path = tmp_path_factory.mktemp("other") / "weights.safetensors"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        state = find_bundle(name, has_scores=has_scores).build().state_dict()
    save_file(state, path)
    ready = ReadyWeights(path, name, "1-0", "0", has_scores=has_scores)
    # The bundle of the model is right for weights of either kind.
    made = Scorer(BUNDLES[name], ready, ComputeOptions("cpu", engine))
    path.unlink()
    return made


@pytest.mark.slow
def test_outputs_of_every_model(other: Scorer) -> None:
    bundle, config = other.bundle, other.bundle.frontend
    size = bundle.cpu_batch_patches
    counts = [0, 2, size, 1]

    def clip(index: int, count: int) -> LogMelPiece:
        n_frames = config.patch_hop_frames * (count - 1) + config.patch_frames if count else 0
        frames = np.random.default_rng(index).normal(-4, 2, (n_frames, config.n_mels))
        return LogMelPiece(frames.astype(np.float32), count)

    clips = [clip(*entry) for entry in enumerate(counts)]
    outputs = other.run(clips, config, embeddings=True)
    for count, output in zip(counts, outputs, strict=True):
        assert output.embeddings is not None
        assert output.embeddings.shape == (count, bundle.embedding_dim)
        assert np.isfinite(output.embeddings).all()
        assert (output.logits is not None) == bundle.has_scores
        if output.logits is not None:
            assert output.logits.shape == (count, 527)
    # Whatever stands beside a clip, and wherever in the batch it stands, to the bit.
    (alone,) = other.run([clips[1]], config, embeddings=True)
    np.testing.assert_array_equal(outputs[1].embeddings, alone.embeddings)
    (last,) = other.run([clips[3]], config, embeddings=True)
    np.testing.assert_array_equal(outputs[3].embeddings, last.embeddings)
    if bundle.has_scores:
        np.testing.assert_array_equal(outputs[1].logits, alone.logits)
        np.testing.assert_array_equal(other.score([clips[3]], config)[0], outputs[3].logits)
    else:
        with pytest.raises(UserError, match=r"no classifier head.*vggish_with_classifier\.pth"):
            other.score([clips[1]], config)


@pytest.mark.numeric
@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_gpu_equals_the_reference(yamnet_weights: ReadyWeights, assets: Path) -> None:
    golden = np.load(assets / "golden" / "yamnet_golden.npz")
    scorer = Scorer(YAMNET, yamnet_weights, ComputeOptions("cuda"))
    # Many batches, so that every buffer is used again and again.
    scorer.network.batch_patches = 4
    for name in ("esc_dog", "noise") * 5:
        frames, scores = golden[f"{name}/log_mel"], golden[f"{name}/scores"]
        (logits,) = scorer.score([LogMelPiece(frames, len(scores))], FRONTEND)
        assert_within(sigmoid(logits), scores, NETWORK_BAR, name)


class _SmallGpu:
    """The network on a GPU with room for so many patches."""

    def __init__(self, model: Any, room: int) -> None:
        self.model, self.room, self.sizes = model, room, list[int]()

    def __call__(self, batch: torch.Tensor) -> Any:
        self.sizes.append(len(batch))
        if len(batch) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return self.model(batch)


@pytest.mark.numeric
@pytest.mark.parametrize("room", [16, 5, 1])
def test_where_memory_runs_out_batches_are_halved_for_good(
    yamnet_weights: ReadyWeights, room: int
) -> None:
    small = Scorer(YAMNET, yamnet_weights, ComputeOptions("cpu", "torch"), n_lanes=1)
    expected = small.score([piece(40)], FRONTEND)[0]
    gpu = _SmallGpu(small.network._model, room)  # type: ignore[attr-defined]
    small.network._model = gpu  # type: ignore[attr-defined]
    found = small.score([piece(40)], FRONTEND)[0]
    assert_within(sigmoid(found), sigmoid(expected), NETWORK_BAR)
    too_large = [size for size in gpu.sizes if size > room]
    assert too_large == {16: [], 5: [16, 8], 1: [16, 8, 4, 2]}[room]
    fitting = next(size for size in (16, 8, 4, 2, 1) if size <= room)
    assert gpu.sizes[len(too_large) :] == [fitting] * (3 * 16 // fitting)


def test_no_memory_for_a_single_patch_is_told_in_one_line(yamnet_weights: ReadyWeights) -> None:
    scorer = Scorer(YAMNET, yamnet_weights, ComputeOptions("cpu", "torch"), n_lanes=1)
    scorer.network._model = _SmallGpu(None, 0)  # type: ignore[attr-defined]
    with pytest.raises(UserError, match=r"memory is full.*--device cpu"):
        scorer.score([piece(1)], FRONTEND)


@pytest.mark.numeric
@pytest.mark.parametrize("n_cores", [1, 3, 8])
def test_the_number_of_cores_changes_no_bit(
    scorer: Scorer, yamnet_weights: ReadyWeights, n_cores: int
) -> None:
    clips = [piece(70, 1), piece(5, 2)]
    expected = scorer.score(clips, FRONTEND)
    name = scorer.network.engine
    other = Scorer(YAMNET, yamnet_weights, ComputeOptions("cpu", name), n_lanes=n_cores)
    for mine, theirs in zip(other.score(clips, FRONTEND), expected, strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_torch_keeps_its_threads_for_others(yamnet_weights: ReadyWeights) -> None:
    before = torch.get_num_threads()
    Scorer(YAMNET, yamnet_weights, ComputeOptions("cpu", "torch")).score([piece(40)], FRONTEND)
    found: list[int] = [torch.get_num_threads()]
    thread = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert found == [before, before]


# --- engines ------------------------------------------------------------------------------------


@pytest.mark.numeric
def test_engines_agree(yamnet_weights: ReadyWeights, assets: Path) -> None:
    golden = np.load(assets / "golden" / "yamnet_golden.npz")
    names = [str(name) for name in golden["__names__"]]
    pieces = [LogMelPiece(golden[f"{n}/log_mel"], len(golden[f"{n}/scores"])) for n in names]
    found = [Scorer(YAMNET, yamnet_weights, ComputeOptions("cpu", e)).run(pieces, FRONTEND,
             embeddings=True) for e in ENGINES]  # fmt: skip
    for name, mine, theirs in zip(names, *found, strict=True):
        assert mine.logits is not None
        assert theirs.logits is not None
        assert_within(sigmoid(mine.logits), golden[f"{name}/scores"], NETWORK_BAR, name)
        assert_within(sigmoid(theirs.logits), golden[f"{name}/scores"], NETWORK_BAR, name)
        allowed = EMBEDDING_BAR * np.abs(golden[f"{name}/embeddings"]).max()
        assert_within(mine.embeddings, theirs.embeddings, allowed, name)


def test_a_translation_is_kept_and_needs_no_torch(
    yamnet_weights: ReadyWeights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUDIOSET_CACHE", str(tmp_path))
    (first,) = Scorer(YAMNET, yamnet_weights, OPENVINO).score([piece(3)], FRONTEND)
    (folder,) = (tmp_path / "openvino").iterdir()
    assert sorted(p.name for p in folder.iterdir()) == ["network.bin", "network.xml"]
    script = (
        "import sys, numpy as np\n"
        "from pathlib import Path\n"
        "from audioset_core.models.registry import YAMNET\n"
        "from audioset_core.inference.scorer import Scorer\n"
        "from audioset_core.features.patch_reader import LogMelPiece\n"
        "from audioset_core.weights.locate import ReadyWeights\n"
        f"ready = ReadyWeights(Path({str(yamnet_weights.path)!r}), 'yamnet', '1', '0')\n"
        "frames = np.random.default_rng(0).normal(-4, 2, (192, 64)).astype(np.float32)\n"
        "scorer = Scorer(YAMNET, ready)\n"
        "assert scorer.network.engine == 'openvino', scorer.network.engine\n"
        "(logits,) = scorer.score([LogMelPiece(frames, 3)], YAMNET.frontend)\n"
        f"np.save({str(tmp_path / 'logits.npy')!r}, logits)\n"
        "assert 'torch' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    np.testing.assert_array_equal(np.load(tmp_path / "logits.npy"), first)


@pytest.mark.slow
def test_translations_that_were_used_longest_ago_make_room(
    yamnet_weights: ReadyWeights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A head that is taught anew each day has other weights each day."""
    monkeypatch.setenv("AUDIOSET_CACHE", str(tmp_path))
    monkeypatch.setattr("audioset_core.inference.openvino_engine._MOST_KEPT_BYTES", 40_000_000)
    kept = tmp_path / "openvino"
    for day, name in enumerate(("used", "old", ".new-killed/older")):
        (kept / name).mkdir(parents=True)
        (kept / name / "network.bin").write_bytes(bytes(12_000_000))
        os.utime(kept / name.partition("/")[0], (1e9 - day, 1e9 - day))
    open_network(YAMNET, yamnet_weights, OPENVINO)  # of 15 MB
    (own,) = kept.glob("yamnet-*")
    assert sorted(kept.iterdir()) == sorted([own, kept / "used", kept / "old"])
    os.utime(own, (1, 1))
    open_network(YAMNET, yamnet_weights, OPENVINO)
    assert own.stat().st_mtime > 1e9


@pytest.mark.slow
@pytest.mark.parametrize("name", ["network.xml", "network.bin"])
def test_a_translation_cut_short_is_made_again(
    yamnet_weights: ReadyWeights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("AUDIOSET_CACHE", str(tmp_path))
    (first,) = Scorer(YAMNET, yamnet_weights, OPENVINO).score([piece(3)], FRONTEND)
    (path,) = (tmp_path / "openvino").glob(f"*/{name}")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    (again,) = Scorer(YAMNET, yamnet_weights, OPENVINO).score([piece(3)], FRONTEND)
    np.testing.assert_array_equal(again, first)
    assert path.stat().st_size > 0.99 * len(whole)  # a name in it counts up


def test_a_cache_that_cannot_be_written_does_no_harm(
    yamnet_weights: ReadyWeights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("AUDIOSET_CACHE", str(tmp_path / "file"))
    (found,) = Scorer(YAMNET, yamnet_weights, OPENVINO).score([piece(3)], FRONTEND)
    assert np.isfinite(found).all()


def test_what_cannot_be_had_is_told(yamnet_weights: ReadyWeights) -> None:
    with pytest.raises(UserError, match="use --engine torch with --device cuda"):
        open_network(YAMNET, yamnet_weights, ComputeOptions("cuda", "openvino"))
    assert open_network(YAMNET, yamnet_weights, ComputeOptions("cpu")).engine == "openvino"


def test_bfloat16_that_is_forbidden_is_told_in_one_line(
    yamnet_weights: ReadyWeights, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So it is under ``ONEDNN_MAX_CPU_ISA=AVX2`` on a processor that has bfloat16."""

    def refuse(*_: Any) -> Any:
        raise RuntimeError("object is not initialized")

    monkeypatch.setattr("openvino.Core.compile_model", refuse)
    with pytest.raises(UserError, match=r"--precision bf16: this processor does not compute in"):
        open_network(YAMNET, yamnet_weights, ComputeOptions(engine="openvino", precision="bf16"))
    with pytest.raises(RuntimeError, match="not initialized"):
        open_network(YAMNET, yamnet_weights, OPENVINO)


@pytest.mark.parametrize("engine", ENGINES)
def test_bfloat16_is_what_it_is_stated_to_be(
    yamnet_weights: ReadyWeights, assets: Path, engine: EngineName
) -> None:
    try:
        scorer = Scorer(YAMNET, yamnet_weights, ComputeOptions("cpu", engine, "bf16"))
    except UserError as error:
        assert engine == "openvino"  # torch computes in bfloat16 anywhere, if slowly
        pytest.skip(str(error))
    golden = np.load(assets / "golden" / "yamnet_golden.npz")
    names = [str(name) for name in golden["__names__"]]
    pieces = [LogMelPiece(golden[f"{n}/log_mel"], len(golden[f"{n}/scores"])) for n in names]
    found = np.concatenate(scorer.score(pieces, FRONTEND))
    exact = np.concatenate([golden[f"{name}/scores"] for name in names])
    assert (found.argmax(axis=1) == exact.argmax(axis=1)).mean() >= 0.97
    difference = np.abs(sigmoid(found) - exact).max()
    assert 1e-4 < difference < 0.15


def test_openvino_does_not_report_its_use(tmp_path: Path) -> None:
    """Its import alone sends an event and writes ~/intel, unless it finds no sender."""
    script = (
        "import sys\n"
        "from audioset_core.inference import openvino_engine as openvino_network\n"
        "assert not [name for name in sys.modules if name.startswith('openvino_telemetry')]\n"
        "assert 'openvino.tools.ovc.telemetry_stub' in sys.modules\n"
        # Others in the process have all of OpenVINO, and its sender if they ask for it.
        "assert callable(openvino_network.openvino.convert_model)\n"
        "import openvino_telemetry\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "CI"}
    environment |= {"HOME": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
    subprocess.run([sys.executable, "-c", script], env=environment, check=True)
    assert list(tmp_path.iterdir()) == []
