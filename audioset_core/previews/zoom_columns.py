"""The columns of a picture of a recording that can be zoomed: waveform and spectrum by levels.

Column ``i`` of level ``z`` is of the ``2**z`` samples from ``i * 2**z`` on: their lowest and their
highest, and the strongest of their spectra in bands. A click of a millisecond is therefore visible
in a day, and columns of one level make those of the next. Bands reach from 0 Hz to half the sample
rate, evenly spaced in mel (HTK) or in Hz; 0 dB is a sine of full scale.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import scipy.fft
import scipy.signal.windows
from numpy.typing import NDArray

from audioset_core.arrays import F32
from audioset_core.features.mel import htk_to_hz, hz_to_htk
from audioset_core.previews.spans import SeenFile, SpanReader, opened, with_silence

N_BANDS = 128
LOWEST_DB = -120.0
"""The value 0 of a band; 255 is 0 dB."""
AXES = ("mel", "linear")
LEAST_LEVEL = 3
_MOST_COLUMNS = 1 << 17
_WINDOW_S = 0.0213
_LEAST_FFT = 256
_FFT_PER_COLUMN = 16
"""A window is at most so many columns long: near by, moments are told apart rather than tones."""
_BATCH_VALUES = 1 << 21
_FULL = 32_767


@dataclass(frozen=True, slots=True)
class Columns:
    """Columns of one level.

    Shape:
        low, high: [n], int16, 32,767 at full scale; bands: [n, 2, 128], uint8, by `AXES`
    """

    low: NDArray[np.int16]
    high: NDArray[np.int16]
    bands: NDArray[np.uint8]

    @classmethod
    def empty(cls, n_columns: int) -> Columns:
        """Columns of silence."""
        return cls(
            np.zeros(n_columns, np.int16), np.zeros(n_columns, np.int16),
            np.zeros((n_columns, len(AXES), N_BANDS), np.uint8),
        )  # fmt: skip

    def part(self, first: int, last: int, n_of_one: int = 1) -> Columns:
        """Columns ``[first, last)`` of a coarser level: one of it is `n_of_one` of these."""
        part = slice(first * n_of_one, last * n_of_one)
        low, high, bands = self.low[part], self.high[part], self.bands[part]
        if n_of_one == 1 or not len(low):
            return Columns(low, high, bands)
        starts = np.arange(0, len(low), n_of_one)
        return Columns(
            np.minimum.reduceat(low, starts), np.maximum.reduceat(high, starts),
            np.maximum.reduceat(bands, starts, axis=0),
        )  # fmt: skip

    def packed(self, axis: str) -> bytes:
        """Lows and highs as little-endian int16, then the bands of each column, of one axis."""
        waves = self.low.astype("<i2").tobytes() + self.high.astype("<i2").tobytes()
        return waves + self.bands[:, AXES.index(axis)].tobytes()


def n_columns_of(n_samples: int, level: int) -> int:
    """How many columns a recording has at a level; at least one."""
    return max(1, -(-n_samples >> level))


def overview_level(n_samples: int) -> int:
    """The level of the one pass over the whole recording; finer ones are computed as needed.

    >>> overview_level(48_000 * 60), overview_level(48_000 * 3600 * 24)
    (8, 15)
    """
    return max(8, math.ceil(math.log2(max(1, n_samples) / _MOST_COLUMNS)))


def all_columns(file: SeenFile, level: int) -> Iterator[Columns]:
    """All columns of a file in one bounded pass, piece by piece.

    Raises:
        AudioError: as `audioset_core.previews.spans.opened`.
    """
    with opened(file, None) as decoder:
        shape = _shape(decoder.info.sample_rate_hz, level)
        waiting = np.zeros(shape.n_before, np.float32)
        for block in decoder.blocks():
            waiting = np.concatenate([waiting, block])
            n_columns = (len(waiting) - shape.n_after) >> level
            if n_columns > 0:
                yield _columns(waiting, n_columns, shape)
                waiting = waiting[n_columns << level :]
        if n_left := len(waiting) - shape.n_before:
            n_columns = n_columns_of(n_left, level)
            room = with_silence(waiting, 0, (n_columns << level) + shape.n_after)
            yield _columns(room, n_columns, shape)


def some_columns(
    spans: SpanReader, file: SeenFile, rate_hz: int, level: int, first: int, n_columns: int
) -> Columns:
    """Columns of a span, from the samples of it and of what its windows reach beyond it.

    Raises:
        AudioError: as `audioset_core.previews.spans.read_span`.
    """
    shape = _shape(rate_hz, level)
    begin = (first << level) - shape.n_before
    n_samples = (n_columns << level) + shape.n_after
    at = max(0, begin)
    samples, _ = spans.read(file, at / rate_hz, (begin + n_samples) / rate_hz)
    return _columns(with_silence(samples, at - begin, n_samples), n_columns, shape)


@dataclass(frozen=True, slots=True)
class _Shape:
    """How columns of a level are computed: samples of a window and from one to the next."""

    rate_hz: int
    level: int
    n_fft: int
    hop: int

    @property
    def n_before(self) -> int:
        """Samples before the first column that its first window has; windows are centred."""
        return (self.n_fft - self.hop) // 2

    @property
    def n_after(self) -> int:
        """Samples that are needed beyond those of the columns, the ones before included."""
        return self.n_fft - self.hop


def _shape(rate_hz: int, level: int) -> _Shape:
    longest = 1 << round(math.log2(rate_hz * _WINDOW_S))
    n_fft = max(16, min(longest, max(_LEAST_FFT, _FFT_PER_COLUMN << level)))
    return _Shape(rate_hz, level, n_fft, min(1 << level, n_fft // 2))


def _columns(padded: F32, n_columns: int, shape: _Shape) -> Columns:
    """Columns of samples that begin `n_before` before the first and end `n_after` later."""
    width = 1 << shape.level
    wave = padded[shape.n_before :][: n_columns * width].reshape(n_columns, width)
    scaled = [np.rint(extreme.clip(-1, 1) * _FULL) for extreme in (wave.min(1), wave.max(1))]
    bands = np.empty((n_columns, len(AXES), N_BANDS), np.uint8)
    n_windows = width // shape.hop
    batch = max(1, _BATCH_VALUES // (n_windows * shape.n_fft))
    for at in range(0, n_columns, batch):
        n = min(batch, n_columns - at)
        bands[at : at + n] = _bands(padded[at * width :], n, n_windows, shape)
    return Columns(scaled[0].astype(np.int16), scaled[1].astype(np.int16), bands)


def _bands(padded: F32, n_columns: int, n_windows: int, shape: _Shape) -> NDArray[np.uint8]:
    windows = np.lib.stride_tricks.sliding_window_view(padded, shape.n_fft)
    windows = windows[: n_columns * n_windows * shape.hop : shape.hop]
    window = scipy.signal.windows.hann(shape.n_fft, sym=False).astype(np.float32)
    spectra = scipy.fft.rfft(windows * window, axis=1)
    power = (spectra.real**2 + spectra.imag**2).reshape(n_columns, n_windows, -1).max(1)
    strongest = [np.maximum.reduceat(power, _edges(axis, shape), axis=1) for axis in AXES]
    decibels = 10 * np.log10(np.stack(strongest, 1) / (window.sum() / 2) ** 2 + 1e-13)
    levels: NDArray[np.uint8] = np.rint((1 - decibels / LOWEST_DB).clip(0, 1) * 255).astype("u1")
    return levels


def _edges(axis: str, shape: _Shape) -> NDArray[np.int64]:
    """The first bin of each band; where bands are narrower than bins, several have the same."""
    highest_hz = shape.rate_hz / 2
    edges_hz = np.linspace(0, highest_hz, N_BANDS + 1)
    if axis == "mel":
        highest = float(hz_to_htk(np.array(highest_hz)))
        edges_hz = htk_to_hz(np.linspace(0, highest, N_BANDS + 1))
    return np.ceil(edges_hz[:-1] / highest_hz * (shape.n_fft // 2) - 1e-9).astype(np.int64)
