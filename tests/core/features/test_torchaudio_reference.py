"""Front ends of the taggers against torchaudio, which others use to compute them.

torchaudio's wheels need the build of torch for CUDA (they link its libraries), though no GPU.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from audioset_core.features.config import FRAME_MN, FrontendConfig
from audioset_core.features.log_mel import log_mel
from audioset_core.features.mel import mel_matrix
from audioset_core.models.registry import BUNDLES
from tests.bounds import U32, U64, assert_possible, assert_rounding

try:
    import torchaudio
except (ImportError, OSError) as error:  # OSError: torch without CUDA lacks what the wheel links
    if os.environ.get("CI"):
        raise
    pytest.skip(f"torchaudio: {error}", allow_module_level=True)

F64 = NDArray[np.float64]

KALDI = ("mn10", "mn10_hop5", "mn10_mels40", "mn10_mels64", "mn10_mels256", "frame_mn10")
SOUNDS: dict[str, Callable[[int], F64]] = {
    "noise": lambda rate: 0.1 * np.random.default_rng(1).standard_normal(rate),
    "tone": lambda rate: 0.5 * np.sin(2 * np.pi * 440 / rate * np.arange(rate)),
    "high tone": lambda rate: 0.9 * np.sin(2 * np.pi * 6_500 / rate * np.arange(rate)),
    "impulses": lambda rate: (np.arange(rate) % 2_000 == 700) * 0.8,
    "faint": lambda rate: 1e-4 * np.random.default_rng(2).standard_normal(rate),
}


def frontend(name: str) -> FrontendConfig:
    config = FRAME_MN if name == "frame_mn10" else BUNDLES[name].frontend
    return replace(config, pads_tail=False)


def kaldi_matrix(config: FrontendConfig) -> F64:
    """Shape: ``[fft_samples // 2 + 1, n_mels]``; Kaldi leaves the last bin out."""
    banks, _ = torchaudio.compliance.kaldi.get_mel_banks(
        config.n_mels, config.fft_samples, float(config.sample_rate_hz),
        config.mel_min_hz, config.mel_max_hz, 100.0, -500.0, 1.0,
    )  # fmt: skip
    return torch.nn.functional.pad(banks, (0, 1)).T.double().numpy()


def largest_mel_error(config: FrontendConfig) -> float:
    """Of a weight that is computed in float32.

    Frequencies on the mel scale are rounded five times (a quotient, a sum, a logarithm of 2 u, a
    product), twice to a difference, and divided by the width of half a triangle.
    """
    lowest, highest = 1127 * np.log1p(np.array([config.mel_min_hz, config.mel_max_hz]) / 700)
    return 10 * U32 * highest / ((highest - lowest) / (config.n_mels + 1))


@pytest.mark.numeric
@pytest.mark.parametrize("name", KALDI)
def test_mel_banks_are_kaldis(name: str) -> None:
    config = frontend(name)
    ours, theirs = mel_matrix(config), kaldi_matrix(config)
    assert_possible(ours, theirs, largest_mel_error(config))
    assert not ours[-1].any()
    # 256 bands are narrower than the distance of two lines of the FFT.
    assert ((ours.max(axis=0) == 0).sum() > 0) == (name in ("mn10_mels256", "frame_mn10"))


@pytest.mark.numeric
@pytest.mark.parametrize("sound", SOUNDS)
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name in ("mn10", "frame_mn10") else pytest.mark.slow)
        for name in KALDI
    ],
)
def test_log_mel_of_kaldis_banks_is_torchaudios(name: str, sound: str) -> None:
    config = frontend(name)
    samples = SOUNDS[sound](config.sample_rate_hz).astype(np.float32)
    waveform = torch.from_numpy(samples).double()
    emphasised = torchaudio.functional.preemphasis(waveform, float(np.float32(config.preemphasis)))
    # torchaudio keeps the first sample as it is; the authors' convolution has no place for it.
    power, plain = (spectrogram(x, config) for x in (emphasised[1:], waveform[1:]))
    matrix = kaldi_matrix(config)
    energies = power @ matrix
    if name == "frame_mn10":
        beside = np.maximum(energies, config.log_offset)
    else:
        beside = energies + config.log_offset
    expected = (np.log(beside) + 4.5) / 5
    # Each product and difference of the pre-emphasis is rounded to float32, by the sound's size.
    noise = 2 * U32 * norms(plain, config)
    error = energy_error(power, matrix, noise, config)
    found = log_mel(samples, config)
    assert_rounding(found, expected, error / beside / 5 + 2 * U32 * (1 + np.abs(expected)))


@pytest.mark.numeric
@pytest.mark.parametrize("sound", SOUNDS)
def test_decibels_of_ced_are_torchaudios(sound: str) -> None:
    config = frontend("ced_tiny")
    samples = SOUNDS[sound](config.sample_rate_hz).astype(np.float32)
    waveform = torch.from_numpy(samples).double()
    mel = torchaudio.transforms.MelSpectrogram(
        config.sample_rate_hz, n_fft=config.fft_samples, win_length=config.frame_samples,
        hop_length=config.frame_hop_samples, f_min=config.mel_min_hz, f_max=config.mel_max_hz,
        n_mels=config.n_mels,
    ).double()  # fmt: skip
    decibels = torchaudio.transforms.AmplitudeToDB("power", top_db=None)(mel(waveform))
    power, matrix = spectrogram(waveform, config), mel.mel_scale.fb.numpy()
    expected, beside = decibels.T.numpy(), np.maximum(power @ matrix, config.log_offset)
    error = energy_error(power, matrix, np.zeros(len(power)), config)
    # torchaudio's window is float32: it moves each line by roundings of the whole frame.
    error = error + energy_error(power, matrix, U32 * norms(power, config), config)
    found = log_mel(samples, config)
    assert_rounding(
        found, expected, 10 / np.log(10) * error / beside + 2 * U32 * (1 + np.abs(expected))
    )


def spectrogram(samples: Tensor, config: FrontendConfig) -> F64:
    """Powers in float64. Shape: ``[n]`` -> ``[n_frames, fft_samples // 2 + 1]``."""
    window = torch.hann_window(
        config.frame_samples, periodic=config.family == "ced", dtype=torch.float64
    )
    powers: Any = torchaudio.functional.spectrogram(
        samples, pad=0, window=window, n_fft=config.fft_samples, win_length=config.frame_samples,
        hop_length=config.frame_hop_samples, power=2.0, normalized=False, center=True,
    )  # fmt: skip
    return powers.T.numpy()


def norms(power: F64, config: FrontendConfig) -> F64:
    """Of the windowed frames, by Parseval. Shape: ``[n_frames]``."""
    doubled = 2 * power.sum(axis=1) - power[:, 0] - power[:, -1]
    return np.sqrt(doubled / config.fft_samples)


def energy_error(power: F64, matrix: F64, noise: F64, config: FrontendConfig) -> F64:
    """Standard deviation of the roundings in a band's energy, see `tests.bounds.log_mel_sigma`.

    Besides it: what the two matrices differ by, and ``noise`` in every line of a frame.
    """
    u = U32 if config.precision == "float32" else U64
    line = u * np.sqrt(np.log2(config.fft_samples)) * norms(power, config) + noise
    line = line[:, np.newaxis]
    lines = (2 * np.sqrt(power) * line + line**2) @ matrix
    sums = (1.5 + np.sqrt((matrix > 0).sum(axis=0))) * u * (power @ matrix)
    return lines + sums + power @ np.abs(matrix - mel_matrix(config))
