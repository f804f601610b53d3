from __future__ import annotations

import os
import resource
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import soxr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from audioset_core.audio import recording as audio
from audioset_core.audio.decoders import open_decoder
from audioset_core.audio.mono import mix_to_mono
from audioset_core.audio.recording import Recording
from audioset_core.errors import AudioError, Reason
from audioset_core.features.config import VGGISH, YAMNET, FrontendConfig
from audioset_core.features.log_mel import log_mel, patches
from audioset_core.features.patch_reader import LogMelPiece
from audioset_core.features.shared_reader import SharedReader
from audioset_core.models.registry import YAMNET as BUNDLE
from tests.bounds import assert_rounding, assert_within, htk_matrix, log_mel_sigma

F32 = NDArray[np.float32]

CONFIGS = {
    "yamnet": YAMNET,
    "vggish": VGGISH,
    "seed": BUNDLE.framed(patch_hop_s=None, framing="seed"),
    "hop 0.03 s": BUNDLE.framed(patch_hop_s=0.03, framing="reference"),
    "hop 0.96 s": BUNDLE.framed(patch_hop_s=0.96, framing="reference"),
}


pytestmark = pytest.mark.usefixtures("no_descriptor_leaks")


def write_noise(path: Path, rate_hz: int, n_channels: int, n_samples: int, **how: Any) -> Path:
    noise = np.random.default_rng(n_samples).normal(0, 0.1, (n_samples, n_channels))
    soundfile.write(path, noise, rate_hz, **how)
    return path


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """27 s of stereo at 22,050 Hz."""
    return write_noise(tmp_path_factory.mktemp("clip") / "a.wav", 22_050, 2, 595_350)


def read_in_pieces(
    path: Path, config: FrontendConfig, budgets: list[float]
) -> tuple[list[LogMelPiece], F32]:
    """Pieces by these budgets in turn, and all their patches."""
    reader = SharedReader(Recording(os.fsencode(path)), [(config, False)])
    pieces: list[LogMelPiece] = []
    try:
        while not reader.is_finished:
            [[piece]] = reader.read(budgets[len(pieces) % len(budgets)])
            pieces.append(piece)
            assert len(pieces) < 10_000
    finally:
        reader.close()
    views = []
    for piece in pieces:
        view = patches(piece.frames, config)
        assert len(view) == piece.n_patches
        views.append(view)
    return pieces, np.concatenate(views)


def reference(path: Path, config: FrontendConfig) -> F32:
    """Everything at once, without our own decoding."""
    samples, rate_hz = soundfile.read(path, dtype="float32", always_2d=True)
    mono = mix_to_mono(samples)
    if rate_hz != 16_000:
        mono = soxr.resample(mono, rate_hz, 16_000, quality="HQ")
    return patches(log_mel(mono, config), config)


@pytest.mark.parametrize("name", CONFIGS)
def test_one_piece_equals_everything_at_once(clip: Path, name: str) -> None:
    config = CONFIGS[name]
    pieces, found = read_in_pieces(clip, config, [1e9])
    assert len(pieces) == 1
    np.testing.assert_array_equal(found, reference(clip, config))


@given(
    budgets=st.lists(st.floats(0, 30), min_size=1, max_size=4),
    name=st.sampled_from(sorted(CONFIGS)),
)
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@pytest.mark.slow
def test_any_budget_gives_the_same_bits(clip: Path, budgets: list[float], name: str) -> None:
    config = CONFIGS[name]
    _, found = read_in_pieces(clip, config, budgets)
    np.testing.assert_array_equal(found, reference(clip, config))


@pytest.mark.parametrize("budget_s", [0.0, 0.01, 0.5, 0.7])
def test_a_small_budget_does_not_stand_still(clip: Path, budget_s: float) -> None:
    # What is carried over from the last piece must not count as read.
    pieces, _ = read_in_pieces(clip, YAMNET, [budget_s])
    assert len(pieces) < 60


@pytest.mark.parametrize(
    ("rate_hz", "n_channels"),
    [(1_000, 1), (8_000, 2), (16_000, 1), (16_000, 3), (44_100, 2), (44_101, 1), (192_000, 1)],
)
@pytest.mark.parametrize("duration_s", [0.3, 0.975, 0.976, 2.5, 13.0])
def test_rates_channels_and_lengths(
    tmp_path: Path, rate_hz: int, n_channels: int, duration_s: float
) -> None:
    path = write_noise(tmp_path / "a.wav", rate_hz, n_channels, int(rate_hz * duration_s))
    for config in (YAMNET, VGGISH):
        _, found = read_in_pieces(path, config, [3.0])
        np.testing.assert_array_equal(found, reference(path, config))


@pytest.mark.parametrize("suffix", [".flac", ".mp3", ".aiff"])
def test_formats(tmp_path: Path, suffix: str) -> None:
    path = write_noise(tmp_path / f"a{suffix}", 44_100, 2, 44_100 * 7)
    _, found = read_in_pieces(path, YAMNET, [2.0])
    np.testing.assert_array_equal(found, reference(path, YAMNET))


