from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from audioset_core.audio.sandbox import open_sandboxed
from audioset_core.errors import AudioError
from audioset_core.previews import spans
from audioset_core.previews.spans import SeenFile, SpanReader, read_span
from audioset_core.previews.zoom_columns import (
    N_BANDS,
    Columns,
    all_columns,
    n_columns_of,
    overview_level,
    some_columns,
)

RATE_HZ = 48_000


def _file(path: Path, samples: np.ndarray, rate_hz: int = RATE_HZ) -> SeenFile:
    soundfile.write(path, samples, rate_hz)
    seen = path.stat()
    return SeenFile(str(path).encode(), seen.st_size, seen.st_mtime_ns)


def _whole(file: SeenFile, level: int) -> Columns:
    pieces = list(all_columns(file, level))
    names = ("low", "high", "bands")
    return Columns(*(np.concatenate([getattr(piece, n) for piece in pieces]) for n in names))


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> SeenFile:
    """7.3 s: a tone of 1,125 Hz, the middle of a bin, at half of full scale, and one click."""
    time_s = np.arange(round(7.3 * RATE_HZ)) / RATE_HZ
    samples = 0.5 * np.sin(2 * np.pi * 1125 * time_s)
    samples[3 * RATE_HZ] = 1
    return _file(tmp_path_factory.mktemp("zoom") / "tone.wav", samples)


@pytest.mark.parametrize("level", [8, 11, 15])
def test_a_span_has_the_columns_of_the_whole(file: SeenFile, level: int) -> None:
    whole = _whole(file, level)
    assert len(whole.low) == n_columns_of(round(7.3 * RATE_HZ), level)
    first, n = len(whole.low) // 2, len(whole.low) - len(whole.low) // 2
    some = some_columns(SpanReader(), file, RATE_HZ, level, first, n)
    for name in ("low", "high", "bands"):
        np.testing.assert_array_equal(getattr(some, name), getattr(whole, name)[first:])


def test_a_tone_has_its_level_in_its_band_and_a_click_is_seen_at_any_zoom(file: SeenFile) -> None:
    whole = _whole(file, 8)
    mel, linear = whole.bands[100]
    # -6 dB of -120 ... 0 dB; 1,080 of 4,016 mel at 24 kHz (1127 ln(1 + f / 700)).
    assert linear.max() == pytest.approx(255 * (1 - 6.02 / 120), abs=1)
    assert linear.argmax() == 1125 * N_BANDS // 24_000
    assert mel.argmax() == 1080 * N_BANDS // 4016
    assert (whole.low[100], whole.high[100]) == (-16_384, 16_384)
    one = whole.part(0, 1, 1 << 11)
    assert (one.low[0], one.high[0]) == (-16_384, 32_766)
    packed = whole.part(0, 3).packed("linear")
    assert len(packed) == 3 * (4 + N_BANDS)
    assert packed[6:12] == whole.high[:3].astype("<i2").tobytes()


@pytest.mark.parametrize("n_samples", [1, 200, RATE_HZ // 10])
@pytest.mark.parametrize("rate_hz", [1_000, RATE_HZ, 384_000])
def test_the_shortest_recordings_have_columns(tmp_path: Path, n_samples: int, rate_hz: int) -> None:
    file = _file(tmp_path / "short.wav", np.full(n_samples, 0.25), rate_hz)
    level = overview_level(n_samples)
    whole = _whole(file, level)
    assert len(whole.low) == n_columns_of(n_samples, level)
    assert whole.high.max() == 8192
    some = some_columns(SpanReader(), file, rate_hz, 3, 0, n_columns_of(n_samples, 3))
    assert some.high.max() == 8192


def test_a_span_is_exact_and_refused_where_the_file_changed(file: SeenFile) -> None:
    stored, _ = soundfile.read(file.path.decode(), always_2d=True)
    samples, rate_hz = read_span(file, 2.5, 3.5, all_channels=True)
    assert rate_hz == RATE_HZ
    np.testing.assert_array_equal(samples, stored[120_000:168_000])
    with pytest.raises(AudioError, match=r"there is no sound at 9\.0 s"):
        read_span(file, 9.0, 9.5)
    with pytest.raises(AudioError, match="has changed since it was labelled"):
        read_span(SeenFile(file.path, file.size_bytes, file.mtime_ns + 1), 0, 1)


def test_what_can_only_be_read_from_the_beginning_stays_open_for_the_next_span(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = np.random.default_rng(0).integers(-9999, 9999, 60 * 8_000).astype(np.int16)
    whole = _file(tmp_path / "partial.wav", stored, 8_000)
    file = SeenFile(whole.path, whole.size_bytes, whole.mtime_ns, is_partial=True)
    begun: list[float | None] = []

    def counting(*arguments: Any) -> Any:
        begun.append(arguments[3])
        return open_sandboxed(*arguments)

    monkeypatch.setattr(spans, "open_sandboxed", counting)
    reader = SpanReader()
    for start_s in (20.0, 24.0, 23.9, 50.0, 58.0, 12.0, 20.0):
        samples, _ = reader.read(file, start_s, start_s + 4)
        first = round(start_s * 8_000)
        np.testing.assert_array_equal(samples, stored[first : first + 32_000] / np.float32(2**15))
    # Opened again only after the end, and after it went back; never in the middle.
    assert begun == [None] * 2
    reader.read(whole, 40.0, 44.0)
    reader.read(whole, 44.0, 48.0)
    assert begun[2:] == [39.0, 43.0]
