"""YAMNet and VGGish in TensorFlow's own operations, as a reference for converted weights.

Both networks are written from their published architecture and share no code with our PyTorch
networks, so that a mistake there is found.

Source: tensorflow/models, research/audioset/yamnet (features.py, params.py, yamnet.py) and
research/audioset/vggish (mel_features.py, vggish_params.py, vggish_slim.py); Howard et al.,
MobileNets, 2017 (arXiv:1704.04861); Hershey et al., 2017 (arXiv:1609.09430). VGGish's head of 527
classes is not Google's: https://github.com/w-hc/torch_audioset.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from audioset_core.arrays import F32
from audioset_core.errors import WeightsError

Weights = Mapping[str, F32]
"""Published arrays under TensorFlow's names; see `audioset_core.weights.tensorflow_weights`."""

# Source: params.py and vggish_params.py; the same in both.
_RATE_HZ, _FRAME_SAMPLES, _HOP_SAMPLES, _FFT_SAMPLES = 16_000, 400, 160, 512
_N_MELS, _MEL_MIN_HZ, _MEL_MAX_HZ, _PATCH_FRAMES = 64, 125.0, 7500.0, 96
_PATCH_SAMPLES = (_PATCH_FRAMES - 1) * _HOP_SAMPLES + _FRAME_SAMPLES

# Source: params.py: hop and batch norm; yamnet.py: strides of the separable layers 2 to 14.
_YAMNET_PATCH_HOP_FRAMES = 48
_YAMNET_STRIDES = (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1)
_BATCH_NORM_EPS = 1e-4

# Source: vggish_slim.py: convolutions by block (a pool ends each), then dense layers.
_VGGISH_BLOCKS = (
    ("conv1",),
    ("conv2",),
    ("conv3/conv3_1", "conv3/conv3_2"),
    ("conv4/conv4_1", "conv4/conv4_2"),
)
_VGGISH_DENSE = ("fc1/fc1_1", "fc1/fc1_2")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """One model's stages, from numpy to numpy."""

    log_mel: Callable[[F32], F32]
    """``[n_samples]`` -> ``[n_frames, 64]``, padded as the model pads."""
    network: Callable[[F32], tuple[F32 | None, F32]]
    """``[n, 96, 64]`` -> scores ``[n, n_classes]`` or None, embeddings ``[n, dim]``."""
    patch_hop_frames: int

    def patches(self, frames: F32) -> F32:
        """Shape: ``[n_frames, 64]`` -> ``[n_patches, 96, 64]``."""
        tf = load_tensorflow()
        with tf.device("/CPU:0"):
            framed = tf.signal.frame(frames, _PATCH_FRAMES, self.patch_hop_frames, axis=0)
        return np.asarray(framed.numpy(), np.float32)


