"""The settings that turn samples into patches; importing them loads nothing heavy.

A model's own numbers are in its entry of `audioset_core.models.registry`; those of Google's models,
which others share, are here.

Source: tensorflow/models, research/audioset/yamnet/params.py and vggish/vggish_params.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontendConfig:
    """How samples become patches; the defaults are common to YAMNet and VGGish."""

    log_offset: float
    """Added before the logarithm; in librosa's family, the least power before it."""
    patch_hop_frames: int
    pads_tail: bool
    """True: zeros fill the last patch, no audio is dropped. False: an unfilled tail is dropped."""
    sample_rate_hz: int = 16_000
    frame_samples: int = 400
    frame_hop_samples: int = 160
    fft_samples: int = 512
    n_mels: int = 64
    mel_min_hz: float = 125.0
    mel_max_hz: float = 7500.0
    patch_frames: int = 96
    family: Literal["tensorflow", "librosa"] = "tensorflow"
    """Mel scale, spectrum and logarithm; see `audioset_core.features.mel`."""
    precision: Literal["float32", "float64"] = "float32"
    """The precision of the reference. Frames are float32 in any case."""
    is_centred: bool = False
    """Frame ``i`` is centred on sample ``i * frame_hop_samples``, the ends mirrored."""

    @property
    def patch_samples(self) -> int:
        """Samples under one patch: 15,600 (the last frame is a whole window)."""
        window = 0 if self.is_centred else self.frame_samples
        return (self.patch_frames - 1) * self.frame_hop_samples + window

    @property
    def patch_hop_samples(self) -> int:
        """Samples from the start of one patch to the next."""
        return self.patch_hop_frames * self.frame_hop_samples

    @property
    def patch_hop_s(self) -> float:
        """Seconds from the start of one patch to the next."""
        return self.patch_hop_samples / self.sample_rate_hz

    @property
    def patch_span_frames(self) -> int:
        """Hops of a frame in one patch; also the longest hop that skips no audio."""
        return self.patch_frames - 1 if self.is_centred else self.patch_frames

    @property
    def patch_window_s(self) -> float:
        """Seconds that one patch stands for: 0.96 (by convention 96 hops of 10 ms)."""
        return self.patch_span_frames * self.frame_hop_samples / self.sample_rate_hz

    def n_patches(self, n_samples: int) -> int:
        """Patches of a recording of ``n_samples``, in integers.

        >>> YAMNET.n_patches(10 * 16_000), VGGISH.n_patches(10 * 16_000)
        (20, 10)

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
# VGGish's reference is numpy in float64, YAMNet's is TensorFlow in float32.
VGGISH = FrontendConfig(log_offset=0.01, patch_hop_frames=96, pads_tail=False, precision="float64")
