"""Integrated loudness in LUFS, over sound that comes in frames of 100 ms.

Source: ITU-R BS.1770-4 (https://www.itu.int/rec/R-REC-BS.1770-4-201510-S), annex 1. Its filter is
given at 48 kHz; the analogue prototypes from which libebur128 derives it for every rate
(https://github.com/jiixyj/libebur128) give the same coefficients there.
"""

from __future__ import annotations

import math
from array import array

import numpy as np

from audioset_core.arrays import F32, F64

FRAMES_PER_S = 10
"""Blocks of 400 ms begin every 100 ms: so a block is four frames."""
_FRAMES_PER_BLOCK = 4
_LEAST_RATE_HZ = 4_000
"""Below, the shelf's frequency is beyond what is recorded."""
_ABSOLUTE_GATE_LUFS, _RELATIVE_GATE_LU = -70.0, -10.0
_OFFSET_LU = -0.691
_SURROUND = {5: (1, 1, 1, 1.41, 1.41), 6: (1, 1, 1, 0, 1.41, 1.41)}
"""Weights by number of channels: left, right, centre, (low frequencies,) surround. Others: 1."""


class Loudness:
    """The loudness of one recording; its frames come in order."""

    def __init__(self, rate_hz: int, n_channels: int) -> None:
        self._is_defined = rate_hz >= _LEAST_RATE_HZ
        self._filter = k_weighting(rate_hz) if self._is_defined else np.empty((0, 6))
        self._state = np.zeros((2, n_channels, 2))
        self._weights = np.array(_SURROUND.get(n_channels, (1.0,) * n_channels))
        self._powers = array("d")

    def add(self, sound: F32, frame: int) -> None:
        """Add whole frames of `frame` samples. Shape: ``[n_channels, n]``."""
        if self._is_defined:
            from scipy.signal import sosfilt  # its import takes as long as decoding an hour of WAV

            weighted, self._state = sosfilt(self._filter, sound, zi=self._state)
            frames = weighted.reshape(len(sound), -1, frame)
            self._powers.extend(self._weights @ np.einsum("ckn,ckn->ck", frames, frames) / frame)

    def result_lufs(self) -> float | None:
        """The gated loudness; None if no block is above the absolute gate, or none is whole."""
        powers = np.array(self._powers)
        if len(powers) < _FRAMES_PER_BLOCK:
            return None
        blocks = np.convolve(powers, np.full(_FRAMES_PER_BLOCK, 1 / _FRAMES_PER_BLOCK), "valid")
        blocks = blocks[blocks > _power(_ABSOLUTE_GATE_LUFS)]
        if not len(blocks):
            return None
        blocks = blocks[blocks > blocks.mean() * 10 ** (_RELATIVE_GATE_LU / 10)]
        return _OFFSET_LU + 10 * math.log10(blocks.mean())


def k_weighting(rate_hz: int) -> F64:
    """A high shelf for the head, then a high-pass: two second-order sections. Shape: ``[2, 6]``."""
    k, q = math.tan(math.pi * 1681.974450955533 / rate_hz), 0.7071752369554196
    high = 10 ** (3.999843853973347 / 20)
    band = high**0.4996667741545416
    a0 = 1 + k / q + k * k
    shelf = [
        (high + band * k / q + k * k) / a0, 2 * (k * k - high) / a0,
        (high - band * k / q + k * k) / a0, 1, 2 * (k * k - 1) / a0, (1 - k / q + k * k) / a0,
    ]  # fmt: skip
    k, q = math.tan(math.pi * 38.13547087602444 / rate_hz), 0.5003270373238773
    a0 = 1 + k / q + k * k
    return np.array([shelf, [1, -2, 1, 1, 2 * (k * k - 1) / a0, (1 - k / q + k * k) / a0]])


def _power(lufs: float) -> float:
    return float(10 ** ((lufs - _OFFSET_LU) / 10))
