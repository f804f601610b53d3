"""EfficientAT's ``dymn``: MobileNetV3 whose kernels and activations depend on the sound.

Each block describes its input by a context, and mixes four kernels, bends its activation and
weighs bands and frames by that context.

Source: Schmid et al., Dynamic convolutional neural networks as efficient pre-trained audio models,
2024 (arXiv:2310.15648); https://github.com/fschmid56/EfficientAT (MIT). Published weights: the
state dicts ``dymn*_as*.pt`` of release v0.0.1.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from audioset_core.checkpoints.layouts import Layout, own_names
from audioset_core.models.mobile_blocks import (
    BATCH_NORM_EPS,
    BLOCKS,
    LAST_WIDENING,
    STEM_FILTERS,
    Block,
    activated,
    clip_head,
    conv_norm,
    scaled,
)

N_CLASSES = 527
N_KERNELS = 4
_HIDDEN = 1280
_LEAST_CONTEXT, _MOST_CONTEXT = 32, 128
# Slopes and offsets of the two lines of a dynamic ReLU: how far the context moves them, and from
# where. Source: Chen et al., Dynamic ReLU, 2020 (arXiv:2003.10027), section 3.2.
_REACH, _START = (1.0, 1.0, 0.5, 0.5), (1.0, 0.0, 0.0, 0.0)


class Context(nn.Module):
    """What a block knows of its input: per band, per frame, and in all."""

    def __init__(self, inputs: int, size: int, inside: int, stride: int) -> None:
        super().__init__()
        self.joint_conv = nn.Conv2d(inputs, size, 1, bias=False)
        self.joint_norm = nn.BatchNorm2d(size, BATCH_NORM_EPS)
        self.joint_act = nn.Hardswish()
        self.conv_f = nn.Conv2d(size, inside, 1)
        self.conv_t = nn.Conv2d(size, inside, 1)
        self._stride = stride

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The context and the weights' logits of bands and frames after the stride.

        Shape:
            ``[B, C, F, T]`` -> ``[B, size]``, ``[B, inside, F', 1]``, ``[B, inside, 1, T']``.
        """
        bands, frames = x.mean(dim=3, keepdim=True), x.mean(dim=2).unsqueeze(3)
        joint = self.joint_act(self.joint_norm(self.joint_conv(torch.cat((bands, frames), dim=2))))
        by_band, by_frame = joint.split((x.shape[2], x.shape[3]), dim=2)
        if self._stride > 1:
            # Zeros beyond the ends count in the mean.
            by_band, by_frame = (
                functional.avg_pool2d(part, (3, 1), (self._stride, 1), (1, 0))
                for part in (by_band, by_frame)
            )
        return (
            joint.mean(dim=(2, 3)),
            self.conv_f(by_band),
            self.conv_t(by_frame).transpose(2, 3),
        )


class MixedKernel(nn.Module):
    """Four kernels of one convolution, mixed by the context."""

    def __init__(self, context: int, n_weights: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(1, 1, N_KERNELS, n_weights))
        self.residuals = nn.Sequential(nn.Linear(context, N_KERNELS))

    def shares(self, context: Tensor) -> Tensor:
        """Shape: ``[B, context]`` -> ``[B, 4]``, which sum to 1."""
        return functional.softmax(self.residuals(context), dim=1)


class MixedPointwise(MixedKernel):
    """A 1x1 convolution with mixed kernels."""

    def __init__(self, inputs: int, outputs: int, context: int) -> None:
        super().__init__(context, inputs * outputs)
        self._shape = (outputs, inputs)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """Shape: ``[B, inputs, F, T]`` -> ``[B, outputs, F, T]``."""
        kernels = self.shares(context) @ self.weight[0, 0]
        mixed = kernels.view(-1, *self._shape) @ x.flatten(2)
        return mixed.view(-1, self._shape[0], *x.shape[2:])


class MixedDepthwise(MixedKernel):
    """A depthwise convolution with mixed kernels."""

    def __init__(self, channels: int, kernel: int, stride: int, context: int) -> None:
        super().__init__(context, channels * kernel * kernel)
        self._channels, self._kernel, self._stride = channels, kernel, stride

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """Shape: ``[B, C, F, T]`` -> ``[B, C, ceil(F / stride), ceil(T / stride)]``.

        All four kernels are applied and their results mixed, which is the same: engines that
        translate the network want kernels that do not depend on the input.
        """
        size = self._kernel
        kernels = self.weight.view(N_KERNELS, self._channels, size, size).transpose(0, 1)
        every = functional.conv2d(
            x, kernels.reshape(-1, 1, size, size), stride=self._stride,
            padding=(size - 1) // 2, groups=self._channels,
        )  # fmt: skip
        every = every.view(-1, self._channels, N_KERNELS, *every.shape[2:])
        return (every * self.shares(context)[:, None, :, None, None]).sum(dim=2)


