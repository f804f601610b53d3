"""Recordings to model inputs, a bounded piece at a time.

A `PatchReader` takes mono blocks from any source; `features.shared_reader` feeds several of them
from one recording.
`LogMelReader` resamples and computes log-mel; `WaveformReader` leaves both to a GPU. A long
recording is read in several pieces. State is kept between them, so the patches are those of the
whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from audioset_core.arrays import F32
from audioset_core.audio.resample import resampled
from audioset_core.features.config import FrontendConfig
from audioset_core.features.log_mel import LogMelStream
from audioset_core.features.polyphase import has_polyphase, head, polyphase, resampled_length


@dataclass(frozen=True, slots=True)
class LogMelPiece:
    """Consecutive patches of one clip, as the frames under them.

    Shape:
        frames ``[n_frames, n_mels]``, float32, from the first frame of the first patch.
    """

    frames: F32
    n_patches: int
    n_padded_steps: int = 0
    """Steps of the last patch beyond the recording's end, of a network that scores steps."""


@dataclass(frozen=True, slots=True)
class WaveformPiece:
    """Consecutive patches of one clip, as the samples that they are computed from.

    Shape:
        samples ``[n]``, float32, mono at ``rate_hz``: the input from which the patches' samples are
        resampled, in whole blocks of `audioset_core.features.polyphase`.
        head ``[640 or fewer]``, float32: the recording's first samples at the front end's rate;
        empty in a later piece.
    """

    samples: F32
    rate_hz: int
    head: F32
    n_skipped: int
    """Samples at the front end's rate to skip before the first patch."""
    n_known: int
    """Samples at the front end's rate that are known so far; zeros follow the recording's last."""
    n_patches: int
    n_padded_steps: int = 0


Piece = LogMelPiece | WaveformPiece


class PatchReader(Protocol):
    """Patches of one stream of mono blocks, read in pieces.

    Raises (from `read`):
        AudioError: the stream turned out to be damaged, truncated, empty, ...
    """

    is_finished: bool

    def read(self, budget_s: float) -> Piece:
        """The next patches, until about ``budget_s`` more seconds are read or the clip ends.

        Every call reads at least one block, however small the budget.
        """


def open_reader(
    blocks: Iterator[F32], rate_hz: int, config: FrontendConfig, *, as_waveform: bool
) -> PatchReader:
    """A reader of what the network takes; see `audioset_core.inference.engines.takes_waveforms`."""
    reader = WaveformReader if as_waveform else LogMelReader
    return reader(blocks, rate_hz, config)


