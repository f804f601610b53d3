"""The settings that turn samples into patches; importing them loads nothing heavy.

A model's own numbers are in its entry of `audioset_core.models.registry`; those that several
models share are here.

Source: tensorflow/models, research/audioset/yamnet/params.py and vggish/vggish_params.py;
EfficientAT, PretrainedSED and CED as their modules name them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Family = Literal["tensorflow", "librosa", "efficientat", "frame_mn", "ced"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontendConfig:
    """How samples become patches; the defaults are common to YAMNet and VGGish."""

    log_offset: float
    """Added before the logarithm, or the least power before it; the family says which."""
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
    family: Family = "tensorflow"
    """Mel scale, spectrum and logarithm; see `audioset_core.features.mel`."""
    precision: Literal["float32", "float64"] = "float32"
    """The precision of the reference. Frames are float32 in any case."""
    is_centred: bool = False
    """Frame ``i`` is centred on sample ``i * frame_hop_samples``, the ends mirrored."""
    preemphasis: float = 0.0
    """The share of each sample that is taken off the next one, which leaves one sample fewer; 0:
    no pre-emphasis."""
    steps_per_patch: int = 1
    """Scores that the network gives for one patch. More than one: each is of an equal part, a step,
    and patches do not overlap."""
    steps_per_row: int = 1
    """Consecutive steps that are pooled into one row of the score files."""

    @property
    def patch_samples(self) -> int:
        """Samples under one patch: 15,600 (the last frame is a whole window)."""
        if self.is_centred:
            return self.patch_span_frames * self.frame_hop_samples
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
    def patch_span_frames(self) -> int:
        """Hops of a frame in one patch; also the longest hop that skips no audio."""
        # N samples have 1 + N // hop centred frames, and one fewer after pre-emphasis takes one.
        has_one_more = self.is_centred and not self.preemphasis
        return self.patch_frames - has_one_more

    @property
    def patch_window_s(self) -> float:
        """Seconds that one patch stands for: 0.96 (by convention 96 hops of 10 ms)."""
        return self.patch_span_frames * self.frame_hop_samples / self.sample_rate_hz

    @property
    def step_window_s(self) -> float:
        """Seconds that one score of the network stands for."""
        return self.patch_window_s / self.steps_per_patch

    @property
    def step_hop_s(self) -> float:
        """Seconds from the start of one score of the network to the next."""
        return self.patch_hop_s / self.steps_per_patch

    @property
    def row_hop_s(self) -> float:
        """Seconds from the start of one row of the score files to the next."""
        return self.step_hop_s * self.steps_per_row

    def n_steps(self, n_samples: int) -> int:
        """Scores of a recording of ``n_samples``: without steps that only padding is under.

        >>> FRAME_MN.n_patches(25 * 16_000), FRAME_MN.n_steps(25 * 16_000)
        (3, 625)
        """
        if self.steps_per_patch == 1:
            return self.n_patches(n_samples)
        return -(-n_samples * self.steps_per_patch // self.patch_hop_samples)

    def n_rows(self, n_samples: int) -> int:
        """Rows in the score file of a recording of ``n_samples``.

        >>> FRAME_MN.n_rows(25 * 16_000)
        125
        """
        return -(-self.n_steps(n_samples) // self.steps_per_row)

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
# Trained on clips of 10 s, which zeros fill; a sample is lost to pre-emphasis, so 10 s have 1,000
# frames. The highest band ends below half the rate. Windows overlap by 2.5 s, so that the last
# window of a recording has at least that much of it.
EFFICIENTAT = FrontendConfig(
    log_offset=1e-5,
    patch_hop_frames=750,
    pads_tail=True,
    sample_rate_hz=32_000,
    frame_samples=800,
    frame_hop_samples=320,
    fft_samples=1024,
    n_mels=128,
    mel_min_hz=0.0,
    mel_max_hz=15_000.0,
    patch_frames=1000,
    family="efficientat",
    is_centred=True,
    preemphasis=0.97,
)
FRAME_MN = FrontendConfig(
    log_offset=1e-7,
    patch_hop_frames=1000,
    pads_tail=True,
    n_mels=128,
    mel_min_hz=0.0,
    mel_max_hz=7000.0,
    patch_frames=1000,
    family="frame_mn",
    precision="float64",
    is_centred=True,
    preemphasis=0.97,
    steps_per_patch=250,
    # 25 rows a second of 447 classes would be 80 MB an hour, a third of a FLAC file. At five rows
    # they are 16 MB, and a fifth of a second is what evaluations allow an onset to be off.
    steps_per_row=5,
)
CED = FrontendConfig(
    log_offset=1e-10,
    patch_hop_frames=750,
    pads_tail=True,
    frame_samples=512,
    mel_min_hz=0.0,
    mel_max_hz=8000.0,
    patch_frames=1001,
    family="ced",
    precision="float64",
    is_centred=True,
)