class DynamicReLU(nn.Module):
    """The larger of two lines, whose slopes and offsets depend on the context."""

    lambdas: Tensor
    init_v: Tensor

    def __init__(self, channels: int, context: int) -> None:
        super().__init__()
        self.coef_net = nn.Sequential(nn.Linear(context, 4 * channels))
        self.register_buffer("lambdas", torch.tensor(_REACH))
        self.register_buffer("init_v", torch.tensor(_START))

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """Shape: ``[B, C, F, T]`` unchanged."""
        moves = 2 * self.coef_net(context).sigmoid() - 1
        lines = moves.view(-1, x.shape[1], 1, 1, 4) * self.lambdas + self.init_v
        slope_a, slope_b, offset_a, offset_b = lines.unbind(dim=4)
        return torch.maximum(x * slope_a + offset_a, x * slope_b + offset_b)


class Weighing(nn.Module):
    """Weighs bands and frames of each channel."""

    def forward(self, x: Tensor, by_band: Tensor, by_frame: Tensor) -> Tensor:
        """Shape: ``[B, C, F, T]`` unchanged."""
        return x * by_band.sigmoid() * by_frame.sigmoid()


class DynamicBlock(nn.Module):
    """One row of the table of blocks, with everything in it dynamic."""

    def __init__(self, inputs: int, row: Block, width: float) -> None:
        super().__init__()
        inside, outputs = scaled(row.inside, width), scaled(row.outputs, width)
        stride = 2 if row.is_strided else 1
        context = min(
            max(scaled(inside // 4, 1), scaled(_LEAST_CONTEXT, width)),
            scaled(_MOST_CONTEXT, width),
        )
        self.context_gen = Context(inputs, context, inside, stride)
        self._has_expansion = inside != inputs
        if self._has_expansion:
            self.exp_conv = MixedPointwise(inputs, inside, context)
            self.exp_norm = nn.BatchNorm2d(inside, BATCH_NORM_EPS)
            self.exp_act = activated(row.activation)
        self.depth_conv = MixedDepthwise(inside, row.kernel, stride, context)
        self.depth_norm = nn.BatchNorm2d(inside, BATCH_NORM_EPS)
        self.depth_act = DynamicReLU(inside, context)
        self.ca = Weighing()
        self.proj_conv = MixedPointwise(inside, outputs, context)
        self.proj_norm = nn.BatchNorm2d(outputs, BATCH_NORM_EPS)
        self._is_residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """Shape: ``[B, C, F, T]`` -> ``[B, outputs, ceil(F / stride), ceil(T / stride)]``."""
        context, by_band, by_frame = self.context_gen(x)
        out = x
        if self._has_expansion:
            out = self.exp_act(self.exp_norm(self.exp_conv(out, context)))
        out = self.depth_act(self.depth_norm(self.depth_conv(out, context)), context)
        out = self.ca(out, by_band, by_frame)
        out = self.proj_norm(self.proj_conv(out, context))
        result: Tensor = x + out if self._is_residual else out
        return result


class DynamicMobileNet(nn.Module):
    """The network: patches in, logits and embeddings out. Any number of frames.

    Args:
        width: factor of every channel count; 1.0 is ``dymn10``.
    """

    def __init__(self, width: float) -> None:
        super().__init__()
        channels = scaled(STEM_FILTERS, width)
        self.in_c = conv_norm(1, channels, 3, stride=2, activation="hardswish")
        layers = []
        for row in BLOCKS:
            layers.append(DynamicBlock(channels, row, width))
            channels = scaled(row.outputs, width)
        self.layers = nn.Sequential(*layers)
        self.embedding_dim = LAST_WIDENING * channels
        self.out_c = conv_norm(channels, self.embedding_dim, 1, activation="hardswish")
        hidden = scaled(_HIDDEN, width)
        self.classifier = clip_head(self.embedding_dim, hidden, N_CLASSES)

    def forward(self, patches: Tensor) -> tuple[Tensor, Tensor]:
        """Score patches.

        Shape:
            patches ``[B, T, 128]`` float32 -> logits ``[B, 527]``, embeddings ``[B, 960 * width]``.
        """
        x = self.layers(self.in_c(patches.transpose(1, 2).unsqueeze(1)))
        embeddings = self.out_c(x).mean(dim=(2, 3))
        return self.classifier(embeddings), embeddings


def layouts(width: float) -> tuple[Layout, ...]:
    """The published state dict: our names and axes are theirs."""
    return (Layout(kind="torch", targets=own_names(lambda: DynamicMobileNet(width))),)
