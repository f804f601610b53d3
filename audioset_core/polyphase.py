"""soxr HQ as a matrix, for devices on which a matrix product is the fastest filter.

A resampler between two rates repeats itself: every ``in_block`` samples become ``out_block``,
each a weighted sum of what lies around them. The weights are soxr's own, heard as its answers to
impulses, so its transition band (7.3 to 8 kHz at 16 kHz, within the top mel bands) is kept: the
product is within 1e-5 of soxr. Only at a recording's beginning soxr does something else (up to
71 samples are up to 2 % of full scale away): those are computed by soxr itself, see `head`.

Source: soxr's documentation (a linear, periodically time-invariant filter); measured with 1.1.0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
import soxr
from numpy.typing import NDArray

F32 = NDArray[np.float32]

_LONGEST_BLOCK = 640
"""11,025 Hz needs it; rates with longer blocks (44,101 Hz) would need gigabytes of weights."""
_REACH_SAMPLES = 1_500
"""Further away than soxr HQ hears at any rate up to 192 kHz."""
_SMALLEST_WEIGHT = 1e-7
"""Of 1: about a rounding of float32."""
_HEAD_SAMPLES = 160


@dataclass(frozen=True, slots=True)
class Polyphase:
    """How blocks of samples become blocks at another rate.

    Shape:
        weights ``[out_block, n_taps]``, float32: of the samples from ``lead`` before a block on.
    """

    weights: F32
    in_block: int
    out_block: int
    lead: int

    @property
    def n_taps(self) -> int:
        """Samples that a block is computed from, its neighbours' among them."""
        return int(self.weights.shape[1])

    def n_ready(self, n_samples: int) -> int:
        """Samples out for which all that is heard lies within the first ``n_samples`` in."""
        return max(0, (n_samples + self.lead - self.n_taps) // self.in_block + 1) * self.out_block


def resampled_length(n_samples: int, rate_hz: int, target_hz: int) -> int:
    """How many samples soxr makes of so many, in integers: the nearest, halves up."""
    return (2 * n_samples * target_hz + rate_hz) // (2 * rate_hz)


def head(samples: F32, rate_hz: int, target_hz: int) -> F32:
    """The first 160 samples out (or all, of a shorter recording), by soxr.

    Shape: ``[n]``, the recording's beginning, at least 0.2 s of it or all -> ``[160 or fewer]``.
    """
    if rate_hz == target_hz:
        return samples[:0]
    beginning = samples[: max(rate_hz // 5, 4 * _REACH_SAMPLES * max(1, rate_hz // target_hz))]
    found: F32 = soxr.resample(beginning, rate_hz, target_hz, quality="HQ")[:_HEAD_SAMPLES]
    return found


def has_polyphase(rate_hz: int, target_hz: int) -> bool:
    """Whether the blocks between two rates are short enough."""
    return max(_blocks(rate_hz, target_hz)) <= _LONGEST_BLOCK


def _blocks(rate_hz: int, target_hz: int) -> tuple[int, int]:
    divisor = math.gcd(rate_hz, target_hz)
    return rate_hz // divisor, target_hz // divisor


@cache
def polyphase(rate_hz: int, target_hz: int) -> Polyphase:
    """The weights between two rates.

    Raises:
        ValueError: the blocks would be too long.
    """
    if not has_polyphase(rate_hz, target_hz):
        raise ValueError(f"{rate_hz} to {target_hz} Hz: blocks of {_blocks(rate_hz, target_hz)}")
    in_block, out_block = _blocks(rate_hz, target_hz)
    if in_block == out_block:
        return Polyphase(np.ones((1, 1), np.float32), 1, 1, 0)
    # One impulse for each place in a block, so far apart that their answers do not meet.
    reach = -(-_REACH_SAMPLES * max(1, rate_hz // target_hz) // in_block)
    span = 2 * reach + 1
    impulses = np.zeros((in_block, span, in_block), np.float32)
    places = np.arange(in_block)
    impulses[places, reach, places] = 1.0
    heard = soxr.resample(impulses.ravel(), rate_hz, target_hz, quality="HQ")
    # [place, block, sample out]; an answer in a later block is a sample heard from before it.
    answers = heard[: in_block * span * out_block].reshape(in_block, span, out_block)
    weights = answers[:, ::-1].transpose(2, 1, 0).reshape(out_block, span * in_block)
    audible = np.flatnonzero(np.abs(weights).max(axis=0) > _SMALLEST_WEIGHT)
    first, last = int(audible[0]), int(audible[-1])
    kept = np.ascontiguousarray(weights[:, first : last + 1])
    kept.flags.writeable = False
    return Polyphase(kept, in_block, out_block, reach * in_block - first)
