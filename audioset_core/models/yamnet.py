"""YAMNet: MobileNet v1 over log-mel patches, 521 AudioSet classes.

Source: tensorflow/models, research/audioset/yamnet/yamnet.py and params.py; Howard et al.,
MobileNets, 2017 (arXiv:1704.04861).

Published weights: Google's Keras ``yamnet.h5``, its SavedModel (https://tfhub.dev/google/yamnet/1)
and the ``yamnet.pth`` of https://github.com/w-hc/torch_audioset.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, nn
from torch.nn import functional

from audioset_core.checkpoints.layouts import DENSE, DEPTHWISE, HWIO, Layout, Target

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
# TensorFlow's names of what a batch norm learns and gathers, and PyTorch's.
_BATCH_NORM = {"beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}


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
        self.bn = nn.BatchNorm2d(filters, eps=BATCH_NORM_EPS)

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


def layouts() -> tuple[Layout, ...]:
    """Every published form of the weights."""
    keras: dict[str, Target] = {}
    saved_model: dict[str, Target] = {}
    torch_state: dict[str, Target] = {}
    for block, kernel, target in _convolutions():
        keras[f"{block}/{block}/{kernel}:0"] = saved_model[f"{block}/{kernel}"] = target
        torch_state[_older_name(target.name)] = Target(target.name, target.shape)
        module = target.name.removesuffix(".conv.weight")
        channels = (target.shape[0],)
        for theirs, ours in _BATCH_NORM.items():
            norm = Target(f"{module}.bn.{ours}", channels)
            keras[f"{block}/bn/{block}/bn/{theirs}:0"] = saved_model[f"{block}/bn/{theirs}"] = norm
            torch_state[_older_name(norm.name)] = norm
        # The older port keeps the scale that Google's batch norm does not have.
        scale = Target(f"{module}.bn.weight", channels)
        torch_state[_older_name(scale.name)] = scale
    weight = Target("classifier.weight", (N_CLASSES, EMBEDDING_DIM), DENSE)
    bias = Target("classifier.bias", (N_CLASSES,))
    for name, target in (("kernel", weight), ("bias", bias)):
        keras[f"logits/logits/{name}:0"] = saved_model[f"logits/{name}"] = target
        torch_state[target.name] = Target(target.name, target.shape)
    ones = tuple(t.name for t in torch_state.values() if t.name.endswith("bn.weight"))
    # Later versions of yamnet.py leave the last layer's name to Keras, which counts.
    unnamed = ((r"(^|/)dense(_\d+)?/", r"\1logits/"),)
    return (
        Layout(kind="h5", targets=keras, ones=ones),
        Layout(kind="tensorflow", targets=saved_model, ones=ones, renames=unnamed),
        Layout(kind="torch", targets=torch_state),
    )


def _convolutions() -> Iterator[tuple[str, str, Target]]:
    """Each convolution: Keras's layer, its kernel's name, and where the kernel goes."""
    shape = (_FIRST_FILTERS, 1, 3, 3)
    yield "layer1/conv", "kernel", Target("layers.layer1.conv.weight", shape, HWIO)
    inputs = _FIRST_FILTERS
    for index, (_, filters) in enumerate(SEPARABLE_LAYERS, 2):
        layer = f"layer{index}/depthwise_conv"
        name = f"layers.layer{index}.depthwise_conv.conv.weight"
        yield layer, "depthwise_kernel", Target(name, (inputs, 1, 3, 3), DEPTHWISE)
        layer = f"layer{index}/pointwise_conv"
        name = f"layers.layer{index}.pointwise_conv.conv.weight"
        yield layer, "kernel", Target(name, (filters, inputs, 1, 1), HWIO)
        inputs = filters


def _older_name(name: str) -> str:
    """The older port's name of an array."""
    return name.removeprefix("layers.").replace("layer1.", "layer1.fused.")
