"""PANNs Cnn14 at 16 kHz: a plain CNN over log-mel frames, 527 AudioSet classes.

Source: Kong et al., PANNs: Large-Scale Pretrained Audio Neural Networks for Audio Pattern
Recognition, 2020 (arXiv:1912.10211), table I; https://github.com/qiuqiangkong/audioset_tagging_cnn.

Published weights: ``Cnn14_16k_mAP=0.438.pth`` of https://zenodo.org/record/3987831, whose state
dict also holds the front end as arrays.
"""

from __future__ import annotations

import numpy as np
from torch import Tensor, nn
from torch.nn import functional

from audioset_core.arrays import F64
from audioset_core.checkpoints.layouts import Layout, own_names
from audioset_core.features.mel import hann_window, mel_matrix
from audioset_core.models.registry import PANNS

FRONTEND = PANNS.frontend
N_CLASSES = 527
EMBEDDING_DIM = 2048
# Table I: two 3x3 convolutions each, batch norm and ReLU after both; a 2x2 average pool between
# the blocks, global pooling after the last.
BLOCK_FILTERS = (64, 128, 256, 512, 1024, 2048)


class ConvBlock(nn.Module):
    """Two convolutions, each with batch norm and ReLU."""

    def __init__(self, inputs: int, filters: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, filters, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(filters, filters, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(filters)
        self.bn2 = nn.BatchNorm2d(filters)

    def forward(self, x: Tensor) -> Tensor:
        """Shape: ``[B, C, T, F]`` -> ``[B, filters, T, F]``."""
        x = functional.relu(self.bn1(self.conv1(x)), inplace=True)
        return functional.relu(self.bn2(self.conv2(x)), inplace=True)


class Cnn14(nn.Module):
    """The network: patches in, logits and embeddings out. Any number of frames from 32 on."""

    def __init__(self) -> None:
        super().__init__()
        self.bn0 = nn.BatchNorm2d(FRONTEND.n_mels)
        channels = zip((1, *BLOCK_FILTERS), BLOCK_FILTERS, strict=False)
        for index, (inputs, filters) in enumerate(channels, 1):
            setattr(self, f"conv_block{index}", ConvBlock(inputs, filters))
        self.fc1 = nn.Linear(BLOCK_FILTERS[-1], EMBEDDING_DIM)
        self.fc_audioset = nn.Linear(EMBEDDING_DIM, N_CLASSES)

    def forward(self, patches: Tensor) -> tuple[Tensor, Tensor]:
        """Score patches.

        Shape:
            patches ``[B, 201, 64]`` float32 -> logits ``[B, 527]``, embeddings ``[B, 2048]``.
        """
        x = self.bn0(patches.transpose(1, 2).unsqueeze(3)).permute(0, 3, 2, 1)
        for index in range(1, len(BLOCK_FILTERS) + 1):
            if index > 1:
                x = functional.avg_pool2d(x, 2)
            x = self.get_submodule(f"conv_block{index}")(x)
        over_time = x.mean(dim=3)
        pooled = over_time.amax(dim=2) + over_time.mean(dim=2)
        embeddings = functional.relu(self.fc1(pooled))
        return self.fc_audioset(embeddings), embeddings


def layouts() -> tuple[Layout, ...]:
    """The published form of the weights, which has the same names and axes as ours."""
    real, imaginary = _transform()
    constants = {
        "spectrogram_extractor.stft.conv_real.weight": real,
        "spectrogram_extractor.stft.conv_imag.weight": imaginary,
        "logmel_extractor.melW": mel_matrix(FRONTEND),
    }
    return (Layout(kind="torch", targets=own_names(Cnn14), constants=constants),)


def _transform() -> tuple[F64, F64]:
    """The windowed Fourier transform as two convolutions. Shape: each ``[257, 1, 512]``."""
    size = FRONTEND.fft_samples
    turns = np.outer(np.arange(size // 2 + 1), np.arange(size)) % size
    angle = 2.0 * np.pi / size * turns
    window = hann_window(FRONTEND)
    return (np.cos(angle) * window)[:, np.newaxis], (-np.sin(angle) * window)[:, np.newaxis]
