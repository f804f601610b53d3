"""Converted weights are proven equal, and a wrong conversion does not pass."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from audioset_core.errors import WeightsError
from audioset_core.models.registry import BUNDLES, YAMNET
from audioset_core.weights import conversion_proof as verify
from audioset_core.weights import tensorflow_networks as reference_tf
from audioset_core.weights.conversion_proof import Comparison, Report, sounds, verify_conversion
from audioset_core.weights.tensorflow_weights import read_weights
from tests.core.weights.test_reference_tf import (
    VGGISH_SHAPES,
    deterministic_vggish,
    require_tensorflow,
    save_torch,
)

F32 = NDArray[np.float32]

FEW = ("chirp up", "noise", "short noise")


@pytest.fixture(scope="module")
def tensorflow() -> Any:
    require_tensorflow()
    return reference_tf.load_tensorflow()


def needs_tensorflow(test: Callable[..., None]) -> Callable[..., None]:
    return pytest.mark.tf(pytest.mark.usefixtures("tensorflow")(test))


@pytest.fixture
def few_sounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Enough to notice a mistake, and faster."""
    heard = tuple(sound for sound in sounds() if sound.name in FEW)
    monkeypatch.setattr(verify, "sounds", lambda: heard)


@pytest.fixture
def bn_file(assets: Path) -> Path:
    return assets / "weights" / "yamnet_bn.h5"


def worst(report: Report, stage: str) -> float:
    return max(each.max_difference for each in report.comparisons if each.stage == stage)


# --- YAMNet -------------------------------------------------------------------------------------


@needs_tensorflow
@pytest.mark.parametrize("name", ["yamnet.h5", "yamnet_bn.h5"])
def test_published_yamnet_is_equal(assets: Path, name: str) -> None:
    report = verify_conversion(assets / "weights" / name)
    assert report.passed, report.rows()
    assert (report.model, report.source_name) == ("yamnet", name)
    stages = ["log-mel", "network", "network, folded", "end to end", "end to end, folded"]
    assert list(dict.fromkeys(each.stage for each in report.comparisons)) == stages
    heard = {sound.name for sound in sounds()}
    for stage in stages:
        assert {each.sound for each in report.comparisons if each.stage == stage} == heard
    # Not equal by comparing a thing with itself.
    assert 0 < worst(report, "network") < 1e-5
    assert 0 < worst(report, "end to end") < 1e-4


@needs_tensorflow
@pytest.mark.usefixtures("few_sounds")
def test_the_predecessors_file_is_equal(bn_file: Path, tmp_path: Path) -> None:
    save_torch(predecessor_state(read_weights(bn_file)), tmp_path / "yamnet.pth")
    report = verify_conversion(tmp_path / "yamnet.pth")
    assert report.passed, report.rows()
    assert report.model == "yamnet"


