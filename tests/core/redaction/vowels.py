"""Sounds like speech, computed: pulses of a voice through the resonances of changing vowels."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.signal import lfilter

RATE_HZ = 16_000
_VOWELS_HZ = (
    (700, 1200, 2600), (300, 2300, 3000), (500, 900, 2400), (400, 1700, 2500), (600, 1000, 2500),
)  # fmt: skip


def vowels(duration_s: float = 3.0, pitch_hz: float = 120) -> Any:
    """Syllables of 0.2 s with a peak of 1. Shape: [n_samples], at 16 kHz."""
    rng = np.random.default_rng(0)
    n, n_syllable = round(duration_s * RATE_HZ), RATE_HZ // 5
    drift = rng.standard_normal(n).cumsum() / np.sqrt(n)
    melody = 1 + 0.15 * np.sin(2 * np.pi * 0.7 * np.arange(n) / RATE_HZ) + 0.02 * drift
    pulses = np.diff(np.floor(np.cumsum(pitch_hz * melody) / RATE_HZ), prepend=0)
    said = np.zeros(n)
    for number, first in enumerate(range(0, n, n_syllable)):
        part = pulses[first : first + n_syllable]
        part = part + 0.02 * rng.standard_normal(len(part))
        for hz, width_hz in zip(_VOWELS_HZ[number % 5], (80, 100, 150), strict=True):
            r = np.exp(-np.pi * width_hz / RATE_HZ)
            part = lfilter([1 - r], [1, -2 * r * np.cos(2 * np.pi * hz / RATE_HZ), r * r], part)
        said[first : first + n_syllable] = part * np.hanning(len(part))
    return said / np.abs(said).max()


def spoken(before_s: float = 2.0, after_s: float = 2.0, pitch_hz: float = 120) -> Any:
    """Three seconds of `vowels` in a faint hiss."""
    said = np.pad(vowels(pitch_hz=pitch_hz), (round(before_s * RATE_HZ), round(after_s * RATE_HZ)))
    return said + 1e-3 * np.random.default_rng(1).standard_normal(len(said))
