"""Loudness: values of the standard and of EBU Tech 3341, and pyloudnorm on the same sound."""

from __future__ import annotations

import numpy as np
import pyloudnorm
import pytest

from audioset_core.audio.loudness import Loudness, k_weighting

RATE_HZ = 48_000


def loudness(sound: np.ndarray, rate_hz: int = RATE_HZ, frames_at_once: int = 7) -> float | None:
    """The loudness of ``[n_channels, n]``, given a few frames at a time."""
    meter, frame = Loudness(rate_hz, len(sound)), round(rate_hz / 10)
    whole = sound[:, : sound.shape[1] // frame * frame].astype(np.float32)
    for at in range(0, whole.shape[1], frames_at_once * frame):
        meter.add(whole[:, at : at + frames_at_once * frame], frame)
    return meter.result_lufs()


def tone(duration_s: float, level_dbfs: float, rate_hz: int = RATE_HZ, f_hz: float = 997.0):
    time_s = np.arange(round(duration_s * rate_hz)) / rate_hz
    return 10 ** (level_dbfs / 20) * np.sin(2 * np.pi * f_hz * time_s)


def test_filter_of_the_standard():
    """BS.1770-4, tables 1 and 2, at 48 kHz."""
    shelf = (
        1.53512485958697,
        -2.69169618940638,
        1.19839281085285,
        1,
        -1.69065929318241,
        0.73248077421585,
    )
    high_pass = (1, -2, 1, 1, -1.99004745483398, 0.99007225036621)
    np.testing.assert_allclose(k_weighting(RATE_HZ), [shelf, high_pass], atol=1e-9)


@pytest.mark.parametrize("rate_hz", [8_000, 16_000, 22_050, 44_100, 48_000, 96_000])
def test_full_scale_tone_in_one_of_two_channels(rate_hz):
    sound = np.stack([tone(5, 0, rate_hz), np.zeros(5 * rate_hz)])
    assert loudness(sound, rate_hz) == pytest.approx(-3.01, abs=0.05)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("levels_and_lengths", "expected_lufs"),
    [
        # EBU Tech 3341, minimum requirements 1 to 5; stereo tones of 1 kHz.
        ([(-23, 20)], -23),
        ([(-33, 20)], -33),
        ([(-36, 10), (-23, 60), (-36, 10)], -23),
        ([(-72, 10), (-36, 10), (-23, 60), (-36, 10), (-72, 10)], -23),
        ([(-26, 20), (-20, 20.1), (-26, 20)], -23),
    ],
)
def test_gates(levels_and_lengths, expected_lufs):
    parts = [tone(length_s, level, f_hz=1000) for level, length_s in levels_and_lengths]
    assert loudness(np.stack([np.concatenate(parts)] * 2)) == pytest.approx(expected_lufs, abs=0.1)


def test_surround_has_other_weights_and_no_low_frequency_channel():
    """EBU Tech 3341, 6: 5.0 at -28, -28, -24, -30, -30 dBFS is -23 LUFS."""
    levels = {0: -28.0, 1: -28.0, 2: -24.0, 4: -30.0, 5: -30.0}
    sound = np.stack([tone(20, levels.get(channel, 0.0), f_hz=1000) for channel in range(6)])
    assert loudness(sound) == pytest.approx(-23, abs=0.1)


@pytest.mark.parametrize("n_channels", [1, 2, 3])
@pytest.mark.parametrize("rate_hz", [16_000, 44_100])
def test_as_pyloudnorm(rng, n_channels, rate_hz):
    envelope = np.repeat(10 ** rng.uniform(-3, -0.5, 40), rate_hz // 2)
    sound = (rng.standard_normal((n_channels, len(envelope))) * envelope).astype(np.float32)
    expected = pyloudnorm.Meter(rate_hz, filter_class="DeMan").integrated_loudness(sound.T)
    assert loudness(sound, rate_hz) == pytest.approx(expected, abs=0.02)


@pytest.mark.parametrize(
    ("sound", "rate_hz"),
    [
        (np.zeros((1, RATE_HZ)), RATE_HZ),  # silence has no loudness
        (tone(0.39, -20)[None], RATE_HZ),  # shorter than a block
        (tone(5, -75)[None], RATE_HZ),  # below the gate
        (tone(5, -20, 2_000, 400)[None], 2_000),  # the filter is not defined there
    ],
)
def test_none(sound, rate_hz):
    assert loudness(sound, rate_hz) is None
