"""YAMNet as Google ships it: one Keras model from a waveform at 16 kHz to scores.

Source: tensorflow/models, research/audioset/yamnet: features.py, params.py and yamnet.py.
"""

from __future__ import annotations

import os
from typing import Any

from audioset_core.models.registry import YAMNET
from audioset_core.models.yamnet import BATCH_NORM_EPS, N_CLASSES, SEPARABLE_LAYERS
from audioset_core.weights.locate import cache_dir, find_source
from audioset_core.weights.tensorflow_networks import load_tensorflow

RATE_HZ, HOP_S = 16_000, 0.48
PATCH_SAMPLES, PATCH_HOP_SAMPLES = 15_600, 7_680
_FRAME_SAMPLES, _HOP_SAMPLES, _FFT_SAMPLES = 400, 160, 512
_N_MELS, _MEL_MIN_HZ, _MEL_MAX_HZ, _LOG_OFFSET = 64, 125.0, 7500.0, 0.001
_PATCH_FRAMES, _PATCH_HOP_FRAMES = 96, 48


def load() -> tuple[Any, Any]:
    """(the ``tensorflow`` module, the model with its weights); scores are its first output.

    Raises:
        SystemExit: no ``yamnet.h5`` on this machine.
    """
    os.environ["TF_USE_LEGACY_KERAS"] = "1"
    tf = load_tensorflow()
    import tf_keras

    source = find_source(YAMNET)
    if source is None or source.suffix != ".h5":
        raise SystemExit(f"no yamnet.h5 in AUDIOSET_ASSETS, AUDIOSET_WEIGHTS or {cache_dir()}")
    waveform = tf_keras.layers.Input(batch_shape=(None,), dtype=tf.float32)
    patches = _patches(tf, _padded(tf, waveform))
    model = tf_keras.Model(inputs=waveform, outputs=_network(tf_keras.layers, patches))
    model.load_weights(source)
    return tf, model


def _padded(tf: Any, waveform: Any) -> Any:
    """Zeros up to a whole number of patches; source: features.py, pad_waveform."""
    n_samples = tf.shape(waveform)[-1]
    beyond = tf.maximum(n_samples, PATCH_SAMPLES) - PATCH_SAMPLES
    n_hops = tf.cast(tf.math.ceil(tf.cast(beyond, tf.float32) / PATCH_HOP_SAMPLES), tf.int32)
    n_padding = tf.maximum(0, PATCH_SAMPLES - n_samples) + PATCH_HOP_SAMPLES * n_hops - beyond
    return tf.pad(waveform, [[0, n_padding]])


def _patches(tf: Any, waveform: Any) -> Any:
    """Log-mel patches ``[n, 96, 64]``; source: features.py."""
    spectrum = tf.abs(tf.signal.stft(waveform, _FRAME_SAMPLES, _HOP_SAMPLES, _FFT_SAMPLES))
    matrix = tf.signal.linear_to_mel_weight_matrix(
        _N_MELS, _FFT_SAMPLES // 2 + 1, RATE_HZ, _MEL_MIN_HZ, _MEL_MAX_HZ
    )
    log_mel = tf.math.log(tf.matmul(spectrum, matrix) + _LOG_OFFSET)
    return tf.signal.frame(log_mel, _PATCH_FRAMES, _PATCH_HOP_FRAMES, axis=-2)


def _network(layers: Any, patches: Any) -> tuple[Any, Any]:
    """(scores, embeddings); source: yamnet.py."""

    def normal(x: Any) -> Any:
        x = layers.BatchNormalization(center=True, scale=False, epsilon=BATCH_NORM_EPS)(x)
        return layers.ReLU()(x)

    def conv(x: Any, filters: int, kernel: int, stride: int) -> Any:
        x = layers.Conv2D(filters, kernel, stride, padding="same", use_bias=False)(x)
        return normal(x)

    x = layers.Reshape((_PATCH_FRAMES, _N_MELS, 1))(patches)
    x = conv(x, 32, 3, 2)
    for stride, filters in SEPARABLE_LAYERS:
        x = normal(layers.DepthwiseConv2D(3, stride, padding="same", use_bias=False)(x))
        x = conv(x, filters, 1, 1)
    embeddings = layers.GlobalAveragePooling2D()(x)
    scores = layers.Activation("sigmoid")(layers.Dense(N_CLASSES)(embeddings))
    return scores, embeddings
