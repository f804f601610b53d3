from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from audioset_core.errors import WeightsError
from audioset_core.models.folding import fold_batch_norm
from audioset_core.models.panns import Cnn14
from audioset_core.weights.convert import load_published
from tests.bounds import assert_rounding, layers_sigma

FILTERS = (64, 128, 256, 512, 1024, 2048)
MEL = "logmel_extractor.melW"
REAL = "spectrogram_extractor.stft.conv_real.weight"


def front_end_arrays() -> dict[str, torch.Tensor]:
    """The front end as the published file holds it, by its definition."""
    turns = np.exp(-2j * np.pi / 512 * np.outer(np.arange(257), np.arange(512)))
    turns *= np.sin(np.pi * np.arange(512) / 512) ** 2
    low, high = 50 * 3 / 200, 15 + 27 * np.log(8.0) / np.log(6.4)
    steps = np.linspace(low, high, 66)
    edges = np.where(steps < 15, steps * 200 / 3, 1000 * 6.4 ** ((steps - 15) / 27))
    hz = np.arange(257) * 31.25
    mel = [
        np.interp(hz, edges[i : i + 3], [0, 2 / (edges[i + 2] - edges[i]), 0]) for i in range(64)
    ]
    arrays = {
        REAL: turns.real[:, None],
        "spectrogram_extractor.stft.conv_imag.weight": turns.imag[:, None],
        MEL: np.stack(mel, axis=1),
    }
    return {name: torch.from_numpy(array.astype(np.float32)) for name, array in arrays.items()}


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    """A state dict under the published names, written down without our own code."""
    rng = torch.Generator().manual_seed(7)
    found = front_end_arrays()

    def norm(name: str, channels: int) -> None:
        found[f"{name}.weight"] = 1 + 0.1 * torch.randn(channels, generator=rng)
        found[f"{name}.bias"] = 0.1 * torch.randn(channels, generator=rng)
        found[f"{name}.running_mean"] = 0.1 * torch.randn(channels, generator=rng)
        found[f"{name}.running_var"] = 0.5 + torch.rand(channels, generator=rng)
        found[f"{name}.num_batches_tracked"] = torch.tensor(9)

    norm("bn0", 64)
    inputs = 1
    for block, filters in enumerate(FILTERS, 1):
        for half, channels in ((1, inputs), (2, filters)):
            weight = torch.randn(filters, channels, 3, 3, generator=rng)
            found[f"conv_block{block}.conv{half}.weight"] = weight * (2 / (9 * channels)) ** 0.5
            norm(f"conv_block{block}.bn{half}", filters)
        inputs = filters
    for name, outputs in (("fc1", 2048), ("fc_audioset", 527)):
        found[f"{name}.weight"] = torch.randn(outputs, 2048, generator=rng) / 32
        found[f"{name}.bias"] = 0.1 * torch.randn(outputs, generator=rng)
    return found


@pytest.fixture(scope="module")
def published(state: dict[str, torch.Tensor], tmp_path_factory: Any) -> Iterator[Path]:
    """The file as PANNs are published: a training checkpoint, its sampler's arrays beside it."""
    path = tmp_path_factory.mktemp("panns") / "Cnn14_16k_mAP=0.438.pth"
    sampler = {"indexes_per_class": [np.arange(3), np.arange(2)], "queue": [1, 2]}
    torch.save({"iteration": 660_000, "model": state, "sampler": sampler}, path)
    yield path
    path.unlink()


def in_float64(state: dict[str, torch.Tensor], patches: torch.Tensor) -> tuple[Any, Any]:
    """The layers of table I, one operation at a time."""
    exact = {name: tensor.double() for name, tensor in state.items()}

    def norm(x: torch.Tensor, name: str, axis: int) -> torch.Tensor:
        shape = [1] * 4
        shape[axis] = -1
        scale, shift, mean, variance = (
            exact[f"{name}.{part}"].view(shape)
            for part in ("weight", "bias", "running_mean", "running_var")
        )
        return (x - mean) / torch.sqrt(variance + 1e-5) * scale + shift

    x = norm(patches.double()[:, None], "bn0", 3)
    for block in range(1, 7):
        for half in (1, 2):
            x = functional.conv2d(x, exact[f"conv_block{block}.conv{half}.weight"], padding=1)
            x = norm(x, f"conv_block{block}.bn{half}", 1).clamp(min=0)
        if block < 6:
            even = x[:, :, : x.shape[2] // 2 * 2, : x.shape[3] // 2 * 2]
            x = sum(even[:, :, i::2, j::2] for i in (0, 1) for j in (0, 1)) / 4  # type: ignore[assignment]
    x = x.mean(3)
    x = x.max(2).values + x.mean(2)
    embeddings = (x @ exact["fc1.weight"].T + exact["fc1.bias"]).clamp(min=0)
    return embeddings @ exact["fc_audioset.weight"].T + exact["fc_audioset.bias"], embeddings


@pytest.mark.numeric
@pytest.mark.slow
def test_network_is_the_papers(published: Path, state: dict[str, torch.Tensor]) -> None:
    model = Cnn14().eval()
    arrays = load_published(published)
    model.load_state_dict({key: torch.from_numpy(array) for key, array in arrays.items()})
    # Fewer frames than in a patch, for speed; odd, so that a pool leaves one out.
    patches = 10 * torch.randn(1, 73, 64, generator=torch.manual_seed(1)) - 40
    with torch.inference_mode():
        expected = in_float64(state, patches)
        plain = model(patches)
        folded = fold_batch_norm(model)(patches)
    for outputs in (plain, folded):
        for found, exact in zip(outputs, expected, strict=True):
            assert_rounding(found, exact, layers_sigma(model, exact.numpy()))


def test_the_front_end_in_the_file_is_checked_and_not_used(
    published: Path, state: dict[str, torch.Tensor]
) -> None:
    arrays = load_published(published, model="panns")
    ours = {
        name
        for name in state
        if not name.startswith(("spectrogram", "logmel")) and "num_batches" not in name
    }
    assert arrays.keys() == ours


@pytest.mark.parametrize(("name", "factor"), [(MEL, 1.001), (REAL, 0.999)])
def test_another_front_end_is_refused(
    state: dict[str, torch.Tensor], tmp_path: Path, name: str, factor: float
) -> None:
    path = tmp_path / "other.pth"
    torch.save({"model": state | {name: state[name] * factor}}, path)
    with pytest.raises(WeightsError, match=f"{name} is not what this model's front end computes"):
        load_published(path)
    path.unlink()