def test_vorbis(tmp_path: Path) -> None:
    """By FFmpeg: its samples, to the bit, are libsndfile's within 1e-6 (test_vorbis.py)."""
    path = write_noise(tmp_path / "a.ogg", 44_100, 2, 44_100 * 7)
    _, found = read_in_pieces(path, YAMNET, [2.0])
    with path.open("rb") as file:
        decoder = open_decoder(file.fileno(), path.stat().st_size)
        samples = np.concatenate(list(decoder.blocks()))
        decoder.close()
    by_libsndfile, _ = soundfile.read(path, dtype="float32")
    assert_within(samples, mix_to_mono(by_libsndfile), 1e-6)
    at_16_khz = soxr.resample(samples, 44_100, 16_000, quality="HQ")
    np.testing.assert_array_equal(found, patches(log_mel(at_16_khz, YAMNET), YAMNET))


def test_the_mean_of_channels_is_meant(clip: Path) -> None:
    samples, _ = soundfile.read(clip, dtype="float32", always_2d=True)
    np.testing.assert_array_equal(mix_to_mono(samples), samples.mean(axis=1))


@pytest.mark.parametrize("duration_s", [1 / 16_000, 0.1, 0.95])
def test_the_shortest_clips_get_a_patch(tmp_path: Path, duration_s: float) -> None:
    # The older port crashed on them.
    path = write_noise(tmp_path / "a.wav", 16_000, 1, int(16_000 * duration_s))
    assert len(read_in_pieces(path, YAMNET, [60.0])[1]) == 1
    pieces, found = read_in_pieces(path, VGGISH, [60.0])
    assert (len(pieces), len(found)) == (1, 0)


def test_no_tail_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    samples = np.zeros(16_000 * 3, np.float32)
    samples[-50] = 1.0  # a click at the very end
    soundfile.write(path, samples, 16_000, subtype="FLOAT")
    _, found = read_in_pieces(path, YAMNET, [60.0])
    assert found[-1].max() > np.log(0.01)


@pytest.mark.numeric
def test_equals_the_golden_vectors(assets: Path, tmp_path: Path) -> None:
    golden = np.load(assets / "golden" / "yamnet_golden.npz")
    for name in ("esc_dog", "noise", "short"):
        path = tmp_path / f"{name}.wav"
        soundfile.write(path, golden[f"{name}/waveform"], 16_000, subtype="FLOAT")
        _, found = read_in_pieces(path, YAMNET, [1.0])
        theirs = golden["mel_matrix"] - htk_matrix()
        _, sigma = log_mel_sigma(golden[f"{name}/waveform"], YAMNET, weights_error=theirs)
        assert_rounding(found, golden[f"{name}/patches"], patches(2 * sigma, YAMNET), name)


def test_pieces_are_about_the_budget(clip: Path) -> None:
    pieces, _ = read_in_pieces(clip, YAMNET, [10.0])
    assert [len(piece.frames) for piece in pieces[:-1]] == [
        pytest.approx(1_000, abs=96 + 1_000)
    ] * (len(pieces) - 1)


def test_damage_shows_when_it_is_reached(tmp_path: Path) -> None:
    samples = np.random.default_rng(0).normal(0, 0.1, 16_000 * 60).astype(np.float32)
    samples[-1] = np.nan
    path = tmp_path / "a.wav"
    soundfile.write(path, samples, 16_000, subtype="FLOAT")
    reader = SharedReader(Recording(os.fsencode(path)), [(YAMNET, False)])
    [[piece]] = reader.read(10.0)
    assert piece.n_patches > 0
    with pytest.raises(AudioError) as caught:
        reader.read(1000.0)
    assert caught.value.reason is Reason.NOT_FINITE
    reader.close()
    reader.close()


def silence(path: Path, duration_s: int, rate_hz: int) -> Path:
    """A WAV with a hole for samples: hours of it take no room on the disk."""
    n_bytes = duration_s * rate_hz * 2
    soundfile.write(path, np.zeros(16, np.float32), rate_hz, subtype="PCM_16")
    header = bytearray(path.read_bytes()[:44])
    header[4:8] = (n_bytes + 36).to_bytes(4, "little")
    header[40:44] = n_bytes.to_bytes(4, "little")
    path.write_bytes(header)
    os.truncate(path, 44 + n_bytes)
    return path


def read_through(path: Path, budget_s: float) -> int:
    reader = SharedReader(Recording(os.fsencode(path)), [(YAMNET, False)])
    n_patches = 0
    while not reader.is_finished:
        [[piece]] = reader.read(budget_s)
        n_patches += piece.n_patches
    reader.close()
    return n_patches


def test_memory_does_not_grow_with_the_clip(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audio, "IN_MEMORY_BYTES", 0)
    peaks = []
    for minutes in (5, 30):
        path = silence(tmp_path / f"{minutes}.wav", minutes * 60, 16_000)
        tracemalloc.start()
        try:
            n_patches = read_through(path, 60.0)
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
        assert n_patches == YAMNET.n_patches(minutes * 60 * 16_000)
    assert peaks[1] < peaks[0] * 1.1
    assert peaks[1] < 40_000_000


@pytest.mark.slow
def test_three_hours(tmp_path: Path) -> None:
    path = silence(tmp_path / "a.wav", 3 * 3600, 44_100)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert read_through(path, 300.0) == YAMNET.n_patches(3 * 3600 * 16_000)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # KB
