from __future__ import annotations

import numpy as np
import pytest
import soxr
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from audioset_core.features.polyphase import (
    Polyphase,
    has_polyphase,
    head,
    polyphase,
    resampled_length,
)
from tests.bounds import assert_rounding, resampling_sigma

F32 = NDArray[np.float32]

pytestmark = pytest.mark.numeric

NOISE_LEVEL = 1 / np.sqrt(3)
"""Root mean square of noise between -1 and 1."""
PUBLISHED_BAR = 1e-5
"""Docs: within 1e-5 of soxr for full-scale noise."""

RATES = (
    1_000,
    3_975,
    8_000,
    11_025,
    12_000,
    22_050,
    24_000,
    32_000,
    37_800,
    44_100,
    48_000,
    64_000,
)
EVERY_RATE = [hz for hz in range(1_000, 384_001) if has_polyphase(hz, 16_000)]


def product(samples: F32, filters: Polyphase, n_out: int) -> F32:
    n_blocks = -(-n_out // filters.out_block)
    behind = np.zeros(n_blocks * filters.in_block + filters.n_taps, np.float32)
    padded = np.concatenate([np.zeros(filters.lead, np.float32), samples, behind])
    windows = np.lib.stride_tricks.sliding_window_view(padded, filters.n_taps)
    found: F32 = (windows[:: filters.in_block][:n_blocks] @ filters.weights.T).ravel()
    return found[:n_out]


@pytest.mark.parametrize("rate_hz", RATES)
def test_the_product_is_soxr(rate_hz: int) -> None:
    # White noise of full scale: every frequency, those of the transition band among them.
    noise = np.random.default_rng(rate_hz).uniform(-1, 1, 2 * rate_hz + 17).astype(np.float32)
    expected = soxr.resample(noise, rate_hz, 16_000, quality="HQ")
    filters = polyphase(rate_hz, 16_000)
    found = product(noise, filters, len(expected))
    first = head(noise, rate_hz, 16_000)
    found[: len(first)] = first
    sigma = resampling_sigma(filters, NOISE_LEVEL)
    assert 8 * sigma <= PUBLISHED_BAR  # under noise roundings gather nowhere
    assert_rounding(found, expected, sigma)


@given(
    rate_hz=st.sampled_from(EVERY_RATE), n_samples=st.integers(1, 20_000), seed=st.integers(0, 99)
)
@example(rate_hz=3_825, n_samples=39, seed=0)  # 160 samples by soxr itself were too few
@example(rate_hz=3_975, n_samples=1_987, seed=0)
@settings(max_examples=60, deadline=None)
def test_any_length(rate_hz: int, n_samples: int, seed: int) -> None:
    noise = np.random.default_rng(seed).uniform(-1, 1, n_samples).astype(np.float32)
    expected = soxr.resample(noise, rate_hz, 16_000, quality="HQ")
    n_out = resampled_length(n_samples, rate_hz, 16_000)
    assert n_out == len(expected)
    filters = polyphase(rate_hz, 16_000)
    found = product(noise, filters, n_out)
    first = head(noise, rate_hz, 16_000)
    found[: len(first)] = first
    sigma = resampling_sigma(filters, NOISE_LEVEL)
    assert 8 * sigma <= PUBLISHED_BAR  # under noise roundings gather nowhere
    assert_rounding(found, expected, sigma)


@pytest.mark.slow
@given(rate_hz=st.integers(1, 400_000), n_samples=st.integers(0, 50_000))
@settings(max_examples=200, deadline=None)
def test_lengths_at_every_rate(rate_hz: int, n_samples: int) -> None:
    silence = np.zeros(n_samples, np.float32)
    assert resampled_length(n_samples, rate_hz, 16_000) == len(
        soxr.resample(silence, rate_hz, 16_000, quality="HQ") if rate_hz != 16_000 else silence
    )


@pytest.mark.parametrize("rate_hz", RATES)
@pytest.mark.parametrize("n_samples", [0, 100, 5_000, 44_100, 44_101])
def test_what_is_ready_hears_nothing_that_follows(rate_hz: int, n_samples: int) -> None:
    filters = polyphase(rate_hz, 16_000)
    noise = np.random.default_rng(0).uniform(-1, 1, n_samples + 3_000).astype(np.float32)
    ready = filters.n_ready(n_samples)
    assert ready % filters.out_block == 0
    cut = noise.copy()
    cut[n_samples:] = 0.0
    np.testing.assert_array_equal(product(noise, filters, ready), product(cut, filters, ready))
    if n_samples > 4_000:
        more = product(noise, filters, ready + filters.out_block)
        assert (more != product(cut, filters, ready + filters.out_block)).any()


def test_rates_whose_blocks_are_too_long_have_none() -> None:
    assert not has_polyphase(44_101, 16_000)
    assert all(has_polyphase(rate_hz, 16_000) for rate_hz in RATES)
    with pytest.raises(ValueError, match="44056 to 16000 Hz"):
        polyphase(44_056, 16_000)


def test_the_same_rate_is_left_alone() -> None:
    filters = polyphase(16_000, 16_000)
    assert (filters.weights, filters.lead, filters.n_ready(7)) == (1.0, 0, 7)
    assert len(head(np.ones(400, np.float32), 16_000, 16_000)) == 0