class LogMelReader:
    """A `PatchReader` that resamples and computes log-mel frames."""

    def __init__(self, blocks: Iterator[F32], rate_hz: int, config: FrontendConfig) -> None:
        self.is_finished = False
        self._config = config
        self._log_mel = LogMelStream(config)
        self._samples: Iterator[F32] = resampled(blocks, rate_hz, config.sample_rate_hz)
        self._frames = np.empty((0, config.n_mels), np.float32)
        self._n_patches = 0

    def read(self, budget_s: float) -> LogMelPiece:
        """As `PatchReader`."""
        config = self._config
        want = budget_s * config.sample_rate_hz / config.frame_hop_samples
        held = [self._frames]
        n_new = 0
        is_first = True
        while (is_first or n_new < want) and not self.is_finished:
            is_first = False
            block = next(self._samples, None)
            if block is None:
                self.is_finished = True
                held.append(self._log_mel.finish())
            else:
                held.append(self._log_mel.push(block))
            n_new += len(held[-1])
        frames = np.concatenate(held)
        n_patches = max(0, 1 + (len(frames) - config.patch_frames) // config.patch_hop_frames)
        used = (n_patches - 1) * config.patch_hop_frames + config.patch_frames if n_patches else 0
        self._frames = frames[n_patches * config.patch_hop_frames :].copy()
        self._n_patches += n_patches
        n_padded_steps = 0
        if self.is_finished:
            n_steps = config.n_steps(self._log_mel.n_samples)
            n_padded_steps = self._n_patches * config.steps_per_patch - n_steps
        return LogMelPiece(frames[:used], n_patches, n_padded_steps)


class WaveformReader:
    """A `PatchReader` that leaves resampling and log-mel to the GPU.

    For the front ends of Google's models. It resamples rates without `polyphase` itself.

    Raises:
        ValueError: another front end.
    """

    def __init__(self, blocks: Iterator[F32], rate_hz: int, config: FrontendConfig) -> None:
        if config.family != "tensorflow":
            raise ValueError("waveforms are for the front ends of Google's models")
        target_hz = config.sample_rate_hz
        if not has_polyphase(rate_hz, target_hz):
            blocks, rate_hz = resampled(blocks, rate_hz, target_hz), target_hz
        filters = polyphase(rate_hz, target_hz)
        self.is_finished = False
        self._blocks, self._rate_hz, self._config = blocks, rate_hz, config
        self._filters = filters
        # Silence before the recording, which the filter of the first samples covers.
        self._held = np.zeros(filters.lead, np.float32)
        self._held_from = -filters.lead
        self._n_patches = 0

    def read(self, budget_s: float) -> WaveformPiece:
        """As `PatchReader`."""
        held = [self._held]
        n_new = 0
        while not self.is_finished and (not n_new or n_new < budget_s * self._rate_hz):
            block = next(self._blocks, None)
            if block is None:
                self.is_finished = True
            else:
                held.append(block)
                n_new += len(block)
        self._held = np.concatenate(held)
        return self._piece()

    def _piece(self) -> WaveformPiece:
        """The patches that the held samples allow; samples no longer needed are dropped."""
        config, filters = self._config, self._filters
        n_known, n_whole = self._n_known()
        n_patches = n_whole - self._n_patches
        first = self._n_patches * config.patch_hop_samples
        n_skipped = first % filters.out_block
        n_wanted = (n_patches - 1) * config.patch_hop_samples + config.patch_samples
        n_blocks = -(-(n_skipped + n_wanted) // filters.out_block) if n_patches else 0
        piece = WaveformPiece(
            samples=self._samples_for(n_blocks),
            rate_hz=self._rate_hz,
            head=self._head() if n_patches and not self._n_patches else np.empty(0, np.float32),
            n_skipped=n_skipped,
            n_known=n_known - first,
            n_patches=n_patches,
        )
        self._n_patches = n_whole
        self._drop_before(n_whole * config.patch_hop_samples // filters.out_block)
        return piece

    def _n_known(self) -> tuple[int, int]:
        """Samples at the front end's rate that are known so far, and patches."""
        config = self._config
        n_samples = self._held_from + len(self._held)
        if self.is_finished:
            n_known = resampled_length(n_samples, self._rate_hz, config.sample_rate_hz)
            return n_known, config.n_patches(n_known)
        n_known = self._filters.n_ready(n_samples)
        beyond = n_known - config.patch_samples
        return n_known, max(self._n_patches, beyond // config.patch_hop_samples + 1)

    def _head(self) -> F32:
        beginning = self._held[self._filters.lead :]
        return head(beginning, self._rate_hz, self._config.sample_rate_hz)

    def _samples_for(self, n_blocks: int) -> F32:
        """The samples for the next blocks; silence follows the recording."""
        filters = self._filters
        size = (n_blocks - 1) * filters.in_block + filters.n_taps if n_blocks else 0
        found = self._held[:size]
        if len(found) == size:
            return found
        return np.concatenate([found, np.zeros(size - len(found), np.float32)])

    def _drop_before(self, block: int) -> None:
        """Keep only the samples that blocks from this one on need."""
        start = block * self._filters.in_block - self._filters.lead
        self._held = self._held[start - self._held_from :].copy()
        self._held_from = start
