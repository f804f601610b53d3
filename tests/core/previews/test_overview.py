from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import soundfile

from audioset_core.audio.decoders import open_decoder
from audioset_core.audio.recording import Recording
from audioset_core.errors import AudioError
from audioset_core.previews.snippets import RATE_HZ, centred_span, mp3_bytes, read_snippet
from audioset_core.previews.spectrogram_png import axis_step, palette, spectrogram_png
from audioset_core.previews.waveform_overview import FRAME_S, band_of_hz, overview_of, read_overview

RATE = 22_050


def _burst(begin_s: float, length_s: float, frequency_hz: float = 1000.0) -> np.ndarray:
    """A tone within silence."""
    time_s = np.arange(round(length_s * RATE)) / RATE
    is_on = (time_s >= begin_s) & (time_s < begin_s + 0.5)
    return (0.5 * np.sin(2 * np.pi * frequency_hz * time_s) * is_on).astype(np.float32)


def _write(path: Path, samples: np.ndarray, **settings: str) -> bytes:
    soundfile.write(path, samples, RATE, **settings)
    return str(path).encode()


def _identity(path: bytes) -> tuple[str, int]:
    with Recording(path) as recording:
        for _ in recording.blocks():
            pass
        return recording.sha256, recording.n_samples


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg"])
def test_the_sound_is_where_it_is_in_the_file(tmp_path: Path, suffix: str) -> None:
    path = _write(tmp_path / f"burst.{suffix}", _burst(7.0, 20.0))
    view = read_overview(path, *_identity(path), 400)
    assert view.duration_s == pytest.approx(20.0, abs=0.01)
    column_s = view.duration_s / len(view.high)
    loud = np.flatnonzero(view.high > 0.1) * column_s
    assert loud.min() == pytest.approx(7.0, abs=column_s)
    assert loud.max() == pytest.approx(7.5, abs=column_s)
    mel_s = view.mel_end_s / len(view.log_mel)
    band = round(band_of_hz(1000.0))
    heard = np.flatnonzero(view.log_mel[:, band] > view.log_mel[:, band].max() - 1) * mel_s
    assert heard.min() == pytest.approx(7.0, abs=2 * mel_s)
    assert heard.max() == pytest.approx(7.5, abs=2 * mel_s)
    assert view.log_mel.argmax(axis=1)[int(7.25 / mel_s)] == band


def test_a_short_clip_has_a_column_per_frame() -> None:
    samples = _burst(0.1, 0.7)
    view = overview_of(iter([samples]), RATE, len(samples), 1000)
    assert len(view.log_mel) == 70
    assert view.mel_end_s == pytest.approx(70 * FRAME_S)
    assert len(view.low) == 1000


