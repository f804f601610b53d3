"""Google's own script, re-stated: TensorFlow, one clip after the other.

As it ships: samples as int16, resampy, the Keras model called eagerly on the whole clip. With
``--resampler soxr --graph`` the two things that whoever uses it changes first.

Source: tensorflow/models, research/audioset/yamnet/inference.py.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray

from benchmarks.peers import protocol
from benchmarks.peers.keras_yamnet import HOP_S, RATE_HZ, load

Resample = Callable[[NDArray[Any], int], NDArray[Any]]


def prepare(options: argparse.Namespace) -> protocol.Work:
    protocol.require_hop(options, HOP_S)
    resample = _resampler(options.resampler)
    tf, model = load()
    if options.graph:
        model = tf.function(model, input_signature=[tf.TensorSpec([None], tf.float32)])

    def predict(samples: NDArray[np.int16], rate_hz: int) -> int:
        waveform = (samples / 32_768.0).astype(np.float32)
        if waveform.ndim > 1:
            waveform = np.mean(waveform, axis=1)
        if rate_hz != RATE_HZ:
            waveform = resample(waveform, rate_hz)
        scores, _ = model(tf.constant(waveform, tf.float32))
        np.argsort(np.mean(scores, axis=0))[::-1][:5]
        return len(scores)

    def work(files: Sequence[Path]) -> int:
        return sum(predict(*soundfile.read(path, dtype="int16")) for path in files)

    predict(np.zeros((44_100, 2), np.int16), 44_100)
    return work


def _resampler(name: str) -> Resample:
    if name == "soxr":
        import soxr

        return lambda samples, rate_hz: soxr.resample(samples, rate_hz, RATE_HZ, "HQ")
    import resampy

    return lambda samples, rate_hz: resampy.resample(samples, rate_hz, RATE_HZ)


if __name__ == "__main__":
    arguments = protocol.parser(__doc__)
    arguments.add_argument("--resampler", choices=("resampy", "soxr"), default="resampy")
    arguments.add_argument("--graph", action="store_true", help="call the model in a tf.function")
    protocol.run(prepare, arguments.parse_args())
