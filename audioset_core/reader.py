"""Recordings to model inputs, a bounded piece at a time.

`PatchReader` chains resample and log-mel for mono blocks from anywhere, `ClipReader` puts the
decoder of a recording before it. A long recording is read in several pieces; decoder, resampler
and frames carry over, so the pieces' patches are those of the whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from audioset_core.audio import Recording, resampled
from audioset_core.decode import F32
from audioset_core.frontend import FrontendConfig, LogMelStream


@dataclass(frozen=True, slots=True)
class LogMelPiece:
    """Consecutive patches of one clip, as the frames under them.

    Shape:
        frames ``[n_frames, n_mels]``, float32, from the first frame of the first patch.
    """

    frames: F32
    n_patches: int


class PatchReader:
    """Log-mel patches of one stream of mono blocks, read in pieces.

    Raises (from `read`):
        AudioError: the stream turned out to be damaged, truncated, empty, ...
    """

    def __init__(self, blocks: Iterator[F32], rate_hz: int, config: FrontendConfig) -> None:
        self.is_finished = False
        self._config = config
        self._log_mel = LogMelStream(config)
        self._samples: Iterator[F32] = resampled(blocks, rate_hz, config.sample_rate_hz)
        self._frames = np.empty((0, config.n_mels), np.float32)

    def read(self, budget_s: float) -> LogMelPiece:
        """The next patches, until about ``budget_s`` more seconds are read or the clip ends.

        Every call reads on, however small the budget.
        """
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
        return LogMelPiece(frames[:used], n_patches)


class ClipReader(PatchReader):
    """Log-mel patches of one recording, read in pieces."""

    def __init__(self, recording: Recording, config: FrontendConfig) -> None:
        super().__init__(recording.blocks(), recording.info.sample_rate_hz, config)
        self.recording = recording

    def close(self) -> None:
        """Close the recording."""
        self.recording.close()
