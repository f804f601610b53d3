"""Waveform to log-mel patches, equal to the reference front ends.

Source: tensorflow/models, research/audioset/yamnet/features.py and params.py, and
research/audioset/vggish/mel_features.py and vggish_params.py; Kong et al., PANNs, 2020
(arXiv:1912.10211).

Frames of Google's models are 400 samples every 160, windowed by a periodic Hann at the *left*
of a 512-point FFT, not centred; those of PANNs are centred, and the waveform is mirrored at the
recording's two ends only. Frames are computed in blocks of ``BLOCK_FRAMES``, counted from the start
of the recording. A block fits into the processor's cache, and every block has the same frames
however the samples arrive, so the result is the same to the last bit.
"""

from __future__ import annotations

import numpy as np

from audioset_core.arrays import F32
from audioset_core.features.config import FrontendConfig
from audioset_core.features.mel import log_mel_frames

BLOCK_FRAMES = 250
"""Frames computed at a time: 2.5 s of sound, 0.5 MB of spectrum."""


def log_mel(samples: F32, config: FrontendConfig) -> F32:
    """Log-mel of a whole waveform that is already at the front end's rate.

    >>> from audioset_core.features.config import YAMNET
    >>> log_mel(np.zeros(16_000, np.float32), YAMNET).shape
    (144, 64)

    Shape: ``[n_samples]`` -> ``[n_frames, n_mels]``, float32.
    """
    stream = LogMelStream(config)
    return np.concatenate([stream.push(samples), stream.finish()])


def patches(frames: F32, config: FrontendConfig) -> F32:
    """Overlapping model inputs as a read-only view; no frame is copied.

    Shape: ``[n_frames, n_mels]`` -> ``[n_patches, patch_frames, n_mels]``.
    """
    if len(frames) < config.patch_frames:
        return np.empty((0, config.patch_frames, config.n_mels), np.float32)
    windows = np.lib.stride_tricks.sliding_window_view(frames, config.patch_frames, axis=0)
    return windows[:: config.patch_hop_frames].transpose(0, 2, 1)


class LogMelStream:
    """Log-mel frames of samples that arrive in pieces of any size.

    ``push`` returns the frames that became complete in whole blocks, ``finish`` the rest.
    """

    def __init__(self, config: FrontendConfig) -> None:
        self._config = config
        self._held: list[F32] = []
        self._n_held = 0
        self._n_mirrored = config.frame_samples // 2 if config.is_centred else 0
        self._must_mirror_start = config.is_centred
        self._before = np.empty(0, np.float32)
        self.n_samples = 0
        """Samples pushed so far."""

    def push(self, samples: F32) -> F32:
        """Take samples in. Shape: ``[n]`` -> ``[n_frames, n_mels]``, float32."""
        self.n_samples += len(samples)
        samples = self._emphasised(samples)
        self._held.append(samples)
        self._n_held += len(samples)
        config = self._config
        block_samples = (BLOCK_FRAMES - 1) * config.frame_hop_samples + config.frame_samples
        if self._n_held < block_samples:
            return np.empty((0, config.n_mels), np.float32)
        held = self._mirror_start(np.concatenate(self._held))
        n_blocks = 1 + (len(held) - block_samples) // (BLOCK_FRAMES * config.frame_hop_samples)
        done = [self._frames(held, block * BLOCK_FRAMES, BLOCK_FRAMES) for block in range(n_blocks)]
        self._keep(held[n_blocks * BLOCK_FRAMES * config.frame_hop_samples :])
        return np.concatenate(done)

    def finish(self) -> F32:
        """Pad as the reference does and return the last frames."""
        config = self._config
        padding = config.padded_samples(self.n_samples) - self.n_samples
        held = np.concatenate([*self._held, self._emphasised(np.zeros(padding, np.float32))])
        self._keep(held[:0])
        if config.is_centred:
            held = self._mirror_both(held)
        n_frames = max(0, 1 + (len(held) - config.frame_samples) // config.frame_hop_samples)
        blocks = [
            self._frames(held, start, min(BLOCK_FRAMES, n_frames - start))
            for start in range(0, n_frames, BLOCK_FRAMES)
        ]
        return np.concatenate([np.empty((0, config.n_mels), np.float32), *blocks])

    def _emphasised(self, samples: F32) -> F32:
        """Of each sample and the one that was pushed before."""
        share = np.float32(self._config.preemphasis)
        if not share:
            return samples
        samples = np.concatenate([self._before, samples])
        self._before = samples[-1:]
        return samples[1:] - share * samples[:-1]

    def _mirror_start(self, held: F32) -> F32:
        if not self._must_mirror_start:
            return held
        self._must_mirror_start = False
        return np.concatenate([held[self._n_mirrored : 0 : -1], held])

    def _mirror_both(self, held: F32) -> F32:
        """The last sample is not repeated, as in ``np.pad(mode="reflect")``.

        The samples left after whole blocks are always longer than the mirrored part.
        """
        if len(held) <= self._n_mirrored:  # too short to be mirrored, and for any patch
            return held[:0]
        return np.concatenate([self._mirror_start(held), held[-2 : -2 - self._n_mirrored : -1]])

    def _keep(self, samples: F32) -> None:
        self._held = [samples.copy()]
        self._n_held = len(samples)

    def _frames(self, held: F32, first: int, count: int) -> F32:
        config = self._config
        hop = config.frame_hop_samples
        size = (count - 1) * hop + config.frame_samples
        return log_mel_frames(held[first * hop : first * hop + size], config)
