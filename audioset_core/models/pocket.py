"""Pocket: a small residual network over YAMNet's log-mel patches, trained here (see `training/`).

Plain 3x3 convolutions, since they train and run fast on a CPU: a stem that takes every fourth
frame and band, four stages of residual blocks, a mean over what is left, one linear layer.

Source: He et al., Deep residual learning, 2016 (arXiv:1512.03385), blocks of two convolutions.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from audioset_core.checkpoints.layouts import Layout, own_names

N_CLASSES = 521
EMBEDDING_DIM = 320
# (channels, residual blocks) of each stage; every stage but the first halves frames and bands.
STAGES = ((24, 1), (32, 1), (64, 2), (152, 2))
_STEM_KERNEL, _STEM_STRIDE = 7, 4
# Log-mel of silence becomes 0, so that the zero padding of convolutions is silence.
_SILENCE = math.log(0.001)
_SCALE = 0.25


class ConvNorm(nn.Module):
    """Convolution and batch norm."""

    def __init__(self, inputs: int, filters: int, kernel: int, *, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, filters, kernel, stride, kernel // 2, bias=False)
        self.bn = nn.BatchNorm2d(filters)

    def forward(self, x: Tensor) -> Tensor:
        """Shape: ``[B, C, H, W]`` -> ``[B, filters, ceil(H / stride), ceil(W / stride)]``."""
        out: Tensor = self.bn(self.conv(x))
        return out


class Residual(nn.Module):
    """Two convolutions of 3x3 beside a shortcut, which is a 1x1 where the shape changes."""

    def __init__(self, inputs: int, filters: int, *, stride: int) -> None:
        super().__init__()
        self.first = ConvNorm(inputs, filters, 3, stride=stride)
        self.second = ConvNorm(filters, filters, 3)
        is_same = stride == 1 and inputs == filters
        self.shortcut = nn.Identity() if is_same else ConvNorm(inputs, filters, 1, stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        """Shape: ``[B, C, H, W]`` -> ``[B, filters, H', W']``."""
        out = self.second(torch.relu(self.first(x)))
        return torch.relu(out + self.shortcut(x))


class Pocket(nn.Module):
    """The network: patches in, logits and embeddings out."""

    def __init__(self) -> None:
        super().__init__()
        filters = STAGES[0][0]
        self.stem = ConvNorm(1, filters, _STEM_KERNEL, stride=_STEM_STRIDE)
        blocks: list[nn.Module] = []
        for stage, (outputs, n_blocks) in enumerate(STAGES):
            for block in range(n_blocks):
                stride = 2 if stage and not block else 1
                blocks.append(Residual(filters, outputs, stride=stride))
                filters = outputs
        self.blocks = nn.Sequential(*blocks)
        self.head = ConvNorm(filters, EMBEDDING_DIM, 1)
        self.classifier = nn.Linear(EMBEDDING_DIM, N_CLASSES)

    def forward(self, patches: Tensor) -> tuple[Tensor, Tensor]:
        """Score patches.

        Shape:
            patches ``[B, 96, 64]`` float32 -> logits ``[B, 521]``, embeddings ``[B, 320]``.
        """
        x = (patches.unsqueeze(1) - _SILENCE) * _SCALE
        x = torch.relu(self.stem(x))
        x = torch.relu(self.head(self.blocks(x)))
        embeddings = x.mean(dim=(2, 3))
        return self.classifier(embeddings), embeddings


def layouts() -> tuple[Layout, ...]:
    """The state dict that a training writes; the package's own weights come from one."""
    return (Layout(kind="torch", targets=own_names(Pocket)),)
