"""The treatment of samples: nothing outside of spans, and nothing left inside."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.signal import firwin

from audioset_core.audio.mono import StreamInfo
from audioset_core.redaction.settings import FADE_S
from audioset_core.redaction.spans import joined, likely_spans
from audioset_core.redaction.treatment import kept, treated

RATE_HZ = 8_000
SPANS = np.array([[0, 900], [3_000, 5_000], [5_001, 5_002], [7_990, 8_000]])


def _info(sample_type: str, n_channels: int = 2) -> StreamInfo:
    return StreamInfo("WAV", RATE_HZ, n_channels, None, sample_type=sample_type)


def _all(samples: Any, spans: Any, info: StreamInfo, low_pass_hz: float | None, n: int) -> Any:
    blocks = (samples[k : k + n] for k in range(0, len(samples), n))
    pieces = list(treated(blocks, info, spans, low_pass_hz))
    assert np.array_equal(np.concatenate([before for before, _, _ in pieces]), samples)
    for before, after, part in pieces:
        mark = np.ones(len(before), bool)
        mark[part] = False
        assert np.array_equal(before[mark].view(np.int64), after[mark].view(np.int64))
    return np.concatenate([after for _, after, _ in pieces])


@pytest.mark.parametrize("low_pass_hz", [None, 200.0])
@pytest.mark.parametrize("sample_type", ["int8", "int16", "int24", "int32", "float32", "float64"])
def test_outside_all_is_equal_to_the_bit_and_inside_are_values_of_the_type(
    sample_type: str, low_pass_hz: float | None, rng: np.random.Generator
) -> None:
    samples = rng.uniform(-1, 1, (8_000, 2))
    if sample_type.startswith("int"):
        full = 2.0 ** (int(sample_type[3:]) - 1)
        samples = np.rint(samples * full).clip(-full, full - 1) / full
    elif sample_type == "float32":
        samples = samples.astype(np.float32).astype(np.float64)
    samples[1_000] = -0.0
    outside = np.ones(8_000, bool)
    for first, last in SPANS:
        outside[first:last] = False
    done = [_all(samples, SPANS, _info(sample_type), low_pass_hz, n) for n in (8_000, 777, 64)]
    for after in done:
        assert np.array_equal(after[outside].view(np.int64), samples[outside].view(np.int64))
        np.testing.assert_allclose(after, done[0], atol=2 / 128 if sample_type == "int8" else 1e-4)
        if sample_type.startswith("int"):
            assert np.array_equal(np.rint(after * full), after * full)
            assert after.max() < 1
        elif sample_type == "float32":
            assert np.array_equal(after.astype(np.float32), after)
    n_fade = round(FADE_S * RATE_HZ)
    if low_pass_hz is None:
        inner = done[1][3_000 + n_fade : 5_000 - n_fade]
        assert not inner.view(np.int64).any()


def test_fades_lie_inside_the_span() -> None:
    share = kept(np.array([[100, 300]]), 0, 400, 80)
    assert (share[:100] == 1).all()
    assert (share[300:] == 1).all()
    assert share[100] == 1 - 1 / 80
    assert (np.diff(share[99:180]) < 0).all()
    assert not share[180:220].any()
    assert np.array_equal(share, share[::-1])


def test_low_passed_is_what_the_filter_gives_without_delay(rng: np.random.Generator) -> None:
    samples = rng.standard_normal((8_000, 1)) * 0.1
    after = _all(samples, np.array([[2_000, 6_000]]), _info("float64", 1), 200.0, 999)
    n_half = round(3.3 * RATE_HZ / 200)
    taps = firwin(2 * n_half + 1, 200, fs=RATE_HZ)
    expected = np.convolve(samples[:, 0], taps, "same")[2_080:5_920]
    np.testing.assert_allclose(after[2_080:5_920, 0], expected, atol=1e-12)
    spectrum = np.abs(np.fft.rfft(after[2_080:5_920, 0] * np.hanning(3_840))) ** 2
    assert spectrum[round(300 * 3_840 / RATE_HZ) :].max() < 1e-4 * spectrum.max()


def test_spans_are_widened_joined_and_kept_inside() -> None:
    spans = np.array([[5.0, 5.5], [0.2, 0.4], [1.4, 2.0], [5.1, 5.2], [9.9, 12.0]])
    assert joined(spans, 0.5, 100, 1_000).tolist() == [[0, 250], [450, 600], [940, 1_000]]
    assert joined(np.zeros((0, 2)), 0.5, 100, 1_000).shape == (0, 2)
    assert joined(np.array([[11.0, 12.0]]), 0.5, 100, 1_000).shape == (0, 2)
    # A sample that is only touched is inside.
    assert joined(np.array([[0.0121, 0.0199]]), 0.0, 100, 10).tolist() == [[1, 2]]
    assert likely_spans(np.float32([0.2]), 0.2, 1.0).tolist() == [[0.0, 1.0]]
