"""Windows, mel matrices and log-mel frames of every family of front ends.

| family | mel scale | triangles | spectrum | logarithm | window |
|---|---|---|---|---|---|
| tensorflow | HTK | linear in mel | magnitude | ln(x + offset) | periodic |
| librosa | Slaney | linear in Hz, of equal area | power | 10 log10(max(x, offset)) | periodic |
| efficientat | HTK | linear in mel | power | (ln(x + offset) + 4.5) / 5 | symmetric |
| frame_mn | HTK | linear in mel | power | (ln(max(x, offset)) + 4.5) / 5 | symmetric |
| ced | HTK | linear in Hz | power | 10 log10(max(x, offset)) | periodic |

Source: tf.signal.linear_to_mel_weight_matrix and vggish/mel_features.py in tensorflow/models,
research/audioset; Slaney, Auditory Toolbox, 1998, as in librosa.filters.mel; Kaldi's mel banks, as
in torchaudio.compliance.kaldi; torchaudio.functional.melscale_fbanks.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from audioset_core.arrays import F32, F64, Floats

if TYPE_CHECKING:
    from audioset_core.features.config import Family, FrontendConfig


_kept = threading.local()

# The mel scale of HTK. Source: features.py, _MEL_HIGH_FREQUENCY_Q and _MEL_BREAK_FREQUENCY_HERTZ.
_HTK_HIGH_Q = 1127.0
_HTK_BREAK_HZ = 700.0
# Slaney's: linear below 1 kHz, then logarithmic, 27 steps from 1 kHz to 6.4 kHz.
_SLANEY_STEP_HZ = 200.0 / 3.0
_SLANEY_BREAK_HZ = 1000.0
_SLANEY_LOG_STEP = np.log(6.4) / 27.0
# TensorFlow's float32 cosine is not correctly rounded: where its 400-sample Hann window differs
# from a correctly rounded one, by how many 2**-25. The rounding of the window is most of the noise
# under a pure tone; with these, the frames of every sound are within 1e-4 of TensorFlow's.
# Source: measured on tf.signal.hann_window(400), TensorFlow 2.21 on x86-64.
_TF_WINDOW_SAMPLES = 400
_TF_WINDOW_STEPS = {
    -2: (121, 126, 130, 131, 148, 150, 160, 221),
    -1: (26, 27, 38, 46, 75, 350, 353, 362),
    1: (29, 34, 37, 40, 44, 45, 50, 53, 59, 62, 321, 325, 326, 327, 329, 335, 348, 366, 371),
    2: (135, 137, 142, 227, 250),
}


@cache
def mel_matrix(config: FrontendConfig) -> Floats:
    """Weights from FFT bins to mel bands, read-only.

    Shape: ``[fft_samples // 2 + 1, n_mels]``, in the front end's precision.
    """
    bins_hz = np.linspace(0.0, config.sample_rate_hz / 2, config.fft_samples // 2 + 1)
    family = _FAMILIES[config.family]
    lowest, highest = family.hz_to_mel(np.array([config.mel_min_hz, config.mel_max_hz]))
    edges = np.linspace(lowest, highest, config.n_mels + 2)
    if family.is_linear_in_mel:
        weights = _triangles(family.hz_to_mel(bins_hz), edges)
    else:
        edges = family.mel_to_hz(edges)
        weights = _triangles(bins_hz, edges)
    if family.has_equal_areas:
        weights *= 2.0 / (edges[2:] - edges[:-2])
    if config.family == "tensorflow":
        weights[0] = 0.0  # the reference drops the DC bin
    matrix = weights.astype(config.precision)
    matrix.flags.writeable = False
    return matrix


@cache
def hann_window(config: FrontendConfig) -> Floats:
    """Hann window, read-only, computed in the front end's precision.

    For Google's models in float32 that is TensorFlow's window to the last bit: its rounding sets
    the noise floor under pure tones, and another rounding moves their scores by 2e-4.

    Shape: ``[frame_samples]``. Source: tf.signal.hann_window.
    """
    real = np.dtype(config.precision).type
    size = config.frame_samples
    turn = size - _FAMILIES[config.family].has_symmetric_window
    phase = real(2.0 * np.pi) * np.arange(size, dtype=real)
    # The cosine in float64 and rounded once: numpy's own in float32 depends on the processor.
    cosine = np.cos((phase / real(turn)).astype(np.float64)).astype(real)
    window: NDArray[Any] = real(0.5) - real(0.5) * cosine
    is_tensorflows = config.family == "tensorflow" and real is np.float32
    if is_tensorflows and size == _TF_WINDOW_SAMPLES:
        for steps, samples in _TF_WINDOW_STEPS.items():
            window[list(samples)] += real(steps * 2.0**-25)
    window.flags.writeable = False
    return window


def log_mel_frames(samples: F32, config: FrontendConfig) -> F32:
    """The log-mel values of every whole frame.

    Shape: ``[frame_samples + (n - 1) * frame_hop_samples]`` -> ``[n, n_mels]``, float32.
    """
    exact = samples.astype(config.precision, copy=False)
    frames = np.lib.stride_tricks.sliding_window_view(exact, config.frame_samples)
    frames = frames[:: config.frame_hop_samples]
    padded, spectrum = _scratch(len(frames), config)
    np.multiply(frames, hann_window(config), out=padded[:, : config.frame_samples])
    # The zeros at the right put the window at the left of the FFT. pocketfft's float32 FFT gives
    # TensorFlow's values to the last bit, and is the fastest tried.
    np.abs(scipy.fft.rfft(padded), out=spectrum)
    family = _FAMILIES[config.family]
    if family.has_powers:
        spectrum *= spectrum
    mel: NDArray[Any] = spectrum @ mel_matrix(config)
    family.to_log(mel, config.log_offset)
    frames32: F32 = mel.astype(np.float32, copy=False)
    return frames32


def _scratch(n_frames: int, config: FrontendConfig) -> tuple[NDArray[Any], NDArray[Any]]:
    """This thread's buffers: for windowed frames with zeros to their right, and for the spectrum.

    They are reused: fresh memory costs more than the arithmetic, as the kernel clears every page.
    """
    key = (config.fft_samples, config.frame_samples, config.precision)
    if getattr(_kept, "key", None) != key or len(_kept.padded) < n_frames:
        _kept.key = key
        _kept.padded = np.zeros((n_frames, config.fft_samples), config.precision)
        _kept.spectrum = np.empty((n_frames, config.fft_samples // 2 + 1), config.precision)
    return _kept.padded[:n_frames], _kept.spectrum[:n_frames]


def _triangles(bins: F64, edges: F64) -> F64:
    """Shape: bins ``[n]``, edges ``[n_mels + 2]`` -> ``[n, n_mels]``, one at each centre."""
    bins = bins[:, np.newaxis]
    lower, centre, upper = edges[:-2], edges[1:-1], edges[2:]
    rising = (bins - lower) / (centre - lower)
    falling = (upper - bins) / (upper - centre)
    return np.maximum(0.0, np.minimum(rising, falling))


def hz_to_htk(frequency_hz: F64) -> F64:
    """Frequencies in Hz on HTK's mel scale; any shape.

    >>> hz_to_htk(np.array([0.0, 1000.0])).round(1).tolist()
    [0.0, 1000.0]
    """
    mel: F64 = _HTK_HIGH_Q * np.log1p(frequency_hz / _HTK_BREAK_HZ)
    return mel


def htk_to_hz(mel: F64) -> F64:
    """As `hz_to_htk`, the other way round."""
    frequency_hz: F64 = _HTK_BREAK_HZ * np.expm1(mel / _HTK_HIGH_Q)
    return frequency_hz


def _hz_to_slaney(frequency_hz: F64) -> F64:
    beyond = np.log(np.maximum(frequency_hz, _SLANEY_BREAK_HZ) / _SLANEY_BREAK_HZ)
    linear = np.minimum(frequency_hz, _SLANEY_BREAK_HZ) / _SLANEY_STEP_HZ
    mel: F64 = linear + beyond / _SLANEY_LOG_STEP
    return mel


def _slaney_to_hz(mel: F64) -> F64:
    break_mel = _SLANEY_BREAK_HZ / _SLANEY_STEP_HZ
    beyond = np.exp(np.maximum(mel - break_mel, 0.0) * _SLANEY_LOG_STEP)
    frequency_hz: F64 = np.minimum(mel, break_mel) * _SLANEY_STEP_HZ * beyond
    return frequency_hz


def _natural(mel: NDArray[Any], offset: float) -> None:
    mel += mel.dtype.type(offset)
    np.log(mel, out=mel)


def _decibels(mel: NDArray[Any], offset: float) -> None:
    np.maximum(mel, offset, out=mel)
    np.log10(mel, out=mel)
    mel *= 10.0


def _scaled_natural(mel: NDArray[Any], offset: float) -> None:
    _natural(mel, offset)
    _scale(mel)


def _scaled_floored(mel: NDArray[Any], offset: float) -> None:
    np.maximum(mel, offset, out=mel)
    np.log(mel, out=mel)
    _scale(mel)


def _scale(mel: NDArray[Any]) -> None:
    mel += mel.dtype.type(4.5)
    mel /= mel.dtype.type(5.0)


@dataclass(frozen=True, slots=True)
class _Family:
    """One row of the table above; ``to_log(mel, offset)`` works in place."""

    to_log: Callable[[NDArray[Any], float], None]
    hz_to_mel: Callable[[F64], F64] = hz_to_htk
    mel_to_hz: Callable[[F64], F64] = htk_to_hz
    is_linear_in_mel: bool = True
    has_equal_areas: bool = False
    has_powers: bool = True
    has_symmetric_window: bool = False


_FAMILIES: dict[Family, _Family] = {
    "tensorflow": _Family(_natural, has_powers=False),
    "librosa": _Family(
        _decibels, _hz_to_slaney, _slaney_to_hz, is_linear_in_mel=False, has_equal_areas=True
    ),
    "efficientat": _Family(_scaled_natural, has_symmetric_window=True),
    "frame_mn": _Family(_scaled_floored, has_symmetric_window=True),
    "ced": _Family(_decibels, is_linear_in_mel=False),
}
