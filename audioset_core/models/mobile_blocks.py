"""Inverted residual blocks of MobileNetV3, which EfficientAT and frame_mn share.

A block widens its channels (1x1), filters each channel (k x k, depthwise), weighs the channels
(squeeze and excitation) and narrows them again (1x1). A width multiplies every channel count.

Source: Howard et al., Searching for MobileNetV3, 2019 (arXiv:1905.02244), table 1; Schmid et al.,
Efficient large-scale audio tagging, 2023 (arXiv:2211.04772). Submodules are named as in the
published state dicts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

Activation = Literal["relu", "hardswish"]
Strides = tuple[int, int]
"""Along the mel bands, along the frames."""

BATCH_NORM_EPS = 1e-3
_CHANNELS_ARE_MULTIPLES_OF = 8
# At most a tenth of the channels may be rounded away.
_LEAST_SHARE = 0.9


@dataclass(frozen=True, slots=True)
class Block:
    """One row of the table: kernel, channels inside and after, and what happens in between."""

    kernel: int
    inside: int
    outputs: int
    weighs_channels: bool
    activation: Activation
    is_strided: bool = False


STEM_FILTERS = 16
# Source: arXiv:1905.02244, table 1 (MobileNetV3-Large). From the third last row on, EfficientAT
# keeps the channels that the table halves only in its segmentation form.
BLOCKS = (
    Block(3, 16, 16, False, "relu"),
    Block(3, 64, 24, False, "relu", is_strided=True),
    Block(3, 72, 24, False, "relu"),
    Block(5, 72, 40, True, "relu", is_strided=True),
    Block(5, 120, 40, True, "relu"),
    Block(5, 120, 40, True, "relu"),
    Block(3, 240, 80, False, "hardswish", is_strided=True),
    Block(3, 200, 80, False, "hardswish"),
    Block(3, 184, 80, False, "hardswish"),
    Block(3, 184, 80, False, "hardswish"),
    Block(3, 480, 112, True, "hardswish"),
    Block(3, 672, 112, True, "hardswish"),
    Block(5, 672, 160, True, "hardswish", is_strided=True),
    Block(5, 960, 160, True, "hardswish"),
    Block(5, 960, 160, True, "hardswish"),
)
LAST_WIDENING = 6
"""The last convolution has this many times the channels of the last block."""


def scaled(channels: int, width: float) -> int:
    """The channels at a width: the nearest multiple of 8 that keeps nine tenths of them."""
    wanted = channels * width
    step = _CHANNELS_ARE_MULTIPLES_OF
    nearest = max(step, int(wanted + step / 2) // step * step)
    return nearest + step if nearest < _LEAST_SHARE * wanted else nearest


def activated(kind: Activation) -> nn.Module:
    """The activation as a module that works in place."""
    return nn.ReLU(inplace=True) if kind == "relu" else nn.Hardswish(inplace=True)


def conv_norm(
    inputs: int,
    outputs: int,
    kernel: int,
    *,
    stride: int | Strides = 1,
    groups: int = 1,
    activation: Activation | None = None,
) -> nn.Sequential:
    """Convolution, batch norm and, if one is named, the activation."""
    layers: list[nn.Module] = [
        nn.Conv2d(inputs, outputs, kernel, stride, (kernel - 1) // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs, BATCH_NORM_EPS),
    ]
    if activation is not None:
        layers.append(activated(activation))
    return nn.Sequential(*layers)


class SqueezeExcitation(nn.Module):
    """Weighs each channel by what all channels are on average over the patch."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        layer = nn.Module()
        squeezed = scaled(channels // 4, 1)
        layer.fc1 = nn.Linear(channels, squeezed)
        layer.fc2 = nn.Linear(squeezed, channels)
        self.conc_se_layers = nn.ModuleList([layer])

    def forward(self, x: Tensor) -> Tensor:
        """Shape: ``[B, C, F, T]`` unchanged."""
        first, second = self.conc_se_layers[0].children()
        weights: Tensor = second(first(x.mean(dim=(2, 3))).relu()).sigmoid()
        return x * weights[:, :, None, None]


class InvertedResidual(nn.Module):
    """One block of the table."""

    def __init__(self, inputs: int, row: Block, width: float, stride: Strides) -> None:
        super().__init__()
        inside, outputs = scaled(row.inside, width), scaled(row.outputs, width)
        layers: list[nn.Module] = []
        if inside != inputs:
            layers.append(conv_norm(inputs, inside, 1, activation=row.activation))
        depthwise = conv_norm(
            inside, inside, row.kernel, stride=stride, groups=inside, activation=row.activation
        )
        layers.append(depthwise)
        if row.weighs_channels:
            layers.append(SqueezeExcitation(inside))
        layers.append(conv_norm(inside, outputs, 1))
        self.block = nn.Sequential(*layers)
        self.is_residual = stride == (1, 1) and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """Shape: ``[B, C, F, T]`` -> ``[B, outputs, ceil(F / stride), ceil(T / stride)]``."""
        out: Tensor = self.block(x)
        return x + out if self.is_residual else out


def mobile_features(width: float, strides: tuple[Strides, ...]) -> nn.Sequential:
    """Stem, blocks and last convolution; ``strides`` are the blocks'.

    Shape: ``[B, 1, F, T]`` -> ``[B, 6 * scaled(160, width), F', T']``.
    """
    channels = scaled(STEM_FILTERS, width)
    layers: list[nn.Module] = [conv_norm(1, channels, 3, stride=2, activation="hardswish")]
    for row, stride in zip(BLOCKS, strides, strict=True):
        layers.append(InvertedResidual(channels, row, width, stride))
        channels = scaled(row.outputs, width)
    layers.append(conv_norm(channels, LAST_WIDENING * channels, 1, activation="hardswish"))
    return nn.Sequential(*layers)


def clip_head(inputs: int, hidden: int, classes: int) -> nn.Sequential:
    """Two linear layers on the mean over a patch.

    The empty places keep the published numbers: pooling, flattening and dropout.
    """
    return nn.Sequential(
        nn.Identity(), nn.Identity(), nn.Linear(inputs, hidden),
        nn.Hardswish(inplace=True), nn.Identity(), nn.Linear(hidden, classes),
    )  # fmt: skip
