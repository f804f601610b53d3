"""The way of TFLite tasks: one window of 0.975 s at a time, waveform in, scores out.

The model is Google's, converted here; soxr resamples, and the interpreter has a thread per core.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from audioset_core.system import n_cores
from benchmarks.peers import protocol
from benchmarks.peers.keras_yamnet import HOP_S, PATCH_HOP_SAMPLES, PATCH_SAMPLES, RATE_HZ, load


def prepare(options: argparse.Namespace) -> protocol.Work:
    protocol.require_hop(options, HOP_S)
    interpreter = _interpreter(*load())
    into = interpreter.get_input_details()[0]["index"]
    out = interpreter.get_output_details()[0]["index"]

    def scores(window: NDArray[np.float32]) -> NDArray[np.float32]:
        interpreter.set_tensor(into, window)
        interpreter.invoke()
        found: NDArray[np.float32] = interpreter.get_tensor(out)
        return found

    def work(files: Sequence[Path]) -> int:
        n_patches = 0
        for path in files:
            samples, rate_hz = soundfile.read(path, dtype="float32", always_2d=True)
            mono = soxr.resample(samples.mean(axis=1), rate_hz, RATE_HZ, "HQ")
            clip = np.concatenate([scores(window) for window in windows(mono)])
            np.mean(clip, axis=0)
            n_patches += len(clip)
        return n_patches

    scores(np.zeros(PATCH_SAMPLES, np.float32))
    return work


def windows(mono: NDArray[np.float32]) -> NDArray[np.float32]:
    """Shape: ``[n_samples]`` -> ``[n, 15600]``, zeros at the end as the reference pads."""
    n_hops = max(0, -(-(len(mono) - PATCH_SAMPLES) // PATCH_HOP_SAMPLES))
    padded = np.pad(mono, (0, PATCH_SAMPLES + n_hops * PATCH_HOP_SAMPLES - len(mono)))
    return np.lib.stride_tricks.sliding_window_view(padded, PATCH_SAMPLES)[::PATCH_HOP_SAMPLES]


def _interpreter(tf: Any, model: Any) -> Any:
    signature = [tf.TensorSpec([PATCH_SAMPLES], tf.float32)]
    concrete = tf.function(lambda x: model(x)[0], input_signature=signature)
    converter = tf.lite.TFLiteConverter.from_concrete_functions(
        [concrete.get_concrete_function()], model
    )
    interpreter = tf.lite.Interpreter(model_content=converter.convert(), num_threads=n_cores())
    interpreter.allocate_tensors()
    return interpreter


if __name__ == "__main__":
    protocol.run(prepare, protocol.parser(__doc__).parse_args())
