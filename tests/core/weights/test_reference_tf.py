"""The reference itself: it must reproduce what Google's code gave, and read every file alone."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from audioset_core.errors import WeightsError
from audioset_core.features.config import VGGISH, YAMNET
from audioset_core.features.log_mel import patches
from audioset_core.features.mel import hann_window
from audioset_core.weights import tensorflow_networks as reference_tf
from audioset_core.weights.conversion_proof import EMBEDDING_BAR, END_TO_END_BAR, NETWORK_BAR
from audioset_core.weights.tensorflow_weights import model_of, read_weights
from tests.bounds import U32, assert_rounding, assert_within, htk_matrix, log_mel_sigma

F32 = NDArray[np.float32]

SYNTHETIC = ("sine440", "chirp", "noise", "silence", "impulses", "short")
NAMES = (*SYNTHETIC, "esc_dog", "esc_baby", "esc_clock", "esc_chainsaw")

VGGISH_SHAPES = {
    "conv1": (3, 3, 1, 64),
    "conv2": (3, 3, 64, 128),
    "conv3/conv3_1": (3, 3, 128, 256),
    "conv3/conv3_2": (3, 3, 256, 256),
    "conv4/conv4_1": (3, 3, 256, 512),
    "conv4/conv4_2": (3, 3, 512, 512),
    "fc1/fc1_1": (6 * 4 * 512, 4096),
    "fc1/fc1_2": (4096, 4096),
    "fc2": (4096, 128),
}


def require_tensorflow() -> None:
    if importlib.util.find_spec("tensorflow") is None:
        if "CI" in os.environ:
            pytest.fail("tensorflow is not installed: the proof of conversions would be skipped")
        pytest.skip("tensorflow is not installed (the extra 'convert')")


@pytest.fixture(scope="module")
def tensorflow() -> Any:
    require_tensorflow()
    return reference_tf.load_tensorflow()


def needs_tensorflow(test: Callable[..., None]) -> Callable[..., None]:
    return pytest.mark.tf(pytest.mark.usefixtures("tensorflow")(test))


@pytest.fixture(scope="module")
def golden(assets: Path) -> Any:
    return np.load(assets / "golden" / "yamnet_golden.npz")


@pytest.fixture(scope="module")
def vggish_golden(assets: Path) -> Any:
    return np.load(assets / "golden" / "vggish_golden.npz")


@pytest.fixture(scope="module")
def yamnet_file(assets: Path) -> Path:
    return assets / "weights" / "yamnet.h5"


@pytest.fixture(scope="module")
def yamnet(tensorflow: Any, yamnet_file: Path) -> reference_tf.Reference:
    return reference_tf.yamnet(read_weights(yamnet_file))


def deterministic_vggish() -> dict[str, F32]:
    """The weights that the golden embeddings were made with; see ``__weights_rule__`` there."""

    def draw(name: str, shape: tuple[int, ...], scale: float) -> F32:
        rng = np.random.default_rng(zlib.crc32(name.encode()))
        return rng.standard_normal(shape, dtype=np.float32) * np.float32(scale)

    weights = {}
    for layer, shape in VGGISH_SHAPES.items():
        name = f"vggish/{layer}/weights"
        weights[name] = draw(name, shape, float(np.sqrt(2 / np.prod(shape[:-1]))))
        name = f"vggish/{layer}/biases"
        weights[name] = draw(name, shape[-1:], 0.1)
    return weights


# --- equal to what Google's code gave -----------------------------------------------------------


@needs_tensorflow
@pytest.mark.parametrize("name", NAMES)
def test_yamnet_log_mel_is_googles(yamnet: Any, golden: Any, name: str) -> None:
    # Bit-equal with the build that made the golden values. Another's FFT, and a window that another
    # cosine moves by a unit in the last place of 1 (2 u), show as noise in the samples: of twice as
    # much, for a windowed frame has 0.6 of a frame's length.
    samples = golden[f"{name}/waveform"]
    theirs = golden["mel_matrix"] - htk_matrix()
    _, sigma = log_mel_sigma(samples, YAMNET, noise=4 * U32, weights_error=theirs)
    assert_rounding(yamnet.log_mel(samples), golden[f"{name}/log_mel"], 2 * sigma, name)
    np.testing.assert_array_equal(
        yamnet.patches(golden[f"{name}/log_mel"]), golden[f"{name}/patches"]
    )


@needs_tensorflow
def test_yamnet_scores_are_googles(yamnet: Any, golden: Any) -> None:
    for name in NAMES:
        scores, embeddings = yamnet.network(
            yamnet.patches(yamnet.log_mel(golden[f"{name}/waveform"]))
        )
        np.testing.assert_allclose(
            scores, golden[f"{name}/scores"], rtol=0, atol=END_TO_END_BAR, err_msg=name
        )
        expected = golden[f"{name}/embeddings"]
        assert_within(embeddings, expected, EMBEDDING_BAR * np.abs(expected).max(), name)


@needs_tensorflow
def test_batch_norm_statistics_take_part(assets: Path, yamnet: Any, golden: Any) -> None:
    with_statistics = reference_tf.yamnet(read_weights(assets / "weights" / "yamnet_bn.h5"))
    given = golden["esc_dog/patches"]
    assert_within(with_statistics.network(given)[0], yamnet.network(given)[0], NETWORK_BAR)


@needs_tensorflow
@pytest.mark.slow
def test_vggish_is_googles(vggish_golden: Any, golden: Any) -> None:
    vggish = reference_tf.vggish(deterministic_vggish())
    for name in NAMES:
        examples = vggish.patches(vggish.log_mel(golden[f"{name}/waveform"]))
        expected = vggish_golden[f"{name}/examples"]
        _, sigma = log_mel_sigma(golden[f"{name}/waveform"], VGGISH)
        assert_rounding(examples, expected, patches(2 * sigma, VGGISH), name)
        scores, embeddings = vggish.network(examples)
        assert scores is None
        expected = vggish_golden[f"{name}/embeddings_detweights"]
        assert embeddings.shape == expected.shape
        allowed = EMBEDDING_BAR * np.abs(expected).max(initial=0)
        assert_within(embeddings, expected, allowed, name)


@needs_tensorflow
@pytest.mark.parametrize(
    ("n_samples", "n_patches"),
    [(0, 1), (1, 1), (15_600, 1), (15_601, 2), (23_280, 2), (23_281, 3)],
)
def test_yamnet_pads_to_whole_patches(yamnet: Any, n_samples: int, n_patches: int) -> None:
    frames = yamnet.log_mel(np.zeros(n_samples, np.float32))
    assert len(frames) == 96 + 48 * (n_patches - 1)
    assert len(yamnet.patches(frames)) == n_patches


@needs_tensorflow
def test_our_window_is_tensorflows(tensorflow: Any) -> None:
    # Its rounding is most of what lies between the lines of a pure tone. Ours is that of one build
    # on every processor (test_frontend.py); another build's cosine may be a unit of 1 (2 u) away.
    assert_within(hann_window(YAMNET), tensorflow.signal.hann_window(400).numpy(), 2 * U32)


# --- reading ------------------------------------------------------------------------------------


def small_weights() -> dict[str, F32]:
    rng = np.random.default_rng(3)
    shapes = {
        "layer1/conv/kernel": (3, 3, 1, 4),
        "layer1/conv/bn/beta": (4,),
        "layer2/depthwise_conv/depthwise_kernel": (3, 3, 4, 1),
        "layer2/depthwise_conv/bn/moving_variance": (4,),
        "layer2/pointwise_conv/kernel": (1, 1, 4, 6),
        "logits/kernel": (6, 5),
        "logits/bias": (5,),
    }
    return {name: rng.standard_normal(shape, dtype=np.float32) for name, shape in shapes.items()}


def assert_same(found: dict[str, F32], expected: dict[str, F32]) -> None:
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert found[name].dtype == np.float32
        np.testing.assert_array_equal(found[name], array, err_msg=name)


def test_reads_every_array_of_the_published_file(yamnet_file: Path) -> None:
    weights = read_weights(yamnet_file)
    assert len(weights) == 110
    assert model_of(weights) == "yamnet"
    assert sum(array.size for array in weights.values()) == 3_729_481 + 21_888
    with h5py.File(yamnet_file) as file:
        path = "layer9/depthwise_conv/bn/layer9/depthwise_conv/bn/moving_variance:0"
        np.testing.assert_array_equal(
            weights["layer9/depthwise_conv/bn/moving_variance"], file[path]
        )


def test_reads_the_predecessors_file(tmp_path: Path) -> None:
    weights = small_weights()
    state = {
        "layer1.fused.conv.weight": weights["layer1/conv/kernel"].transpose(3, 2, 0, 1),
        "layer1.fused.bn.bias": weights["layer1/conv/bn/beta"],
        "layer1.fused.bn.num_batches_tracked": np.array(7),
        "layer2.depthwise_conv.conv.weight": weights[
            "layer2/depthwise_conv/depthwise_kernel"
        ].transpose(2, 3, 0, 1),
        "layer2.depthwise_conv.bn.running_var": weights["layer2/depthwise_conv/bn/moving_variance"],
        "layer2.pointwise_conv.conv.weight": weights["layer2/pointwise_conv/kernel"].transpose(
            3, 2, 0, 1
        ),
        "classifier.weight": weights["logits/kernel"].T,
        "classifier.bias": weights["logits/bias"],
    }
    save_torch(state, tmp_path / "yamnet.pth")
    assert_same(read_weights(tmp_path / "yamnet.pth"), weights)


def save_torch(state: dict[str, Any], path: Path) -> None:
    torch.save({name: torch.from_numpy(np.array(array)) for name, array in state.items()}, path)


@needs_tensorflow
def test_reads_checkpoints_of_both_generations(tensorflow: Any, tmp_path: Path) -> None:
    tf, weights = tensorflow, small_weights()
    saved = {f"scope/{name}": array for name, array in weights.items()} | {
        "global_step": np.array(3)
    }
    names, arrays = list(saved), list(saved.values())
    tf.raw_ops.Save(filename=str(tmp_path / "old.ckpt"), tensor_names=names, data=arrays)
    tf.raw_ops.SaveV2(
        prefix=str(tmp_path / "new.ckpt"),
        tensor_names=names,
        shape_and_slices=[""] * len(names),
        tensors=arrays,
    )
    for name in ("old.ckpt", "new.ckpt", "new.ckpt.index"):
        assert_same(read_weights(tmp_path / name), weights)
    (tmp_path / "empty").mkdir()
    with pytest.raises(WeightsError, match="0 checkpoints"):
        read_weights(tmp_path / "empty")


@needs_tensorflow
def test_reads_a_saved_model_by_the_variables_names(tensorflow: Any, tmp_path: Path) -> None:
    tf, weights = tensorflow, small_weights()
    module = tf.Module()
    # Keras numbers a last layer that nobody named.
    module.variables_ = [
        tf.Variable(array, name=name.replace("logits/", "dense_1/"))
        for name, array in weights.items()
    ]
    tf.saved_model.save(module, str(tmp_path / "saved"))
    assert_same(read_weights(tmp_path / "saved"), weights)


@pytest.mark.parametrize("ending", [".h5", ".pth"])
def test_damage_is_told_in_one_line(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"bad{ending}"
    path.write_bytes(b"nonsense" * 100)
    with pytest.raises(WeightsError, match=r"^bad\S* is not a readable weights file: [^\n]+$"):
        read_weights(path)


@needs_tensorflow
def test_a_damaged_checkpoint_is_told_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "bad.ckpt"
    path.write_bytes(b"nonsense" * 100)
    with pytest.raises(WeightsError, match=r"^bad\S* is not a readable weights file: [^\n]+$"):
        read_weights(path)


def test_names_of_another_model() -> None:
    with pytest.raises(WeightsError, match="neither"):
        model_of({"conv_block1.conv1.weight": np.zeros(1, np.float32)})


@needs_tensorflow
def test_a_missing_weight_is_named(yamnet_file: Path) -> None:
    weights = read_weights(yamnet_file)
    del weights["layer7/pointwise_conv/bn/beta"]
    network = reference_tf.yamnet(weights).network
    with pytest.raises(WeightsError, match="layer7/pointwise_conv/bn/beta"):
        network(np.zeros((1, 96, 64), np.float32))


# --- TensorFlow is optional ---------------------------------------------------------------------


def test_without_tensorflow_the_message_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    with pytest.raises(WeightsError, match=r"pip install 'audioset-flows\[convert\]'"):
        reference_tf.load_tensorflow.__wrapped__()


def test_importing_loads_nothing_heavy() -> None:
    code = (
        "import sys, audioset_core.weights.conversion_proof; "
        "print(sorted({'tensorflow', 'torch', 'h5py'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.slow
@needs_tensorflow
def test_tensorflow_is_loaded_without_a_word() -> None:
    code = (
        "from audioset_core.weights.tensorflow_networks import load_tensorflow; load_tensorflow(); "
        "import sys; print('kept', file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == ("", "kept\n")
