"""The embedded model: its file, its network on both engines, and what it hears."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soxr
import torch
from safetensors.numpy import load_file

from audioset_core.data import FOLDER
from audioset_core.demo_sounds import DEMO_SOUNDS
from audioset_core.errors import WeightsError
from audioset_core.features.log_mel import log_mel, patches
from audioset_core.features.patch_reader import LogMelPiece
from audioset_core.inference.engines import open_network
from audioset_core.inference.interface import ComputeOptions, EngineName
from audioset_core.inference.scorer import Scorer
from audioset_core.models.folding import fold_batch_norm
from audioset_core.models.pocket import Pocket, layouts
from audioset_core.models.registry import POCKET, YAMNET
from audioset_core.scores.pooling import sigmoid
from audioset_core.weights.convert import convert, read_metadata, tensors_sha256
from audioset_core.weights.locate import ReadyWeights, prepare

EMBEDDED = FOLDER / POCKET.embedded


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory) -> ReadyWeights:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AUDIOSET_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.delenv("AUDIOSET_WEIGHTS_POCKET", raising=False)
        return prepare(POCKET)


@pytest.fixture(scope="module")
def network(ready: ReadyWeights) -> Pocket:
    model = Pocket().eval()
    model.load_state_dict(
        {name: torch.from_numpy(array).float() for name, array in load_file(ready.path).items()}
    )
    return model


def test_the_file_lies_in_the_package_and_is_small(ready: ReadyWeights) -> None:
    assert ready.path == EMBEDDED
    assert EMBEDDED.stat().st_size <= 2_500_000
    arrays = load_file(EMBEDDED)
    assert all(np.isfinite(array).all() for array in arrays.values())
    assert ready.version == f"1-{tensors_sha256(arrays)[:12]}"
    assert read_metadata(EMBEDDED)["model"] == "pocket"


def test_it_has_yamnets_classes_and_front_end() -> None:
    assert POCKET.categories == YAMNET.categories
    assert POCKET.frontend == YAMNET.frontend


def test_other_weights_can_be_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AUDIOSET_WEIGHTS_POCKET", str(tmp_path / "mine.safetensors"))
    with pytest.raises(WeightsError, match="AUDIOSET_WEIGHTS_POCKET: no weights file at"):
        prepare(POCKET)


def test_its_answers_come_with_a_caution(ready: ReadyWeights) -> None:
    assert ready.named == f"pocket {ready.version} ({POCKET.caution})"


def sounds() -> np.ndarray[Any, Any]:
    """Patches of noise, tones and silence. Shape: ``[n, 96, 64]``."""
    rng = np.random.default_rng(3)
    time_s = np.arange(48_000) / 16_000
    made = (
        0.1 * rng.standard_normal(48_000),
        0.5 * np.sin(2 * np.pi * 440 * time_s),
        np.zeros(48_000),
    )
    config = POCKET.frontend
    return np.concatenate([patches(log_mel(np.float32(s), config), config) for s in made])


@pytest.mark.numeric
def test_folding_batch_norms_changes_no_logit(network: Pocket) -> None:
    """Each output is a sum of products; folding rounds each factor once more.

    A convolution sums up to 1,368 products, fifteen of them follow each other. Rounding errors of
    float32 (unit roundoff 6e-8) that add up without cancelling give 15 * sqrt(1368) * 6e-8 = 3e-5
    of the largest term; logits reach about 15.
    """
    given = torch.from_numpy(sounds())
    folded = fold_batch_norm(copy.deepcopy(network))
    with torch.inference_mode():
        before, after = network(given), folded(given)
    for one, other in zip(before, after, strict=True):
        scale = float(one.abs().max())
        np.testing.assert_allclose(other.numpy(), one.numpy(), rtol=0, atol=3e-5 * scale)


@pytest.mark.numeric
@pytest.mark.parametrize("engine", ["torch", "openvino"])
def test_both_engines_score_alike(engine: EngineName, ready: ReadyWeights, network: Pocket) -> None:
    """As for every model: scores of the engines agree within 1e-5."""
    opened = open_network(POCKET, ready, ComputeOptions("cpu", engine), n_lanes=1)
    given = sounds()
    batch = np.zeros((opened.batch_patches, *given.shape[1:]), np.float32)
    n_patches = min(len(given), len(batch))
    batch[:n_patches] = given[:n_patches]
    logits, embeddings = opened.forward(torch.from_numpy(batch) if engine == "torch" else batch)
    assert logits is not None
    with torch.inference_mode():
        expected, inner = network(torch.from_numpy(batch))
    found = sigmoid(logits), embeddings
    np.testing.assert_allclose(found[0], sigmoid(expected.numpy()), rtol=0, atol=1e-5)
    scale = float(inner.abs().max())
    np.testing.assert_allclose(found[1], inner.numpy(), rtol=0, atol=3e-5 * scale)


def test_a_training_s_state_is_converted_like_any_published_file(
    network: Pocket, tmp_path: Path
) -> None:
    source, target = tmp_path / "pocket.pth", tmp_path / "pocket.safetensors"
    torch.save(network.state_dict(), source)
    found = convert(source, target)
    assert (found["model"], found["has_scores"]) == ("pocket", "true")
    again = load_file(target)
    assert again.keys() == layouts()[0].targets.keys()
    for name, array in load_file(EMBEDDED).items():
        np.testing.assert_array_equal(again[name], array.astype(np.float32))


@pytest.mark.slow
def test_it_names_the_demo_s_sounds(ready: ReadyWeights) -> None:
    """At least 13 of 17 among the best three of the clip's mean: what the demo shows a stranger."""
    scorer = Scorer(POCKET, ready, ComputeOptions("cpu"))
    config = POCKET.frontend
    names = [category.name for category in POCKET.categories]
    missed = []
    for sound in DEMO_SOUNDS:
        mono = sound.samples().mean(axis=1)
        heard = np.float32(soxr.resample(mono, sound.sample_rate_hz, config.sample_rate_hz))
        piece = LogMelPiece(log_mel(heard, config), config.n_patches(len(heard)))
        (logits,) = scorer.score([piece], config)
        best = sigmoid(logits).mean(axis=0).argsort()[::-1][:3]
        if not {names[i] for i in best} & set(sound.expected):
            missed.append(sound.file_name)
    assert len(missed) <= len(DEMO_SOUNDS) - 13, missed
