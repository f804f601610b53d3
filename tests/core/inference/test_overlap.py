"""Consecutive patches that share layers: the same network, and the same bits."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from audioset_core.features.log_mel import log_mel, patches
from audioset_core.features.patch_reader import LogMelPiece
from audioset_core.inference import openvino_engine
from audioset_core.inference.interface import ComputeOptions
from audioset_core.inference.openvino_engine import OpenVinoNetwork
from audioset_core.inference.openvino_overlap import overlapping
from audioset_core.inference.scorer import Scorer
from audioset_core.models.registry import BUNDLES, YAMNET, ModelBundle
from audioset_core.scores.pooling import sigmoid
from audioset_core.weights.conversion_proof import EMBEDDING_BAR, NETWORK_BAR
from audioset_core.weights.locate import ReadyWeights
from tests.bounds import assert_within

CPU = ComputeOptions("cpu", "openvino")


@pytest.fixture(scope="module")
def yamnet(yamnet_weights: ReadyWeights) -> OpenVinoNetwork:
    return OpenVinoNetwork(YAMNET, yamnet_weights, CPU, n_lanes=1)


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short runs share layers too."""
    monkeypatch.setattr(openvino_engine, "_SECONDS_BEFORE_SHARING", 0)


def assert_shares(network: OpenVinoNetwork, bundle: ModelBundle, frames: Any, hop: int) -> None:
    """One batch: within the bars whatever the processor; offered where the bits are the same."""
    config = replace(bundle.frontend, patch_hop_frames=hop)
    frames = frames[: (network.batch_patches - 1) * hop + config.patch_frames]
    model = overlapping(network._model, hop)
    assert model is not None
    shared = openvino_engine._inferred(network._compiled(model), frames[np.newaxis])
    apart = network.forward(np.ascontiguousarray(patches(frames, config)))
    assert_within(shared[1], apart[1], EMBEDDING_BAR * np.abs(apart[1]).max())
    assert shared[0] is not None
    assert apart[0] is not None
    assert_within(sigmoid(shared[0]), sigmoid(apart[0]), NETWORK_BAR)
    is_same = np.array_equal(shared[0], apart[0]) and np.array_equal(shared[1], apart[1])
    # Another input than the one by which the engine has decided.
    assert (network.sharing(config) is not None) == is_same


@pytest.mark.slow
@pytest.mark.numeric
@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("hop", [48, 24, 16, 4])
def test_every_value_is_that_of_the_patch_by_itself(
    yamnet: OpenVinoNetwork, assets: Path, hop: int
) -> None:
    golden = np.load(assets / "golden" / "yamnet_golden.npz")
    frames = [golden[f"{name}/log_mel"] for name in golden["__names__"]]
    assert_shares(yamnet, YAMNET, np.concatenate(frames), hop)


@pytest.mark.slow
@pytest.mark.numeric
@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize(
    ("name", "hop"), [("panns", 100), ("panns", 50), ("vggish", 48), ("vggish", 24)]
)
def test_of_other_networks_too(name: str, hop: int, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    bundle = BUNDLES[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        save_file(bundle.build().state_dict(), tmp_path / "weights.safetensors")
    ready = ReadyWeights(tmp_path / "weights.safetensors", name, "1-0", "0")
    network = OpenVinoNetwork(bundle, ready, CPU, n_lanes=1)
    rng = np.random.default_rng(3)
    frames = log_mel(rng.normal(0, 0.1, 16_000 * 20).astype(np.float32), bundle.frontend)
    assert_shares(network, bundle, frames, hop)


@pytest.mark.parametrize("hop", [96, 47, 10, 72])
def test_nothing_is_shared_where_nothing_is_gained(yamnet: OpenVinoNetwork, hop: int) -> None:
    """No overlap; a hop that is no multiple of the strides, or of too few; little overlap."""
    assert overlapping(yamnet._model, hop) is None


@pytest.mark.slow
@pytest.mark.numeric
@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("hop", [48, 24])
def test_scores_are_the_same_however_they_are_computed(
    yamnet_weights: ReadyWeights, monkeypatch: pytest.MonkeyPatch, hop: int
) -> None:
    scorer = Scorer(YAMNET, yamnet_weights, CPU)
    config = replace(YAMNET.frontend, patch_hop_frames=hop)
    n_shared: list[int] = []
    if (sharing := scorer.network.sharing(config)) is not None:

        def counting(frames: Any) -> Any:
            n_shared.append(len(frames))
            return sharing(frames)

        monkeypatch.setattr(scorer.network, "sharing", lambda _: counting)

    def clip(n_patches: int, seed: int) -> LogMelPiece:
        n_frames = hop * (n_patches - 1) + 96
        frames = np.random.default_rng(seed).normal(-4, 2, (n_frames, 64)).astype(np.float32)
        frames[hop * 20 : hop * 30 + 96] = -6.9  # silence within a batch
        return LogMelPiece(frames, n_patches)

    pieces = [clip(70, 0), clip(5, 1), clip(33, 2)]
    found = scorer.run(pieces, config, embeddings=True)
    # Without silence, of 0 to 20 and 31 to 70, 16 + 2 x 16; of the last piece 16.
    assert n_shared in ([], [15 * hop + 96] * 4)
    if os.environ.get("ONEDNN_MAX_CPU_ISA") != "SSE41":
        assert n_shared
    monkeypatch.setattr(scorer.network, "sharing", lambda _: None)
    expected = scorer.run(pieces, config, embeddings=True)
    for mine, theirs in zip(found, expected, strict=True):
        np.testing.assert_array_equal(mine.logits, theirs.logits)
        np.testing.assert_array_equal(mine.embeddings, theirs.embeddings)


@pytest.mark.slow
def test_other_bits_are_not_offered(
    yamnet_weights: ReadyWeights, monkeypatch: pytest.MonkeyPatch, at_once: None
) -> None:
    """As without AVX2, where sums are split by the size of what is computed."""
    network = OpenVinoNetwork(YAMNET, yamnet_weights, CPU, n_lanes=1)
    inferred = openvino_engine._inferred

    def rounded(idle: Any, batch: Any) -> Any:
        logits, embeddings = inferred(idle, batch)
        assert logits is not None
        return logits + np.float32(1e-5) * (len(batch) == 1), embeddings

    monkeypatch.setattr(openvino_engine, "_inferred", rounded)
    assert network.sharing(YAMNET.frontend) is None


def test_a_network_that_cannot_be_changed_computes_every_patch(
    yamnet_weights: ReadyWeights,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    at_once: None,
) -> None:
    def refuse(*_: Any) -> Any:
        raise AttributeError("an operation of a later version")

    monkeypatch.setattr(openvino_engine, "overlapping", refuse)
    network = OpenVinoNetwork(YAMNET, yamnet_weights, CPU, n_lanes=1)
    assert network.sharing(YAMNET.frontend) is None
    assert network.sharing(YAMNET.frontend) is None
    assert caplog.messages == [
        "layers of overlapping patches are not shared: an operation of a later version"
    ]


def test_short_runs_do_not_wait_for_it(
    yamnet_weights: ReadyWeights, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openvino_engine, "_SECONDS_BEFORE_SHARING", 1e9)
    network = OpenVinoNetwork(YAMNET, yamnet_weights, CPU, n_lanes=1)
    assert network.sharing(YAMNET.frontend) is None
    assert not network._sharing
