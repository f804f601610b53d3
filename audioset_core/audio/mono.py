"""What every decoder gives: the figures of the stream, and its samples as finite mono blocks.

Channels are averaged. Where they cancel each other in the mean, as in a stereo recording with one
side inverted, only the loudest channel is taken, with a remark.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audioset_core.arrays import F32, Floats, Scalar
from audioset_core.audio.health import HealthMeter
from audioset_core.audio.remarks import Remark, RemarkKind, Remarks
from audioset_core.errors import AudioError, Reason
from audioset_core.file_headers.field_notes import FieldNotes
from audioset_core.records import Health

MIN_RATE_HZ, MAX_RATE_HZ = 1_000, 384_000
MAX_CHANNELS = 32
BLOCK_SAMPLES = 1 << 16
"""Sample frames per block (1.5 s at 44.1 kHz); fewer with many channels."""

# Power of the mean, times the number of channels, over the power of a channel: 1 for channels that
# have nothing in common, 0 for opposite ones. Below a tenth (10 dB) the channels cancel.
_CANCELS = 0.1
# Least power (full scale is 1) for that test: below -80 dB a coder's rounding may be opposite.
_LEAST_POWER = 1e-8
_HALVES = np.full(2, 0.5, np.float32)


@dataclass(frozen=True, slots=True)
class StreamInfo:
    """The figures of a stream, by its header.

    ``promised_samples`` is the length where the format states it exactly, else None.
    ``expected_s`` is an estimate of the length, for planning only.
    """

    format: str
    sample_rate_hz: int
    n_channels: int
    promised_samples: int | None
    expected_s: float | None = None
    notes: FieldNotes | None = None
    """What the file says beside its sound, and what follows from that."""
    sample_type: str = "lossy"
    """int8, int16, int24, int32, float32 or float64, where exactly such samples are stored."""


class Decoder:
    """One open stream: its `info`, its samples as mono blocks, and remarks once they are read."""

    info: StreamInfo
    health: Health | None = None
    """The state of the recording, if that is measured; known once all mono blocks are read."""
    _meter: HealthMeter | None = None

    def blocks(self) -> Iterator[F32]:
        """Mono float32 blocks ``[n]`` at the recording's own rate; some may be empty.

        Raises:
            AudioError: damaged, empty, or with samples that are not finite.
        """
        n_samples, opposed, meter = 0, Remarks(), self._meter
        for block in self._raw_blocks():
            mono, is_opposed = mono_of(np.asarray(block, np.float32))
            # All finite samples have a finite sum of squares, unless it overflows; it is faster.
            if not (math.isfinite(mono @ mono) or (finite := np.isfinite(mono)).all()):
                at_s = (n_samples + int(finite.argmin())) / self.info.sample_rate_hz
                raise AudioError(Reason.NOT_FINITE, f"NaN or infinity at {at_s:.2f} s")
            if meter is not None and not is_silence(block):
                meter.add(np.asarray(block, np.float32))
            if is_opposed:
                rate_hz = self.info.sample_rate_hz
                opposed.add(
                    RemarkKind.OPPOSED,
                    "the channels cancel each other; only the loudest one is labelled",
                    n_samples / rate_hz,
                    (n_samples + len(mono)) / rate_hz,
                )
            n_samples += len(mono)
            yield mono
        if meter is not None:
            self.health = meter.result()
        self._end(n_samples, opposed)

    def all_channels(self) -> Iterator[Floats]:
        """Blocks ``[n, n_channels]`` as they are stored, not mixed; some may be empty.

        Raises:
            AudioError: damaged, or the number of channels changes.
        """
        for block in self._raw_blocks():
            if block.shape[1] != self.info.n_channels:
                detail = f"{self.info.n_channels} channels, then {block.shape[1]}"
                raise AudioError(Reason.UNSUPPORTED, detail)
            yield block

    def remarks(self) -> tuple[Remark, ...]:
        """What a person should know about the recording; complete once all blocks are read."""
        return ()

    def skip(self, n_samples: int) -> int:  # noqa: ARG002 - a decoder that can will need it
        """Go to about that sample before the first block is read; returns the sample reached.

        That is 0 where the format cannot skip. A caller that skips does not read to the end.
        """
        return 0

    def close(self) -> None:
        """Release the decoder (not the file)."""

    def _raw_blocks(self) -> Iterator[Floats]:
        """Blocks ``[n, n_channels]``, each valid until the next is asked for."""
        raise NotImplementedError

    def _end(self, n_samples: int, opposed: Remarks) -> None:
        """Called when all blocks are read; `opposed` has the parts where channels cancelled."""
        del opposed
        if n_samples == 0:
            raise AudioError(Reason.EMPTY, "a header, but no samples")


def silence(n_samples: int, n_channels: int, kind: type[np.floating[Any]]) -> Floats:
    """Silence in place of what was not recorded. Shape: ``[n_samples, n_channels]``, read-only."""
    return np.broadcast_to(kind(0), (n_samples, n_channels))


def is_silence(block: Floats) -> bool:
    """Whether a block was made by `silence`, rather than decoded."""
    return block.strides == (0, 0)


def frames_per_block(n_channels: int) -> int:
    """Sample frames of one block, fewer with many channels; damaged headers may state 0."""
    return max(1024, BLOCK_SAMPLES // max(1, n_channels))


def mix_to_mono(block: F32) -> F32:
    """Average of the channels. Shape: ``[n, n_channels]`` -> ``[n]``.

    >>> mix_to_mono(np.float32([[1, 0], [0.5, 0.5]])).tolist()
    [0.5, 0.5]

    Written as sums: ``mean(axis=1)`` is 16 times slower on two interleaved channels. Of two, a
    product with (1/2, 1/2) is a quarter faster still, and the same: halves are exact.
    """
    n_channels = block.shape[1]
    if n_channels == 1:
        return block[:, 0].copy()
    if n_channels == 2:
        return block @ _HALVES
    with np.errstate(over="ignore", invalid="ignore"):
        total = block[:, 0] + block[:, 1]
        for channel in range(2, n_channels):
            total += block[:, channel]
        total *= np.float32(1.0 / n_channels)
    return total


def mono_of(block: F32) -> tuple[F32, bool]:
    """The mean of the channels and False; or, if the channels cancel, the loudest one and True.

    Shape: ``[n, n_channels]`` -> ``[n]``
    """
    mono = mix_to_mono(block)
    n_channels = block.shape[1]
    if n_channels == 1 or not len(block):
        return mono, False
    flat = block.ravel(order="K")
    whole, left = float(flat @ flat), float(mono @ mono)
    # Silence, infinity and NaN do not count as cancelling.
    is_loud = _LEAST_POWER * flat.size < whole < math.inf
    if not is_loud or left * n_channels**2 >= _CANCELS * whole:
        return mono, False
    loudest = int(np.argmax([float(channel @ channel) for channel in block.T.astype(np.float64)]))
    return block[:, loudest].copy(), True


def after(n_samples: int, blocks: Iterator[NDArray[Scalar]]) -> Iterator[NDArray[Scalar]]:
    """The samples after the first `n_samples`; empty blocks in place of these, as signs of life."""
    n_seen = 0
    for block in blocks:
        yield block[max(0, n_samples - n_seen) :]
        n_seen += len(block)


def check_range(info: StreamInfo) -> None:
    """Refuse figures that no model is given.

    Raises:
        AudioError: an unsupported sample rate or number of channels.
    """
    if not MIN_RATE_HZ <= info.sample_rate_hz <= MAX_RATE_HZ:
        allowed = f"{MIN_RATE_HZ // 1000} to {MAX_RATE_HZ // 1000} kHz"
        detail = f"{info.sample_rate_hz} Hz; supported sample rates: {allowed}"
        raise AudioError(Reason.OUT_OF_RANGE, detail)
    if not 1 <= info.n_channels <= MAX_CHANNELS:
        detail = f"{info.n_channels} channels; supported: 1 to {MAX_CHANNELS}"
        raise AudioError(Reason.OUT_OF_RANGE, detail)