def predecessor_state(weights: dict[str, F32]) -> dict[str, Any]:
    """Published arrays as the older port keeps them, with a scale that is not one."""
    rng = np.random.default_rng(8)
    state: dict[str, Any] = {
        "classifier.weight": weights["logits/kernel"].T,
        "classifier.bias": weights["logits/bias"],
    }
    theirs = {"beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}
    for name, array in weights.items():
        layer, _, rest = name.partition("/")
        module, _, value = rest.rpartition("/")
        module = (
            module.replace("/", ".") if layer != "layer1" else module.replace("conv", "fused", 1)
        )
        module = f"{layer}.{module}".replace("/", ".")
        if value == "depthwise_kernel":
            state[f"{module}.conv.weight"] = array.transpose(2, 3, 0, 1)
        elif value == "kernel" and layer != "logits":
            state[f"{module}.conv.weight"] = array.transpose(3, 2, 0, 1)
        elif value in theirs:
            state[f"{module}.{theirs[value]}"] = array
            if value == "beta":
                state[f"{module}.weight"] = rng.uniform(0.9, 1.1, array.shape).astype(np.float32)
                state[f"{module}.num_batches_tracked"] = np.array(7)
    return state


# --- a wrong conversion does not pass -----------------------------------------------------------


def with_turned_kernel(arrays: dict[str, F32]) -> None:
    name = "layers.layer9.depthwise_conv.conv.weight"
    arrays[name] = np.ascontiguousarray(arrays[name].swapaxes(2, 3))


def with_one_scaled_variance(arrays: dict[str, F32]) -> None:
    arrays["layers.layer5.pointwise_conv.bn.running_var"] *= np.float32(1.01)


def with_swapped_classes(arrays: dict[str, F32]) -> None:
    for name in ("classifier.weight", "classifier.bias"):
        arrays[name][[0, 494]] = arrays[name][[494, 0]]


@needs_tensorflow
@pytest.mark.usefixtures("few_sounds")
@pytest.mark.parametrize(
    "spoil", [with_turned_kernel, with_one_scaled_variance, with_swapped_classes]
)
def test_a_mistake_in_one_array_is_noticed(
    bn_file: Path, monkeypatch: pytest.MonkeyPatch, spoil: Callable[[dict[str, F32]], None]
) -> None:
    load = verify.load_published

    def spoilt(source: Path, *, model: str | None) -> dict[str, F32]:
        arrays = load(source, model=model)
        spoil(arrays)
        return arrays

    monkeypatch.setattr(verify, "load_published", spoilt)
    report = verify_conversion(bn_file)
    assert not report.passed
    for stage in ("network", "network, folded"):
        assert worst(report, stage) > 1e-4
    assert worst(report, "log-mel") < 1e-2


@needs_tensorflow
@pytest.mark.usefixtures("few_sounds")
@pytest.mark.parametrize("eps", [1e-3, 1e-5])
def test_another_epsilon_is_noticed(
    bn_file: Path, monkeypatch: pytest.MonkeyPatch, eps: float
) -> None:
    monkeypatch.setattr("audioset_core.models.yamnet.BATCH_NORM_EPS", eps)
    report = verify_conversion(bn_file)
    assert not report.passed
    assert worst(report, "network") > 1e-5


@needs_tensorflow
@pytest.mark.usefixtures("few_sounds")
@pytest.mark.parametrize(
    ("change", "value"), [("log_offset", 0.01), ("mel_min_hz", 120.0), ("patch_hop_frames", 96)]
)
def test_another_front_end_is_noticed(
    bn_file: Path, monkeypatch: pytest.MonkeyPatch, change: str, value: Any
) -> None:
    changed = replace(YAMNET, frontend=replace(YAMNET.frontend, **{change: value}))
    monkeypatch.setitem(BUNDLES, "yamnet", changed)
    report = verify_conversion(bn_file)
    assert not report.passed
    assert worst(report, "network") < 1e-5
    assert worst(report, "end to end") > 1e-4


def test_a_model_without_reference(bn_file: Path) -> None:
    with pytest.raises(WeightsError, match=r"'panns'.*yamnet, vggish"):
        verify_conversion(bn_file, "panns")


# --- VGGish -------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def vggish_weights() -> dict[str, F32]:
    return deterministic_vggish()


@pytest.fixture(scope="module")
def vggish_checkpoint(
    tensorflow: Any, vggish_weights: dict[str, F32], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """As Google's: one file of the older format, 288 MB."""
    path: Path = tmp_path_factory.mktemp("vggish") / "vggish_model.ckpt"
    names, arrays = list(vggish_weights), list(vggish_weights.values())
    tensorflow.raw_ops.Save(filename=str(path), tensor_names=names, data=arrays)
    return path


@needs_tensorflow
@pytest.mark.slow
def test_vggish_checkpoint_is_equal(vggish_checkpoint: Path) -> None:
    report = verify_conversion(vggish_checkpoint)
    assert report.passed, report.rows()
    assert report.model == "vggish"
    assert {each.quantity for each in report.comparisons} == {"log-mel", "embeddings"}
    assert 0 < worst(report, "network") < 1e-4


@needs_tensorflow
@pytest.mark.slow
def test_converted_vggish_gives_the_golden_embeddings(
    vggish_checkpoint: Path, assets: Path
) -> None:
    golden = np.load(assets / "golden" / "vggish_golden.npz")
    network = verify._networks(verify.load_published(vggish_checkpoint, model="vggish"), "vggish")[
        ""
    ]
    for name in ("chirp", "noise", "esc_dog"):
        expected = golden[f"{name}/embeddings_detweights"]
        scores, found = verify._outputs(network, golden[f"{name}/examples"])
        assert scores is None
        assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()


@needs_tensorflow
@pytest.mark.slow
@pytest.mark.usefixtures("few_sounds")
def test_torch_vggish_with_a_head_is_equal(
    vggish_weights: dict[str, F32], tmp_path: Path, rng: np.random.Generator
) -> None:
    modules = [f"features.{i}" for i in (0, 3, 6, 8, 11, 13)]
    modules += [f"embeddings.{i}" for i in (0, 2, 4)]
    state: dict[str, Any] = {}
    for module, layer in zip(modules, VGGISH_SHAPES, strict=True):
        kernel = vggish_weights[f"vggish/{layer}/weights"]
        state[f"{module}.weight"] = kernel.transpose((3, 2, 0, 1) if kernel.ndim == 4 else (1, 0))
        state[f"{module}.bias"] = vggish_weights[f"vggish/{layer}/biases"]
    for module, shape in (("classifier.0", (100, 128)), ("classifier.2", (527, 100))):
        state[f"{module}.weight"] = rng.normal(0, shape[1] ** -0.5, shape).astype(np.float32)
        state[f"{module}.bias"] = rng.normal(0, 0.1, shape[0]).astype(np.float32)
    save_torch(state, tmp_path / "vggish_with_classifier.pth")
    report = verify_conversion(tmp_path / "vggish_with_classifier.pth")
    assert report.passed, report.rows()
    assert report.model == "vggish"
    assert {each.quantity for each in report.comparisons} == {"log-mel", "scores", "embeddings"}


# --- the report ---------------------------------------------------------------------------------


def comparison(**changes: Any) -> Comparison:
    values: dict[str, Any] = {
        "stage": "log-mel", "quantity": "log-mel", "sound": "noise", "is_tone": False,
        "n_values": 100, "max_difference": 1e-3, "mean_difference": 1e-6,
        "max_bar": 1e-2, "mean_bar": 1e-5,
    }  # fmt: skip
    return Comparison(**(values | changes))


def report(*comparisons: Comparison) -> Report:
    return Report(source_name="w.h5", model="yamnet", comparisons=comparisons)


@pytest.mark.parametrize(
    ("changes", "passed"),
    [
        ({}, True),
        ({"max_difference": 1e-2}, True),
        ({"max_difference": 1.1e-2}, False),
        ({"mean_difference": 1.1e-5}, False),
        ({"mean_difference": 1.1e-5, "mean_bar": None}, True),
        ({"max_difference": math.nan}, False),
        ({"mean_difference": math.nan}, False),
        ({"max_difference": math.inf}, False),
    ],
)
def test_bars(changes: dict[str, Any], passed: bool) -> None:
    assert comparison(**changes).passed is passed
    assert report(comparison(), comparison(**changes)).passed is passed
    assert report(comparison(**changes)).rows()[1][-1] == ("ok" if passed else "FAILED")


def test_nothing_compared_is_no_proof() -> None:
    assert not report().passed


def test_overall_is_the_worst_and_the_mean_of_all_values() -> None:
    tone = comparison(
        sound="sine", is_tone=True, n_values=300, max_difference=5e-3, mean_difference=1e-4,
        mean_bar=None,
    )  # fmt: skip
    overall = verify._over_all([comparison(), tone])
    assert overall.max_difference == 5e-3
    assert overall.mean_difference == pytest.approx((100 * 1e-6 + 300 * 1e-4) / 400)
    assert overall.n_values == 400
    assert overall.mean_bar is None


def test_rows() -> None:
    tone = comparison(sound="sine", is_tone=True, mean_bar=None, mean_difference=2e-4)
    bad = comparison(stage="network", quantity="scores", max_difference=1.0, mean_bar=None)
    rows = report(comparison(), tone, bad).rows()
    assert rows == (
        ("stage", "of", "sound", "largest", "bar", "mean", "bar", ""),
        ("log-mel", "log-mel", "all", "1.0e-03", "1e-02", "1.0e-04", "", "ok"),
        ("network", "scores", "all", "1.0e+00", "1e-02", "1.0e-06", "", "FAILED"),
        ("log-mel", "log-mel", "noise", "1.0e-03", "1e-02", "1.0e-06", "1e-05", "ok"),
        ("log-mel", "log-mel", "sine *", "1.0e-03", "1e-02", "2.0e-04", "", "ok"),
        ("network", "scores", "noise", "1.0e+00", "1e-02", "1.0e-06", "", "FAILED"),
    )


def test_different_shapes_are_infinitely_different() -> None:
    sound = sounds()[0]
    found, expected = np.zeros((2, 3), np.float32), np.zeros((3, 3), np.float32)
    each = verify._comparison("network", "scores", sound, found, expected, 1.0)
    assert each.max_difference == math.inf
    assert not each.passed


# --- the sounds ---------------------------------------------------------------------------------


def test_sounds_are_the_same_every_time() -> None:
    for one, other in zip(sounds(), sounds(), strict=True):
        assert one.name == other.name
        np.testing.assert_array_equal(one.samples, other.samples)


def test_sounds_cover_what_matters() -> None:
    heard = sounds()
    assert all(sound.samples.dtype == np.float32 for sound in heard)
    assert sum(sound.is_tone for sound in heard) >= 6
    lengths = [len(sound.samples) for sound in heard]
    assert min(lengths) < 15_600 <= sorted(lengths)[1]
    assert max(lengths) <= 80_000
    assert max(float(np.abs(sound.samples).max()) for sound in heard) > 1.0
