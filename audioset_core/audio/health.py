"""The state of a recording, measured while it is decoded: clipping, dropouts, silence, levels.

All channels are looked at, each alone, in buffers of a second or so. What a decoder puts where
nothing was recorded is left out. docs/health.md says what each measure is and cannot find.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from audioset_core.arrays import F32, Floats
from audioset_core.audio.loudness import FRAMES_PER_S, Loudness
from audioset_core.records import Health

FLOOR_DBFS = -150.0
"""The level of digital silence; below it there is no level (24 bits end at -144 dBFS)."""
_BUFFER_SAMPLES = 1 << 17
"""Of all channels together: 3 s of one at 44.1 kHz."""

# Three equal samples at the recording's own highest or lowest value are clipped, as in Audacity's
# "Find clipping"; recorders may clip below full scale, but not as low as -20 dBFS.
_CLIPPED_RUN, _LEAST_CLIPPED = 3, 0.1

_DROPOUT_S, _MOST_DROPOUT_S, _LEAST_DROPOUT_SAMPLES = 0.001, 1.0, 32
"""Equal samples for so long, amid sound, are a dropout: a frame of USB, up to a second. Longer: a
pause."""
_BESIDE_S = 0.001
"""So much on both sides of a dropout has to be sound: what fades to silence ends in none."""
_BESIDE_LEVEL, _BESIDE_STEPS, _BESIDE_SHARE = 1e-3, 4, 0.1
_BITS = {"int8": 8, "int24": 24, "int32": 32}
_LARGE = 1e9
"""Beyond it, the sum of squares may not fit into float32."""
_HELD = 0.5
"""Sound of which so many samples equal the one before has few levels, as of a synthesiser."""
_ALL_EQUAL = np.uint64(0x0101010101010101)


class HealthMeter:
    """Takes all blocks of a recording, then has its `Health`."""

    def __init__(
        self, rate_hz: int, n_channels: int, sample_type: str, *, with_loudness: bool = False
    ) -> None:
        self._rate_hz, self._n, self._n_silent = rate_hz, 0, 0
        self._step = 2.0 ** (1 - _BITS.get(sample_type, 16))
        self._channels = [_Channel(rate_hz, self._step) for _ in range(n_channels)]
        self._loudness = Loudness(rate_hz, n_channels) if with_loudness else None
        self._frame = max(1, round(rate_hz / FRAMES_PER_S))
        n_frames = max(1, _BUFFER_SAMPLES // n_channels // self._frame)
        self._buffer = np.empty((n_channels, n_frames * self._frame), np.float32)
        self._held = 0

    def add(self, block: F32) -> None:
        """Measure a block. Shape: ``[n, n_channels]``; with other channels it is left out."""
        if block.shape[1] != len(self._channels):
            return
        while len(block):
            room = self._buffer[:, self._held : self._held + len(block)]
            taken = room.shape[1]
            room[:] = block[:taken].T
            self._held += taken
            block = block[taken:]
            if self._held == self._buffer.shape[1]:
                self._measure(self._buffer, self._frame)
                self._held = 0

    def result(self) -> Health | None:
        """What was measured; None of a recording without samples. Nothing can be added after it."""
        whole = self._held // self._frame * self._frame
        self._measure(self._buffer[:, :whole], self._frame)
        self._measure(self._buffer[:, whole : self._held], self._held - whole)
        self._held = 0
        if not self._n:
            return None
        for channel in self._channels:
            channel.settle(self._step)
        levels = [channel.level_db for channel in self._channels]
        most = max(self._channels, key=lambda channel: channel.n_dropouts)
        is_mono = len(levels) == 1
        return Health(
            measured_s=self._n / self._rate_hz,
            clipped_share=max(channel.n_clipped for channel in self._channels) / self._n,
            n_dropouts=most.n_dropouts,
            dropout_s=most.n_dropped / self._rate_hz,
            dc_offset=max(abs(c.dc) / max(1.0, c.peak) for c in self._channels),
            silent_share=self._n_silent / self._n,
            channel_gap_db=None if is_mono else max(levels) - min(levels),
            weakest_channel=None if is_mono else levels.index(min(levels)) + 1,
            peak_dbfs=_db(max(channel.peak for channel in self._channels)),
            rms_dbfs=_db(math.sqrt(sum(c.variance for c in self._channels) / len(levels))),
            loudness_lufs=self._loudness.result_lufs() if self._loudness else None,
        )

    def _measure(self, sound: F32, frame: int) -> None:
        if not sound.shape[1]:
            return
        both = zip(self._channels, sound, strict=True)
        constant = [channel.add(row, frame) for channel, row in both]
        self._n_silent += int(np.logical_and.reduce(constant).sum()) * frame
        self._n += sound.shape[1]
        if self._loudness and frame == self._frame:
            self._loudness.add(sound, frame)


@dataclass(slots=True)
class _Run:
    """Equal samples up to the end of a buffer: the next one may have more of them."""

    value: float
    n: int
    is_beside_sound: bool


class _Channel:
    """The measures of one channel."""

    def __init__(self, rate_hz: int, step: float) -> None:
        self._least_run = max(_LEAST_DROPOUT_SAMPLES, round(_DROPOUT_S * rate_hz))
        self._most_run = round(_MOST_DROPOUT_S * rate_hz)
        self._beside = max(8, round(_BESIDE_S * rate_hz))
        self._least_level = max(_BESIDE_LEVEL, _BESIDE_STEPS * step)
        self._extremes = [-math.inf, -math.inf]  # highest sample, and highest of the negated ones
        self._at_extremes = [0, 0]
        self._n, self._sum, self._power = 0, 0.0, 0.0
        self._n_equal, self._n_constant = 0, 0
        self._open: _Run | None = None
        self.n_clipped, self.n_dropouts, self.n_dropped = 0, 0, 0

    def add(self, row: Floats, frame: int) -> NDArray[np.bool_]:
        """Measure samples ``[n]``; for each frame of them, whether all its samples are equal."""
        frames = row.reshape(-1, frame)
        highest, lowest = frames.max(axis=1), frames.min(axis=1)
        high, low = float(highest.max()), float(lowest.min())
        constant: NDArray[np.bool_] = highest == lowest
        if max(high, -low) > _LARGE:
            row = row.astype(np.float64)
        rough, rest, centred = 0.0, float(row.mean()), row
        if abs(rest) > 1e-3:  # in float32, a large mean would hide a small sound
            rough, centred = rest, row - np.float32(rest)
            rest = float(centred.mean())
        mean = rough + rest
        self._n += len(row)
        self._sum += mean * len(row)
        self._power += float(centred @ centred) + len(row) * rough * (2 * rest + rough)
        self._n_constant += int(constant.sum()) * frame
        equal: NDArray[np.bool_] = row[1:] == row[:-1]
        n_equal = int(np.count_nonzero(equal))
        self._n_equal += n_equal
        for side, value in enumerate((high, -low)):
            self._count_clipped(side, value, row, equal if n_equal else equal[:0])
        self._find_dropouts(row, equal, mean, low, high)
        return constant

    @property
    def dc(self) -> float:
        """The mean of all samples."""
        return self._sum / self._n

    @property
    def variance(self) -> float:
        """The mean power without the mean."""
        return max(0.0, self._power / self._n - self.dc**2)

    @property
    def level_db(self) -> float:
        """The RMS level without the mean."""
        return _db(math.sqrt(self.variance))

    @property
    def peak(self) -> float:
        """The greatest absolute value."""
        return max(self._extremes)

    def settle(self, step: float) -> None:
        """Settle what is clipped; none, and no dropouts, where sound is made of few levels."""
        found = sum(n for n, at in zip(self._at_extremes, self._extremes, strict=True)
                    if at >= _LEAST_CLIPPED)  # fmt: skip
        # Rounded to steps, a pure tone stays on its highest and lowest for this part of the time.
        rounded = 2 / math.pi * math.sqrt(step / max(self.peak, step))
        self.n_clipped = found if found > 2 * rounded * self._n else 0
        known = self._n_constant + self.n_clipped + self.n_dropped
        n_left, n_equal = self._n - known, self._n_equal - known
        if n_left < 1e-3 * self._n or n_equal > _HELD * n_left:
            self.n_clipped = self.n_dropouts = self.n_dropped = 0

    def _count_clipped(
        self, side: int, value: float, row: Floats, equal: NDArray[np.bool_]
    ) -> None:
        if value > self._extremes[side]:
            self._extremes[side], self._at_extremes[side] = value, 0
        if value < max(self._extremes[side], _LEAST_CLIPPED) or not len(equal):
            return
        pairs = equal & (row[1:] == (-value if side else value))
        triples = pairs[1:] & pairs[:-1]
        n_triples = int(np.count_nonzero(triples))
        n_runs = n_triples - int(np.count_nonzero(triples[1:] & triples[:-1]))
        self._at_extremes[side] += n_triples + (_CLIPPED_RUN - 1) * n_runs

    def _find_dropouts(
        self, row: Floats, equal: NDArray[np.bool_], mean: float, low: float, high: float
    ) -> None:
        n = len(row)
        eights = equal[: len(equal) // 8 * 8].view(np.uint64) == _ALL_EQUAL
        goes_on = bool(equal[-8:].all())
        if self._open is None and not goes_on and not eights.any():
            return
        edges = np.diff(equal.view(np.int8), prepend=np.int8(0), append=np.int8(0))
        starts, ends = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1) + 1
        is_long = ends - starts >= self._least_run
        is_long |= (ends == n) & goes_on
        before, self._open = self._open, None
        if before is not None:
            end = int(ends[0]) if len(starts) and starts[0] == 0 and row[0] == before.value else 0
            is_long[:1] &= not end
            before.n += end
            if end == n:
                self._open = before
            else:
                self._judge(before, row[end : end + self._beside] - np.float32(mean))
        for start, end in zip(starts[is_long].tolist(), ends[is_long].tolist(), strict=True):
            value = float(row[start])
            if value != 0 and not low < value < high:
                continue  # clipped
            beside = row[max(0, start - self._beside) : start] - np.float32(mean)
            run = _Run(value, end - start, self._is_sound(beside))
            if end == n:
                self._open = run
            else:
                self._judge(run, row[end : end + self._beside] - np.float32(mean))

    def _judge(self, run: _Run, after: Floats) -> None:
        is_dropout = self._least_run <= run.n <= self._most_run and run.is_beside_sound
        if is_dropout and self._is_sound(after):
            self.n_dropouts += 1
            self.n_dropped += run.n

    def _is_sound(self, beside: Floats) -> bool:
        least = max(self._least_level, _BESIDE_SHARE * math.sqrt(self.variance))
        return len(beside) > 0 and float(np.abs(beside).mean()) >= least


def _db(amplitude: float) -> float:
    """The level of an amplitude, 1 being full scale, at least `FLOOR_DBFS`."""
    return max(FLOOR_DBFS, 20 * math.log10(amplitude)) if amplitude > 0 else FLOOR_DBFS
