"""YAMNet: MobileNet v1 over log-mel patches, 521 AudioSet classes.

Source: tensorflow/models, research/audioset/yamnet/yamnet.py and params.py; Howard et al.,
MobileNets, 2017 (arXiv:1704.04861).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

N_CLASSES = 521
EMBEDDING_DIM = 1024
# Source: params.py, batchnorm_epsilon. The batch norm has a centre but no scale.
BATCH_NORM_EPS = 1e-4

# Source: yamnet.py, _YAMNET_LAYER_DEFS: (stride, filters) of the separable layers 2 to 14.
SEPARABLE_LAYERS = (
    (1, 64), (2, 128), (1, 128), (2, 256), (1, 256), (2, 512), (1, 512),
    (1, 512), (1, 512), (1, 512), (1, 512), (2, 1024), (1, 1024),
)  # fmt: skip
_FIRST_STRIDE, _FIRST_FILTERS = 2, 32


class SameConv2d(nn.Conv2d):
    """Convolution with TensorFlow's SAME padding, which is asymmetric at stride 2."""

    def forward(self, x: Tensor) -> Tensor:
        """Shape: ``[B, C, H, W]`` -> ``[B, C', ceil(H / stride), ceil(W / stride)]``."""
        padding: list[int] = []
        for axis in (1, 0):
            size, kernel, stride = x.shape[axis + 2], self.kernel_size[axis], self.stride[axis]
            total = max(0, (-(-size // stride) - 1) * stride + kernel - size)
            padding += [total // 2, total - total // 2]
        if padding[0] == padding[1] and padding[2] == padding[3]:
            symmetric = (padding[2], padding[0])
            return functional.conv2d(
                x, self.weight, self.bias, self.stride, symmetric, groups=self.groups
            )
        x = functional.pad(x, padding)
        return functional.conv2d(x, self.weight, self.bias, self.stride, groups=self.groups)


class ConvNormRelu(nn.Module):
    """Convolution, batch norm, ReLU."""

    def __init__(self, inputs: int, filters: int, kernel: int, *, stride: int, groups: int) -> None:
        super().__init__()
        self.conv = SameConv2d(inputs, filters, kernel, stride, groups=groups, bias=False)
        self.bn: nn.Module = nn.BatchNorm2d(filters, eps=BATCH_NORM_EPS)

    def forward(self, x: Tensor) -> Tensor:
        """Shape: ``[B, C, H, W]`` -> ``[B, filters, H', W']``."""
        return functional.relu(self.bn(self.conv(x)), inplace=True)


class SeparableConv(nn.Module):
    """Depthwise 3x3, then pointwise 1x1, each with batch norm and ReLU."""

    def __init__(self, inputs: int, filters: int, *, stride: int) -> None:
        super().__init__()
        self.depthwise_conv = ConvNormRelu(inputs, inputs, 3, stride=stride, groups=inputs)
        self.pointwise_conv = ConvNormRelu(inputs, filters, 1, stride=1, groups=1)

    def forward(self, x: Tensor) -> Tensor:
        """Shape: ``[B, C, H, W]`` -> ``[B, filters, H', W']``."""
        out: Tensor = self.pointwise_conv(self.depthwise_conv(x))
        return out


class YAMNet(nn.Module):
    """The network: patches in, logits and embeddings out."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [
            ConvNormRelu(1, _FIRST_FILTERS, 3, stride=_FIRST_STRIDE, groups=1)
        ]
        filters = _FIRST_FILTERS
        for stride, outputs in SEPARABLE_LAYERS:
            layers.append(SeparableConv(filters, outputs, stride=stride))
            filters = outputs
        self.layers = nn.ModuleDict({f"layer{i}": layer for i, layer in enumerate(layers, 1)})
        self.classifier = nn.Linear(EMBEDDING_DIM, N_CLASSES)

    def forward(self, patches: Tensor) -> tuple[Tensor, Tensor]:
        """Score patches.

        Shape:
            patches ``[B, 96, 64]`` float32 -> logits ``[B, 521]``, embeddings ``[B, 1024]``.
        """
        x = patches.unsqueeze(1)
        for layer in self.layers.values():
            x = layer(x)
        embeddings = x.mean(dim=(2, 3))
        return self.classifier(embeddings), embeddings


def fold_batch_norm(model: YAMNet) -> YAMNet:
    """The same function with every batch norm folded into its convolution, for inference.

    Works in place on an ``eval()`` model and returns it.
    """
    for module in model.modules():
        if isinstance(module, ConvNormRelu) and isinstance(module.bn, nn.BatchNorm2d):
            module.conv = fuse_conv_bn_eval(module.conv, module.bn)
            module.bn = nn.Identity()
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model
