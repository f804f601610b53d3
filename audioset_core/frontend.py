"""Waveform to log-mel patches, equal to Google's reference front ends.

Source: tensorflow/models, research/audioset/yamnet/features.py and params.py, and
research/audioset/vggish/mel_features.py and vggish_params.py.

Frames are 400 samples every 160, windowed by a periodic Hann at the *left* of a 512-point
FFT, not centred; magnitudes (not power) go through 64 HTK mel triangles that are linear in
mel, not in Hz. The work is done in blocks of ``BLOCK_FRAMES`` frames counted from the start
of the recording: a block fits the processor's cache, and because every block has the same
frames however the samples arrived, the result does not depend on how they were cut, to the
last bit.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import scipy.fft
from numpy.typing import NDArray

F32 = NDArray[np.float32]

BLOCK_FRAMES = 1000
"""Frames computed at a time: 10 s of sound, 2 MB of spectrum."""

# HTK's mel scale. Source: features.py, _MEL_HIGH_FREQUENCY_Q and _MEL_BREAK_FREQUENCY_HERTZ.
_MEL_HIGH_Q = 1127.0
_MEL_BREAK_HZ = 700.0


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontendConfig:
    """What turns samples into patches; the defaults are common to YAMNet and VGGish.

    Source: yamnet/params.py, vggish/vggish_params.py.
    """

    log_offset: float
    patch_hop_frames: int
    pads_tail: bool
    """True: zeros fill the last patch, no audio is dropped. False: an unfilled tail is."""
    sample_rate_hz: int = 16_000
    frame_samples: int = 400
    frame_hop_samples: int = 160
    fft_samples: int = 512
    n_mels: int = 64
    mel_min_hz: float = 125.0
    mel_max_hz: float = 7500.0
    patch_frames: int = 96

    @property
    def patch_samples(self) -> int:
        """Samples under one patch: 15,600 (the last frame is a whole window)."""
        return (self.patch_frames - 1) * self.frame_hop_samples + self.frame_samples

    @property
    def patch_hop_samples(self) -> int:
        """Samples from the start of one patch to the next."""
        return self.patch_hop_frames * self.frame_hop_samples

    @property
    def patch_hop_s(self) -> float:
        """Seconds from the start of one patch to the next."""
        return self.patch_hop_samples / self.sample_rate_hz

    @property
    def patch_window_s(self) -> float:
        """Seconds named by one patch: 0.96 (the field's convention: 96 hops of 10 ms)."""
        return self.patch_frames * self.frame_hop_samples / self.sample_rate_hz

    def n_patches(self, n_samples: int) -> int:
        """Patches of a recording of ``n_samples``, in integers.

        Source: features.pad_waveform for padding front ends (whose float32 ``ceil`` fails
        above 2**24 samples), mel_features.frame for the others.
        """
        beyond = n_samples - self.patch_samples
        if self.pads_tail:
            return 1 + max(0, -(-beyond // self.patch_hop_samples))
        return 1 + beyond // self.patch_hop_samples if beyond >= 0 else 0

    def padded_samples(self, n_samples: int) -> int:
        """Samples once the tail is filled; ``n_samples`` itself where nothing pads."""
        if not self.pads_tail:
            return n_samples
        return self.patch_samples + self.patch_hop_samples * (self.n_patches(n_samples) - 1)


YAMNET = FrontendConfig(log_offset=0.001, patch_hop_frames=48, pads_tail=True)
VGGISH = FrontendConfig(log_offset=0.01, patch_hop_frames=96, pads_tail=False)


@cache
def mel_matrix(config: FrontendConfig) -> F32:
    """Weights from FFT bins to mel bands.

    Shape: ``[fft_samples // 2 + 1, n_mels]``, float32; the DC row is zero.
    Source: features.py, tf.signal.linear_to_mel_weight_matrix.
    """
    bins_hz = np.linspace(0.0, config.sample_rate_hz / 2, config.fft_samples // 2 + 1)
    bins_mel = _hz_to_mel(bins_hz)[:, np.newaxis]
    edges = np.linspace(
        _hz_to_mel(np.float64(config.mel_min_hz)),
        _hz_to_mel(np.float64(config.mel_max_hz)),
        config.n_mels + 2,
    )
    lower, centre, upper = edges[:-2], edges[1:-1], edges[2:]
    rising = (bins_mel - lower) / (centre - lower)
    falling = (upper - bins_mel) / (upper - centre)
    weights = np.maximum(0.0, np.minimum(rising, falling))
    weights[0] = 0.0
    matrix = weights.astype(np.float32)
    matrix.flags.writeable = False
    return matrix


@cache
def hann_window(config: FrontendConfig) -> F32:
    """Periodic Hann window. Shape: ``[frame_samples]``, float32.

    In float32 throughout, as TensorFlow computes it: the rounding sets the noise floor under
    pure tones, and rounding a float64 window instead moves their scores by 2e-4.
    Source: tf.signal.hann_window.
    """
    size = np.float32(config.frame_samples)
    phase = np.float32(2.0 * np.pi) * np.arange(config.frame_samples, dtype=np.float32) / size
    window: F32 = np.float32(0.5) - np.float32(0.5) * np.cos(phase)
    window.flags.writeable = False
    return window


def log_mel(samples: F32, config: FrontendConfig) -> F32:
    """Log-mel of a whole waveform that is already at the front end's rate.

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
        self.n_samples = 0
        """Samples pushed so far."""

    def push(self, samples: F32) -> F32:
        """Take samples in. Shape: ``[n]`` -> ``[n_frames, n_mels]``, float32."""
        self.n_samples += len(samples)
        self._held.append(samples)
        self._n_held += len(samples)
        config = self._config
        block_samples = (BLOCK_FRAMES - 1) * config.frame_hop_samples + config.frame_samples
        if self._n_held < block_samples:
            return np.empty((0, config.n_mels), np.float32)
        held = np.concatenate(self._held)
        n_blocks = 1 + (len(held) - block_samples) // (BLOCK_FRAMES * config.frame_hop_samples)
        done = [self._frames(held, block * BLOCK_FRAMES, BLOCK_FRAMES) for block in range(n_blocks)]
        self._keep(held[n_blocks * BLOCK_FRAMES * config.frame_hop_samples :])
        return np.concatenate(done)

    def finish(self) -> F32:
        """Pad as the reference does and return the last frames."""
        config = self._config
        padding = config.padded_samples(self.n_samples) - self.n_samples
        held = np.concatenate([*self._held, np.zeros(padding, np.float32)])
        self._keep(held[:0])
        n_frames = max(0, 1 + (len(held) - config.frame_samples) // config.frame_hop_samples)
        blocks = [
            self._frames(held, start, min(BLOCK_FRAMES, n_frames - start))
            for start in range(0, n_frames, BLOCK_FRAMES)
        ]
        return np.concatenate([np.empty((0, config.n_mels), np.float32), *blocks])

    def _keep(self, samples: F32) -> None:
        self._held = [samples.copy()]
        self._n_held = len(samples)

    def _frames(self, held: F32, first: int, count: int) -> F32:
        config = self._config
        hop = config.frame_hop_samples
        piece = held[first * hop : first * hop + (count - 1) * hop + config.frame_samples]
        frames = np.lib.stride_tricks.sliding_window_view(piece, config.frame_samples)[::hop]
        # rfft pads at the right, which is what puts the window at the left of the FFT. Of the
        # float32 FFTs tried, pocketfft's is nearest to TensorFlow's and the fastest.
        spectrum = scipy.fft.rfft(frames * hann_window(config), config.fft_samples)
        mel = np.abs(spectrum) @ mel_matrix(config)
        mel += np.float32(config.log_offset)
        result: F32 = np.log(mel, out=mel)
        return result


def _hz_to_mel(frequency_hz: NDArray[np.float64] | np.float64) -> NDArray[np.float64]:
    return np.asarray(_MEL_HIGH_Q * np.log1p(frequency_hz / _MEL_BREAK_HZ))
