from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from audioset_core.features.config import YAMNET as FRONTEND
from audioset_core.features.log_mel import log_mel, patches
from audioset_core.models.folding import fold_batch_norm
from audioset_core.models.yamnet import (
    BATCH_NORM_EPS,
    EMBEDDING_DIM,
    N_CLASSES,
    SameConv2d,
    YAMNet,
)
from audioset_core.weights.conversion_proof import EMBEDDING_BAR, END_TO_END_BAR, NETWORK_BAR
from audioset_core.weights.convert import load_published
from tests.bounds import (
    U64,
    assert_possible,
    assert_rounding,
    assert_within,
    exact_outputs,
    sum_bound,
)

pytestmark = pytest.mark.numeric

NAMES = (
    "sine440", "chirp", "noise", "silence", "impulses", "short",
    "esc_dog", "esc_baby", "esc_clock", "esc_chainsaw",
)  # fmt: skip


@pytest.fixture(scope="module")
def golden(assets: Path) -> Any:
    return np.load(assets / "golden" / "yamnet_golden.npz")


def from_file(path: Path) -> YAMNet:
    model = YAMNet().eval()
    model.load_state_dict({k: torch.from_numpy(v) for k, v in load_published(path).items()})
    return model


@pytest.fixture(scope="module", params=["yamnet.h5", "yamnet_bn.h5"])
def model(request: pytest.FixtureRequest, assets: Path) -> YAMNet:
    return from_file(assets / "weights" / request.param)


@pytest.fixture(scope="module")
def folded(model: YAMNet) -> YAMNet:
    return fold_batch_norm(copy.deepcopy(model))


def run(model: YAMNet, inputs: np.ndarray[Any, Any]) -> tuple[Any, Any]:
    with torch.inference_mode():
        logits, embeddings = model(torch.from_numpy(inputs.copy()))
    return torch.sigmoid(logits).numpy(), embeddings.numpy()


def by_name(stacked: Any, golden: Any) -> Any:
    """Rows of one batch over all sounds, by sound."""
    return zip(
        NAMES, np.split(stacked, np.cumsum([len(golden[f"{n}/patches"]) for n in NAMES])[:-1]),
        strict=True,
    )  # fmt: skip


@pytest.mark.parametrize("is_folded", [False, True])
def test_network_on_given_patches(
    model: YAMNet, folded: YAMNet, golden: Any, is_folded: bool
) -> None:
    given = np.concatenate([golden[f"{name}/patches"] for name in NAMES])
    scores, embeddings = run(folded if is_folded else model, given)
    for name, found in by_name(scores, golden):
        assert_within(found, golden[f"{name}/scores"], NETWORK_BAR, name)
    for name, found in by_name(embeddings, golden):
        expected = golden[f"{name}/embeddings"]
        assert_within(found, expected, EMBEDDING_BAR * np.abs(expected).max(), name)


def test_scores_from_a_waveform(folded: YAMNet, golden: Any) -> None:
    inputs = [patches(log_mel(golden[f"{name}/waveform"], FRONTEND), FRONTEND) for name in NAMES]
    scores, _ = run(folded, np.concatenate(inputs))
    for name, found in by_name(scores, golden):
        assert_within(found, golden[f"{name}/scores"], END_TO_END_BAR, name)


@pytest.mark.slow
def test_the_bar_leaves_room_for_roundings(model: YAMNet, folded: YAMNet, golden: Any) -> None:
    given = np.concatenate([golden[f"{name}/patches"][::10] for name in NAMES])
    (logits, sigma), _ = exact_outputs(model, given, n_draws=2)
    for network in (model, folded):
        with torch.inference_mode():
            found, _ = network(torch.from_numpy(given.copy()))
        # Two draws say little of one value; its row says more.
        assert_rounding(found, logits, np.maximum(sigma, sigma.mean(axis=1, keepdims=True)))
    scores = 1 / (1 + np.exp(-logits))
    # The bar is 2.5 and more of the standard deviations of a walk that is rounded up: seen are
    # less than half of one on average (the table of `make test-numeric`).
    assert (2.5 * sigma * scores * (1 - scores)).max() <= NETWORK_BAR


