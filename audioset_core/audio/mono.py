"""What every decoder gives: its figures, and its samples as finite mono blocks.

Channels are averaged. Where they cancel each other in their mean, as those of a stereo recording
with one side inverted do, the loudest one alone is taken, and a remark says so.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from audioset_core.arrays import F32
from audioset_core.audio.remarks import Remark, RemarkKind, Remarks
from audioset_core.errors import AudioError, Reason
from audioset_core.file_headers.field_notes import FieldNotes

MIN_RATE_HZ, MAX_RATE_HZ = 1_000, 384_000
MAX_CHANNELS = 32
BLOCK_SAMPLES = 1 << 16
"""Sample frames per block (1.5 s at 44.1 kHz); fewer with many channels."""

# Power of the mean, times the number of channels, over the power of a channel: 1 for sounds that
# have nothing in common, 0 for opposed ones. Below a tenth (10 dB) the channels cancel.
_CANCELS = 0.1
# Power (full scale is 1) from which that counts: below -80 dB a coder's rounding may be opposed.
_LEAST_POWER = 1e-8
_HALVES = np.full(2, 0.5, np.float32)


@dataclass(frozen=True, slots=True)
class StreamInfo:
    """What the header says. ``promised_samples`` is None where it makes no promise.

    A promise is exact by its format. ``expected_s`` is a guess at the length, for planning only.
    """

    format: str
    sample_rate_hz: int
    n_channels: int
    promised_samples: int | None
    expected_s: float | None = None
    notes: FieldNotes | None = None
    """What the recorder wrote beside the sound."""


class Decoder:
    """One open stream: its `info`, its samples as mono blocks, and remarks once they are read."""

    info: StreamInfo

    def blocks(self) -> Iterator[F32]:
        """Mono float32 blocks ``[n]`` at the recording's own rate, now and then an empty one.

        Raises:
            AudioError: damaged, empty, or with samples that are not finite.
        """
        n_samples, opposed = 0, Remarks()
        for block in self._raw_blocks():
            mono, is_opposed = mono_of(block)
            # The sum of squares is finite if each sample is, but for overflow; and found faster.
            if not (math.isfinite(mono @ mono) or (finite := np.isfinite(mono)).all()):
                at_s = (n_samples + int(finite.argmin())) / self.info.sample_rate_hz
                raise AudioError(Reason.NOT_FINITE, f"NaN or infinity at {at_s:.2f} s")
            if is_opposed:
                rate_hz = self.info.sample_rate_hz
                opposed.add(
                    RemarkKind.OPPOSED,
                    "the channels cancel each other; the loudest one alone is labelled",
                    n_samples / rate_hz,
                    (n_samples + len(mono)) / rate_hz,
                )
            n_samples += len(mono)
            yield mono
        self._end(n_samples, opposed)

    def remarks(self) -> tuple[Remark, ...]:
        """What a person should know of the recording; whole once all blocks are read."""
        return ()

    def skip(self, n_samples: int) -> int:  # noqa: ARG002 - a decoder that can will need it
        """Go on to about that sample before the first block is read; returns where that is.

        0 where the format cannot; whoever skips stops before the end.
        """
        return 0

    def close(self) -> None:
        """Release the decoder (not the file)."""

    def _raw_blocks(self) -> Iterator[F32]:
        """Blocks ``[n, n_channels]``, each good until the next is asked for."""
        raise NotImplementedError

    def _end(self, n_samples: int, opposed: Remarks) -> None:
        """All blocks are read; `opposed` tells where channels cancelled."""
        del opposed
        if n_samples == 0:
            raise AudioError(Reason.EMPTY, "a header, but no samples")


def frames_per_block(n_channels: int) -> int:
    """Sample frames of one block: fewer with many channels. A spoilt header may state none."""
    return max(1024, BLOCK_SAMPLES // max(1, n_channels))


def mix_to_mono(block: F32) -> F32:
    """Average of the channels. Shape: ``[n, n_channels]`` -> ``[n]``.

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
    """The mean of the channels or, if they cancel in it, the loudest channel; whether they do.

    Shape: ``[n, n_channels]`` -> ``[n]``
    """
    mono = mix_to_mono(block)
    n_channels = block.shape[1]
    if n_channels == 1 or not len(block):
        return mono, False
    flat = block.ravel(order="K")
    whole, left = float(flat @ flat), float(mono @ mono)
    # Silence, infinity and what is no number are not opposed.
    is_loud = _LEAST_POWER * flat.size < whole < math.inf
    if not is_loud or left * n_channels**2 >= _CANCELS * whole:
        return mono, False
    loudest = int(np.argmax([float(channel @ channel) for channel in block.T.astype(np.float64)]))
    return block[:, loudest].copy(), True


def after(n_samples: int, blocks: Iterator[F32]) -> Iterator[F32]:
    """What follows the first samples; empty blocks for these, so that nobody waits in vain."""
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