def test_other_content_is_refused(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.wav", _burst(0, 1))
    with pytest.raises(AudioError, match="not what was labelled"):
        read_overview(path, "0" * 64, RATE, 10)


@pytest.mark.parametrize(
    ("suffix", "settings"),
    [("wav", {}), ("flac", {}), ("ogg", {}), ("ogg", {"subtype": "OPUS"}), ("mp3", {})],
)
def test_a_snippet_is_the_span_asked_for(
    tmp_path: Path, suffix: str, settings: dict[str, str]
) -> None:
    rate = 24_000
    samples = np.random.default_rng(3).uniform(-0.1, 0.1, 60 * rate).astype(np.float32)
    at = np.arange(60 * rate) / rate
    samples[(at >= 41.0) & (at < 41.2)] *= 8
    path = tmp_path / f"long.{suffix}"
    soundfile.write(path, samples, rate, **settings)
    seen = path.stat()
    piece = read_snippet(str(path).encode(), (seen.st_size, seen.st_mtime_ns), 39.0, 45.0, 300)
    assert piece.length_s == pytest.approx(6.0, abs=1e-4)
    loud = np.flatnonzero(np.abs(piece.samples) > 0.3) / RATE_HZ
    assert loud.min() == pytest.approx(2.0, abs=0.06)
    assert loud.max() == pytest.approx(2.2, abs=0.06)
    heard = soundfile.info(io.BytesIO(mp3_bytes(piece)))
    assert (heard.format, heard.samplerate, heard.channels) == ("MP3", RATE_HZ, 1)
    assert heard.duration == pytest.approx(6.0, abs=0.15)


def test_a_snippet_of_a_file_that_changed_or_went_is_refused(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.wav", _burst(0, 3))
    seen = (tmp_path / "a.wav").stat()
    with pytest.raises(AudioError, match="has changed since"):
        read_snippet(path, (seen.st_size, seen.st_mtime_ns + 1), 0, 1, 10)
    with pytest.raises(AudioError, match=r"no sound at 9\.0 s"):
        read_snippet(path, (seen.st_size, seen.st_mtime_ns), 9, 10, 10)
    (tmp_path / "a.wav").unlink()
    with pytest.raises(AudioError, match="vanished"):
        read_snippet(path, (seen.st_size, seen.st_mtime_ns), 0, 1, 10)


def test_skipping_gives_the_samples_that_decoding_gives(tmp_path: Path) -> None:
    samples = np.random.default_rng(1).uniform(-0.5, 0.5, 300_000).astype(np.float32)
    _write(tmp_path / "a.flac", samples)
    with (tmp_path / "a.flac").open("rb") as file:
        decoder = open_decoder(file.fileno(), (tmp_path / "a.flac").stat().st_size)
        assert decoder.skip(200_001) == 200_001
        block = next(decoder.blocks())
        decoder.close()
    np.testing.assert_allclose(block, samples[200_001 : 200_001 + len(block)], atol=2e-4)


@pytest.mark.parametrize(
    ("peak_s", "window_s", "duration_s", "expected"),
    [
        (0.0, 0.96, 20.0, (0.0, 6.0)), (10.0, 0.96, 20.0, (7.48, 13.48)),
        (19.2, 0.96, 20.0, (14.0, 20.0)), (1.0, 0.96, 2.5, (0.0, 2.5)),
        (None, 0.96, 60.0, (0.0, 6.0)), (10.0, 2.0, 20.0, (8.0, 14.0)),
        # What a window of 10 s answers for may be anywhere in it.
        (165.0, 10.0, 600.0, (165.0, 175.0)), (7.5, 10.0, 12.6, (2.6, 12.6)),
        (0.0, 10.0, 5.0, (0.0, 5.0)),
    ],
)  # fmt: skip
def test_the_span_has_the_best_window_and_lies_in_the_clip(
    peak_s: float | None, window_s: float, duration_s: float, expected: tuple[float, float]
) -> None:
    assert centred_span(peak_s, window_s, duration_s, 6.0) == pytest.approx(expected)


def test_the_picture_is_a_png_of_the_right_pixels() -> None:
    log_mel = np.full((30, 64), -6.9, np.float32)
    log_mel[12, 5] = 2.0
    data = spectrogram_png(log_mel)
    width, height, depth, kind = struct.unpack(">IIBB", data[16:26])
    assert (width, height, depth, kind) == (30, 64, 8, 3)
    start = data.index(b"IDAT") + 4
    size = int.from_bytes(data[start - 8 : start - 4])
    rows = np.frombuffer(zlib.decompress(data[start : start + size]), np.uint8).reshape(64, 31)
    assert np.argwhere(rows == 255).tolist() == [[64 - 1 - 5, 1 + 12]]
    assert (np.diff(palette().astype(int).sum(axis=1)) >= 0).all()


def test_silence_stays_dark() -> None:
    noise = np.random.default_rng(0).normal(-6.9, 0.01, (50, 64)).astype(np.float32)
    data = spectrogram_png(noise)
    start = data.index(b"IDAT") + 4
    size = int.from_bytes(data[start - 8 : start - 4])
    rows = np.frombuffer(zlib.decompress(data[start : start + size]), np.uint8).reshape(64, 51)
    assert rows[:, 1:].max() < 10


@pytest.mark.parametrize(
    ("length", "expected"), [(0.9, 0.1), (8.0, 1.0), (10.0, 1.0), (61.0, 10.0), (1e6, 100_000.0)]
)
def test_an_axis_has_few_and_round_steps(length: float, expected: float) -> None:
    steps = (0.1, 1.0, 10.0, 100.0)
    assert axis_step(length, 10, steps) == expected
