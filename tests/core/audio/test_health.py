"""What is found wrong with recordings, and what is not.

The kinds of trouble are those of public reports; the sounds are made here.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import soundfile

from audioset_core.audio.decoders import DecodeOptions
from audioset_core.audio.health import HealthMeter
from audioset_core.audio.mono import silence
from audioset_core.audio.recording import Recording
from audioset_core.audio.remarks import RemarkKind, health_remarks
from audioset_core.records import TROUBLES, Health

RATE_HZ = 32_000
N = 10 * RATE_HZ
Sound = np.ndarray


def measured(
    sound: Sound, *, rate_hz: int = RATE_HZ, subtype: str = "PCM_16", sample_type: str = "int16"
) -> Health:
    """The health of ``[n]`` or ``[n, channels]``, in blocks of odd sizes."""
    sound = sound.reshape(len(sound), -1).astype(np.float32)
    meter = HealthMeter(rate_hz, sound.shape[1], sample_type, with_loudness=True)
    at = 0
    for size in (1, 999, 65_536, 7, 100_000, len(sound)):
        meter.add(sound[at : at + size])
        at += size
    found = meter.result()
    assert found is not None
    return found


def kinds(health: Health) -> list[str]:
    return [str(remark.kind) for remark in health_remarks(health)]


def in_steps(sound: Sound, n_bits: int = 16) -> Sound:
    """Rounded to the steps of a format, and held within its range."""
    scale = 2.0 ** (n_bits - 1)
    return np.clip(np.round(sound * scale), -scale, scale - 1) / scale


def night(rng: np.random.Generator, level: float, n: int = N) -> Sound:
    """Noise that falls towards high frequencies a little, as wind and electronics together."""
    white = rng.standard_normal(n + 1)
    return level * (white[1:] + 0.7 * white[:-1])


def chirps(n: int = N, level: float = 0.2) -> Sound:
    time_s = np.arange(n) / RATE_HZ
    return level * np.sin(2 * np.pi * 3000 * time_s) * (np.sin(2 * np.pi * 1.5 * time_s) > 0.6)


def notes(n: int, *harmonics: float, f_hz: float = 220.0) -> Sound:
    time_s = np.arange(n) / RATE_HZ
    return sum(a * np.sin(2 * np.pi * f_hz * (k + 1) * time_s) for k, a in enumerate(harmonics))


def with_stretches(sound: Sound, n_each: int, n_stretches: int, *, is_held: bool = False) -> Sound:
    """The sound with stretches of zeros, or of the last sample before, evenly spread."""
    sound = sound.copy()
    for at in np.linspace(RATE_HZ, len(sound) - 2 * RATE_HZ, n_stretches).astype(int):
        sound[at : at + n_each] = sound[at - 1] if is_held else 0
    return sound


def clipped(rng: np.random.Generator, ceiling: float, n_bits: int = 16) -> Sound:
    return np.clip(in_steps(3 * notes(N, 0.5, 0.2) + night(rng, 0.01), n_bits), -ceiling, ceiling)


def dead_channel(rng: np.random.Generator, level: float) -> Sound:
    return np.stack([night(rng, 0.01) + chirps(), night(rng, level)], axis=1)


TROUBLED: dict[str, tuple[str, Callable[[np.random.Generator], Sound]]] = {
    "overload at full scale": ("clipping", lambda r: clipped(r, 1)),
    "a recorder that clips 3 dB below": ("clipping", lambda r: in_steps(clipped(r, 0.7))),
    "clipped above alone": ("clipping DC offset", lambda r: np.minimum(night(r, 0.2), 0.3)),
    "an eighth of the time, in the second channel": (
        "clipping", lambda r: np.stack([
            in_steps(night(r, 0.05)),
            np.where(np.arange(N) % RATE_HZ < RATE_HZ // 8, clipped(r, 1), night(r, 0.02)),
        ], 1)),
    "a slow card writes zeros": (
        "dropouts", lambda r: with_stretches(in_steps(night(r, 0.02) + chirps()), 512, 12)),
    "a buffer repeats its last sample": (
        "dropouts",
        lambda r: with_stretches(in_steps(night(r, 0.02)), 300, 5, is_held=True)),
    "frames of USB are lost": ("dropouts", lambda r: with_stretches(night(r, 0.1), 32, 9)),
    "half a second is lost": ("dropouts", lambda r: with_stretches(night(r, 0.1), 16_000, 4)),
    "dropouts beside an offset": (
        "dropouts DC offset", lambda r: with_stretches(0.05 + night(r, 0.004), 512, 4)),
    "offset": ("DC offset", lambda r: 0.03 + night(r, 0.01)),
    "offset below zero": ("DC offset", lambda r: -0.02 + night(r, 0.01)),
    "digital silence": ("silent faint", lambda r: np.zeros(N)),
    "an unconnected input with an offset": (
        "silent faint DC offset", lambda r: np.full(N, 0.48)),
    "the recorder died after a third": (
        "silent", lambda r: np.where(np.arange(N) < N // 3, night(r, 0.02), 0)),
    "a converter without a microphone, 24 bits": ("faint", lambda r: night(r, 1e-6)),
    "an unplugged microphone": ("dead channel", lambda r: dead_channel(r, 1e-5)),
    "one channel of zeros": ("dead channel", lambda r: dead_channel(r, 0)),
    "one of four, with an offset": (
        "dead channel DC offset", lambda r: np.stack([
            night(r, 0.01), night(r, 0.02), np.full(N, -0.48), night(r, 0.01)], 1)),
    "floating point in the range of integers": (
        "over full scale", lambda r: 32_768 * night(r, 0.1)),
}  # fmt: skip

SOUND: dict[str, Callable[[np.random.Generator], Sound]] = {
    "a quiet night at 16 bits": lambda r: in_steps(night(r, 5e-5)),
    "a quieter one, a single insect": lambda r: in_steps(night(r, 3e-5) + chirps(N, 0.002)),
    "a quiet night at 8 bits": lambda r: in_steps(night(r, 0.006), 8),
    "square waves": lambda r: 0.8 * np.sign(notes(N, 1) + 1e-9),
    "three voices of square waves, with rests": lambda r: (
        0.3 * sum(np.sign(notes(N, 1, f_hz=f) + 1e-9) for f in (110, 164.8, 220))
        * (np.arange(N) % 8000 < 7000)),
    "music limited to full scale": lambda r: in_steps(
        np.clip(notes(N, 0.35, 0.25, 0.15) + night(r, 0.12), -0.999, 0.999)),
    "tracks with digital silence between": lambda r: (
        notes(N, 0.3, 0.3)
        * np.interp(np.arange(N) % (N // 2) / RATE_HZ, [0, 0.01, 3, 4], [0, 1, 1, 0])),
    "speech through a gate": lambda r: in_steps(
        night(r, 0.1) * np.clip(np.sin(2 * np.pi * np.arange(N) / 12_000) * 3, 0, 1)),
    "a pure tone of full scale": lambda r: in_steps(notes(N, 1)),
    "a low tone of 8 bits": lambda r: in_steps(notes(N, 0.99, f_hz=31), 8),
    "an offset that settles in half a second": lambda r: (
        0.3 * np.exp(-np.arange(N) / (0.1 * RATE_HZ)) + night(r, 0.01)),
    "two microphones, one turned away": lambda r: np.stack([night(r, 0.1), night(r, 0.01)], 1),
    "one dropout, as of an edit": lambda r: with_stretches(night(r, 0.1), 512, 1),
    "loud floating point": lambda r: night(r, 0.25),
}  # fmt: skip


@pytest.mark.parametrize("name", TROUBLED)
def test_trouble_is_found(rng, name):
    expected, make = TROUBLED[name]
    sample_type = "int8" if "8 bits" in name else "int16"
    assert " ".join(kinds(measured(make(rng), sample_type=sample_type))) == expected


@pytest.mark.parametrize("name", SOUND)
def test_ordinary_sound_is_left_alone(rng, name):
    sample_type = "int8" if "8 bits" in name else "int16"
    assert kinds(measured(SOUND[name](rng), sample_type=sample_type)) == []


def test_measures():
    """Of a tone at half of full scale in the left channel, a tenth of that in the right one."""
    tone = notes(N, 0.5, f_hz=100)
    right = 0.1 * tone + 0.004
    right[5 * RATE_HZ : 5 * RATE_HZ + 1600] = 0
    found = measured(np.stack([tone, right], axis=1))
    assert found.measured_s == N / RATE_HZ
    assert (found.weakest_channel, found.n_dropouts, found.clipped_share) == (2, 1, 0)
    assert found.dropout_s == pytest.approx(0.05, abs=1 / RATE_HZ)
    assert found.dc_offset == pytest.approx(0.004, abs=1e-4)
    lost_db = -10 * np.log10(1 - 0.05 / found.measured_s)  # of the power of the right channel
    assert found.channel_gap_db == pytest.approx(20 + lost_db, abs=1e-3)
    assert found.peak_dbfs == pytest.approx(-6.02, abs=0.01)
    assert found.rms_dbfs == pytest.approx(-6.02 - 3.01 - 2.97, abs=0.01)
    assert found.loudness_lufs == pytest.approx(-10.6, abs=0.5)


@pytest.mark.parametrize("offset", [0.0, 0.5, -0.9])
def test_a_large_offset_hides_no_small_sound(rng, offset):
    noise = rng.standard_normal(N) * 1e-5
    found = measured(noise + offset)
    assert found.rms_dbfs == pytest.approx(-100, abs=0.1 if not offset else 6)
    assert found.dc_offset == pytest.approx(abs(offset), abs=1e-6)


@pytest.mark.parametrize("block", [1, 97, 1024, 131_072])
def test_blocks_make_no_difference(rng, block):
    sound = with_stretches(clipped(rng, 1)[: 3 * RATE_HZ], 700, 9)[:, None].astype(np.float32)
    if block == 1:
        sound = sound[:5_000]
    whole, pieces = (HealthMeter(RATE_HZ, 1, "int16", with_loudness=True) for _ in range(2))
    whole.add(sound)
    for at in range(0, len(sound), block):
        pieces.add(sound[at : at + block])
    assert whole.result() == pieces.result()


def test_a_dropout_is_found_wherever_buffers_begin(rng):
    """One every 9,999 samples, of 2 to 40 ms: some are at the ends of the meter's buffers."""
    sound = night(rng, 0.1, 40 * RATE_HZ)
    starts = np.arange(5_000, len(sound) - 5_000, 9_999)
    lengths = rng.integers(2 * RATE_HZ // 1000 + 1, 40 * RATE_HZ // 1000, len(starts))
    for start, n in zip(starts, lengths, strict=True):
        sound[start : start + n] = 0
    found = measured(sound)
    assert abs(found.n_dropouts - len(starts)) <= 1
    assert found.dropout_s == pytest.approx(lengths.sum() / RATE_HZ, rel=0.02)


def test_what_was_not_recorded_is_not_measured(rng):
    """A decoder puts silence into a gap of the time stamps: neither silent nor a dropout."""
    meter = HealthMeter(RATE_HZ, 2, "lossy")
    sound = np.stack([night(rng, 0.1)] * 2, axis=1).astype(np.float32)
    assert not any(block.strides == (0, 0) for block in (sound, sound[:1], sound[:0], sound[3:]))
    gap = silence(1_000, 2, np.float32)
    assert gap[10:].strides == (0, 0)
    meter.add(sound)
    assert meter.result().measured_s == N / RATE_HZ


def test_nothing_to_measure():
    assert HealthMeter(RATE_HZ, 1, "int16").result() is None


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"])
def test_files_of_every_sample_type(tmp_path: Path, rng, subtype):
    """Overload with dropouts is found in each; over full scale only floating point can be."""
    path = tmp_path / "a.wav"
    sound = with_stretches(clipped(rng, 0.99)[: 5 * RATE_HZ], 400, 6)
    soundfile.write(path, np.stack([sound, sound * 1e-4], 1), RATE_HZ, subtype=subtype)
    with Recording(os.fsencode(path), DecodeOptions(measures="health")) as recording:
        for _ in recording.blocks():
            pass
        assert recording.health is not None
        assert recording.health.loudness_lufs is None
        found = {str(remark.kind) for remark in recording.remarks}
    assert found == {"clipping", "dropouts", "dead channel"}


def test_flac_that_ends_early_is_measured_as_far_as_it_goes(tmp_path: Path, rng):
    path = tmp_path / "a.flac"
    soundfile.write(path, night(rng, 0.1), RATE_HZ)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with Recording(os.fsencode(path), DecodeOptions(measures="loudness")) as recording:
        n = sum(len(block) for block in recording.blocks())
        assert {remark.kind for remark in recording.remarks} == {RemarkKind.TRUNCATED}
        assert recording.health.measured_s == pytest.approx(n / RATE_HZ)
        assert recording.health.loudness_lufs == pytest.approx(-18, abs=3)


def test_without_being_asked_nothing_is_measured(tmp_path: Path):
    path = tmp_path / "a.wav"
    soundfile.write(path, np.zeros(N), RATE_HZ)
    with Recording(os.fsencode(path)) as recording:
        assert sum(map(len, recording.blocks())) == N
        assert (recording.health, recording.remarks) == (None, ())


def test_each_trouble_is_a_kind_of_remark():
    assert {each.kind for each in TROUBLES} < set(RemarkKind)


@pytest.mark.parametrize("peak", [3.4e38, 1e25, 1e10, 1e-44])
@pytest.mark.parametrize("shape", ["alternating", "constant", "noise", "two channels that differ"])
def test_the_measures_of_any_finite_samples_are_finite(rng, peak, shape):
    """Floating point may hold anything; a number that is not finite could not be stored."""
    sound = {
        "alternating": np.resize([peak, -peak], N),
        "constant": np.full(N, peak),
        "noise": rng.uniform(-peak, peak, N),
        "two channels that differ": np.stack([np.full(N, -peak), rng.uniform(0, peak, N)], 1),
    }[shape]
    found = asdict(measured(with_stretches(sound, 400, 4)))
    assert all(value is None or np.isfinite(value) for value in found.values()), found
    if peak > 1:
        assert found["peak_dbfs"] == pytest.approx(20 * np.log10(peak), abs=0.1)