@cache
def load_tensorflow() -> Any:
    """The ``tensorflow`` module, loaded without its messages and without touching a GPU.

    Raises:
        WeightsError: TensorFlow is not installed.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        with _stderr_to_nowhere():
            tf: Any = importlib.import_module("tensorflow")
            with suppress(RuntimeError):  # TensorFlow is already running, with other settings
                tf.config.set_visible_devices([], "GPU")
            tf.constant(0.0)  # starts the runtime, which prints more than the import
    except ImportError as error:
        raise WeightsError(
            "comparing with the reference needs TensorFlow: pip install 'audioset-flows[convert]'"
        ) from error
    return tf


def yamnet(weights: Weights) -> Reference:
    """YAMNet of these weights.

    Raises:
        WeightsError: TensorFlow is not installed, or a weight is missing.
    """
    return Reference(
        log_mel=lambda samples: _log_mel(_pad_waveform(samples), "float32", log_offset=0.001),
        network=_network(_yamnet_network, weights, "YAMNet"),
        patch_hop_frames=_YAMNET_PATCH_HOP_FRAMES,
    )


def vggish(weights: Weights) -> Reference:
    """VGGish of these weights; its front end works in float64, as Google's does.

    Raises:
        WeightsError: TensorFlow is not installed, or a weight is missing.
    """
    return Reference(
        log_mel=lambda samples: _log_mel(samples, "float64", log_offset=0.01),
        network=_network(_vggish_network, weights, "VGGish"),
        patch_hop_frames=_PATCH_FRAMES,
    )


MODELS: dict[str, Callable[[Weights], Reference]] = {"yamnet": yamnet, "vggish": vggish}


# --- front end ----------------------------------------------------------------------------------


def _pad_waveform(samples: F32) -> F32:
    """Zeros up to a whole number of patches, counted in integers.

    Source: features.py, pad_waveform.
    """
    hop = _YAMNET_PATCH_HOP_FRAMES * _HOP_SAMPLES
    n_hops = -(-max(0, len(samples) - _PATCH_SAMPLES) // hop)
    return np.pad(samples, (0, _PATCH_SAMPLES + n_hops * hop - len(samples)))


def _log_mel(samples: F32, dtype: str, *, log_offset: float) -> F32:
    tf = load_tensorflow()
    with tf.device("/CPU:0"):
        spectrum = tf.signal.stft(
            tf.constant(samples, dtype), _FRAME_SAMPLES, _HOP_SAMPLES, _FFT_SAMPLES
        )
        matrix = tf.signal.linear_to_mel_weight_matrix(
            _N_MELS,
            _FFT_SAMPLES // 2 + 1,
            _RATE_HZ,
            _MEL_MIN_HZ,
            _MEL_MAX_HZ,
            tf.as_dtype(dtype),
        )
        mel = tf.matmul(tf.abs(spectrum), matrix)
        frames = tf.math.log(mel + tf.constant(log_offset, dtype))
        return np.asarray(tf.cast(frames, "float32").numpy(), np.float32)


# --- networks -----------------------------------------------------------------------------------


def _network(
    layers: Callable[[Any, Mapping[str, Any], Any], tuple[Any, Any]], weights: Weights, title: str
) -> Callable[[F32], tuple[F32 | None, F32]]:
    """The layers as a function from numpy to numpy, weights placed once."""
    tf = load_tensorflow()
    with tf.device("/CPU:0"):
        placed = {name: tf.constant(array) for name, array in weights.items()}

    def run(patches: F32) -> tuple[F32 | None, F32]:
        # An empty batch comes out of some convolutions with the wrong shape.
        rows = patches if len(patches) else np.zeros((1, _PATCH_FRAMES, _N_MELS), np.float32)
        try:
            with tf.device("/CPU:0"):
                scores, embeddings = layers(tf, placed, tf.constant(rows)[..., tf.newaxis])
        except KeyError as error:
            raise WeightsError(f"these weights are not {title}: no {error} among them") from error
        n = len(patches)
        return None if scores is None else scores.numpy()[:n], embeddings.numpy()[:n]

    return run


def _yamnet_network(tf: Any, weights: Mapping[str, Any], x: Any) -> tuple[Any, Any]:
    """Patches ``[n, 96, 64, 1]`` to scores and embeddings."""

    def norm_relu(x: Any, layer: str) -> Any:
        beta = weights[f"{layer}/bn/beta"]
        gamma = weights.get(f"{layer}/bn/gamma", tf.ones_like(beta))
        normal, *_ = tf.raw_ops.FusedBatchNormV3(
            x=x, scale=gamma, offset=beta, epsilon=_BATCH_NORM_EPS, is_training=False,
            mean=weights[f"{layer}/bn/moving_mean"],
            variance=weights[f"{layer}/bn/moving_variance"],
        )  # fmt: skip
        return tf.nn.relu(normal)

    x = norm_relu(tf.nn.conv2d(x, weights["layer1/conv/kernel"], 2, "SAME"), "layer1/conv")
    for index, stride in enumerate(_YAMNET_STRIDES, 2):
        layer = f"layer{index}/depthwise_conv"
        kernel = weights[f"{layer}/depthwise_kernel"]
        x = tf.nn.depthwise_conv2d(x, kernel, (1, stride, stride, 1), "SAME")
        x = norm_relu(x, layer)
        layer = f"layer{index}/pointwise_conv"
        x = norm_relu(tf.nn.conv2d(x, weights[f"{layer}/kernel"], 1, "SAME"), layer)
    embeddings = tf.reduce_mean(x, axis=(1, 2))
    logits = tf.matmul(embeddings, weights["logits/kernel"]) + weights["logits/bias"]
    return tf.sigmoid(logits), embeddings


def _vggish_network(tf: Any, weights: Mapping[str, Any], x: Any) -> tuple[Any, Any]:
    """Patches ``[n, 96, 64, 1]`` to embeddings, before any activation, and scores of a head."""

    def dense(x: Any, layer: str) -> Any:
        return tf.matmul(x, weights[f"vggish/{layer}/weights"]) + weights[f"vggish/{layer}/biases"]

    for block in _VGGISH_BLOCKS:
        for layer in block:
            x = tf.nn.conv2d(x, weights[f"vggish/{layer}/weights"], 1, "SAME")
            x = tf.nn.relu(x + weights[f"vggish/{layer}/biases"])
        x = tf.nn.max_pool2d(x, 2, 2, "SAME")
    # Rows, columns, channels: the order in which the first dense layer reads them.
    x = tf.reshape(x, (-1, x.shape[1] * x.shape[2] * x.shape[3]))
    for layer in _VGGISH_DENSE:
        x = tf.nn.relu(dense(x, layer))
    embeddings = dense(x, "fc2")
    if "vggish/head/classes/weights" not in weights:
        return None, embeddings
    hidden = tf.nn.relu(dense(tf.nn.relu(embeddings), "head/hidden"))
    return tf.sigmoid(dense(hidden, "head/classes")), embeddings


@contextmanager
def _stderr_to_nowhere() -> Iterator[None]:
    """Hide what TensorFlow's C++ code prints before its own settings take effect."""
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
