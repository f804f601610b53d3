"""soxr HQ as a matrix, for devices on which a matrix product is the fastest filter.

A resampler between two rates is periodic: every ``in_block`` samples become ``out_block``, each a
weighted sum of the samples around it. The weights are soxr's own, measured as its responses to
impulses, so its transition band (7.3 to 8 kHz at 16 kHz, within the top mel bands) is kept: the
product is within 1e-5 of soxr. Only the beginning of a recording differs, by up to 2 % of full
scale, for up to 45 samples at common rates and 305 just below 4 kHz (measured at every rate that
has weights): these samples are computed by soxr itself, see `head`.

Source: soxr's documentation (a linear, periodically time-invariant filter); measured with 1.1.0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
import soxr

from audioset_core.arrays import F32

_LONGEST_BLOCK = 640
"""The block of 11,025 Hz; rates with longer blocks (44,101 Hz) would need gigabytes of weights."""
_HIGHEST_RATE_HZ = 64_000
"""Higher rates are not worth sending to a GPU: at least four fifths of the data is filtered out."""
_REACH_SAMPLES = 1_500
"""Longer than the filter of soxr HQ at all rates up to the highest."""
_SMALLEST_WEIGHT = 1e-7
"""Smaller weights are left out: about the rounding of float32."""
_WIDEST_BLOCK = 128
"""Shorter blocks are combined: at 48 kHz a block would be a single output sample."""
_HEAD_SAMPLES = 640


@dataclass(frozen=True, slots=True)
class Polyphase:
    """How blocks of samples become blocks at another rate.

    Shape:
        weights ``[out_block, n_taps]``, float32: for the samples from ``lead`` before a block on.
    """

    weights: F32
    in_block: int
    out_block: int
    lead: int

    @property
    def n_taps(self) -> int:
        """Samples that a block is computed from, including those of its neighbours."""
        return int(self.weights.shape[1])

    def n_ready(self, n_samples: int) -> int:
        """Output samples that depend only on the first ``n_samples`` input samples."""
        return max(0, (n_samples + self.lead - self.n_taps) // self.in_block + 1) * self.out_block


def resampled_length(n_samples: int, rate_hz: int, target_hz: int) -> int:
    """The length of soxr's output, in integers: the nearest number, halves rounded up.

    >>> resampled_length(44_100, 44_100, 16_000)
    16000
    """
    return (2 * n_samples * target_hz + rate_hz) // (2 * rate_hz)


def head(samples: F32, rate_hz: int, target_hz: int) -> F32:
    """The first 640 samples out (or all, of a shorter recording), by soxr; none at the same rate.

    Shape: ``[n]``, the recording's beginning, at least 0.2 s of it or all -> ``[640 or fewer]``.
    """
    if rate_hz == target_hz:
        return np.empty(0, np.float32)
    beginning = samples[: max(rate_hz // 5, 4 * _reach(rate_hz, target_hz))]
    found: F32 = soxr.resample(beginning, rate_hz, target_hz, quality="HQ")
    return found[:_HEAD_SAMPLES].copy()


def has_polyphase(rate_hz: int, target_hz: int) -> bool:
    """Whether the blocks between two rates are short enough, and the rate is low enough."""
    return rate_hz <= _HIGHEST_RATE_HZ and max(_blocks(rate_hz, target_hz)) <= _LONGEST_BLOCK


def _blocks(rate_hz: int, target_hz: int) -> tuple[int, int]:
    divisor = math.gcd(rate_hz, target_hz)
    return rate_hz // divisor, target_hz // divisor


def _reach(rate_hz: int, target_hz: int) -> int:
    return _REACH_SAMPLES * max(1, rate_hz // target_hz)


@cache
def polyphase(rate_hz: int, target_hz: int) -> Polyphase:
    """The weights between two rates.

    Raises:
        ValueError: there are none, see `has_polyphase`.
    """
    if not has_polyphase(rate_hz, target_hz):
        raise ValueError(f"{rate_hz} to {target_hz} Hz: blocks of {_blocks(rate_hz, target_hz)}")
    in_block, out_block = _blocks(rate_hz, target_hz)
    if in_block == out_block:
        return Polyphase(np.ones((1, 1), np.float32), 1, 1, 0)
    # One impulse for each position in a block, so far apart that their responses do not overlap.
    reach = -(-_reach(rate_hz, target_hz) // in_block)
    span = 2 * reach + 1
    impulses = np.zeros((in_block, span, in_block), np.float32)
    places = np.arange(in_block)
    impulses[places, reach, places] = 1.0
    output = soxr.resample(impulses.ravel(), rate_hz, target_hz, quality="HQ")
    # [position, block, output sample]; a response in a later block comes from a sample before it.
    responses = output[: in_block * span * out_block].reshape(in_block, span, out_block)
    weights = responses[:, ::-1].transpose(2, 1, 0).reshape(out_block, span * in_block)
    used = np.flatnonzero(np.abs(weights).max(axis=0) > _SMALLEST_WEIGHT)
    first, last = int(used[0]), int(used[-1])
    wide = _widened(weights[:, first : last + 1], in_block, -(-_WIDEST_BLOCK // out_block))
    n_times = len(wide) // out_block
    return Polyphase(wide, n_times * in_block, n_times * out_block, reach * in_block - first)


def _widened(weights: F32, in_block: int, n_times: int) -> F32:
    """The weights of `n_times` blocks in a row. Shape: ``[out, taps]`` -> ``[n * out, more]``."""
    out_block, n_taps = weights.shape
    wide = np.zeros((n_times * out_block, (n_times - 1) * in_block + n_taps), np.float32)
    for turn in range(n_times):
        rows = slice(turn * out_block, (turn + 1) * out_block)
        wide[rows, turn * in_block : turn * in_block + n_taps] = weights
    wide.flags.writeable = False
    return wide