@pytest.mark.parametrize("eps", [1e-3, 1e-5])
def test_a_wrong_epsilon_is_noticed(assets: Path, golden: Any, eps: float) -> None:
    # Only real batch-norm statistics show it fully.
    model = from_file(assets / "weights" / "yamnet_bn.h5")
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.eps == BATCH_NORM_EPS
            module.eps = eps
    scores, _ = run(model, golden["esc_dog/patches"])
    assert np.abs(scores - golden["esc_dog/scores"]).max() > 1e-4


def test_symmetric_padding_is_noticed(
    assets: Path, golden: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def symmetric(self: SameConv2d, x: torch.Tensor) -> torch.Tensor:
        pad = self.kernel_size[0] // 2
        return functional.conv2d(x, self.weight, None, self.stride, pad, groups=self.groups)

    model = from_file(assets / "weights" / "yamnet_bn.h5")
    monkeypatch.setattr(SameConv2d, "forward", symmetric)
    scores, _ = run(model, golden["esc_dog/patches"])
    assert np.abs(scores - golden["esc_dog/scores"]).max() > 1e-3


def brute_force_same(x: Any, kernel: Any, stride: int) -> Any:
    """tf.nn.conv2d(padding="SAME"), by its documentation, one output at a time."""
    height, width = x.shape
    size = kernel.shape[0]
    out = np.zeros((-(-height // stride), -(-width // stride)))
    before = []
    for length in (height, width):
        over = size - (stride if length % stride == 0 else length % stride)
        before.append(max(over, 0) // 2)
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            for di in range(size):
                for dj in range(size):
                    row, column = i * stride + di - before[0], j * stride + dj - before[1]
                    if 0 <= row < height and 0 <= column < width:
                        out[i, j] += x[row, column] * kernel[di, dj]
    return out


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("kernel", [1, 2, 3, 4])
@pytest.mark.parametrize(("height", "width"), [(96, 64), (7, 5), (6, 5), (5, 8), (1, 1), (2, 3)])
def test_same_padding(stride: int, kernel: int, height: int, width: int) -> None:
    rng = np.random.default_rng(1)
    x = rng.standard_normal((min(height, 9), width))
    convolution = SameConv2d(1, 1, kernel, stride, bias=False).double()
    with torch.no_grad():
        weight = convolution.weight
        ours = convolution(torch.from_numpy(x)[None, None])[0, 0].numpy()
        expected = brute_force_same(x, weight[0, 0].numpy(), stride)
    # Sums of up to 16 products of two numbers below 5, in float64.
    assert_possible(ours, expected, 2 * sum_bound(np.full(16, 25.0), 0, U64))


def test_shapes_and_size() -> None:
    model = YAMNet().eval()
    with torch.inference_mode():
        logits, embeddings = model(torch.zeros(3, 96, 64))
    assert (logits.shape, embeddings.shape) == ((3, N_CLASSES), (3, EMBEDDING_DIM))
    # Source: yamnet README, 3.7 million weights; the scale of the batch norm is not one of them.
    parameters = model.named_parameters()
    assert sum(p.numel() for n, p in parameters if not n.endswith("bn.weight")) == 3_729_481


def test_folding_twice_changes_nothing(model: YAMNet) -> None:
    once = fold_batch_norm(copy.deepcopy(model))
    twice = fold_batch_norm(copy.deepcopy(once))
    assert not any(isinstance(module, nn.BatchNorm2d) for module in once.modules())
    x = np.zeros((1, 96, 64), np.float32)
    np.testing.assert_array_equal(run(once, x)[0], run(twice, x)[0])
