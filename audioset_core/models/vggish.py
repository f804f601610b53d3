"""VGGish: a VGG over log-mel patches, 128-d embeddings, and a head of 527 AudioSet classes.

The embedding is the last layer's value *before* any ReLU, as Google's code returns it. The head
is not Google's: it reads the embedding after a ReLU and its weights exist in one file only.

Source: tensorflow/models, research/audioset/vggish/vggish_slim.py; Hershey et al., CNN
Architectures for Large-Scale Audio Classification, 2017 (arXiv:1609.09430); for the head
https://github.com/w-hc/torch_audioset, torch_audioset/vggish/model.py.

Published weights: Google's checkpoint (``vggish_model.ckpt``), ``vggish_orig.pth`` and
``vggish_with_classifier.pth`` of https://github.com/w-hc/vggish, ``vggish-10086976.pth`` of
https://github.com/harritaylor/torchvggish. All flatten in TensorFlow's order.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from audioset_core.checkpoints.layouts import DENSE, HWIO, Layout, Target

EMBEDDING_DIM = 128
N_CLASSES = 527
HEAD_HIDDEN = 100

# Source: vggish_slim.define_vggish_slim. Filters of 3x3 convolutions; a 2x2 max pool ends a block.
BLOCKS = (
    (("conv1", 64),),
    (("conv2", 128),),
    (("conv3_1", 256), ("conv3_2", 256)),
    (("conv4_1", 512), ("conv4_2", 512)),
)
# What four pools leave of 96 frames and 64 bands, times the last filters.
FLAT = (96 // 16) * (64 // 16) * 512
DENSE_LAYERS = (("fc1_1", FLAT, 4096), ("fc1_2", 4096, 4096), ("fc2", 4096, EMBEDDING_DIM))
# Where the layers stand in the nn.Sequential of the PyTorch ports.
_PORT_FEATURES = (0, 3, 6, 8, 11, 13)
_PORT_EMBEDDINGS = (0, 2, 4)


class Head(nn.Module):
    """Embeddings to class logits."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Linear(EMBEDDING_DIM, HEAD_HIDDEN)
        self.classes = nn.Linear(HEAD_HIDDEN, N_CLASSES)

    def forward(self, embeddings: Tensor) -> Tensor:
        """Shape: ``[B, 128]`` -> ``[B, 527]``."""
        hidden = functional.relu(self.hidden(functional.relu(embeddings)))
        logits: Tensor = self.classes(hidden)
        return logits


class VGGish(nn.Module):
    """The network: patches in, logits (None without a head) and embeddings out."""

    def __init__(self, *, has_head: bool = True) -> None:
        super().__init__()
        self.convolutions = nn.ModuleDict()
        inputs = 1
        for block in BLOCKS:
            for name, filters in block:
                self.convolutions[name] = nn.Conv2d(inputs, filters, 3, padding=1)
                inputs = filters
        self.dense = nn.ModuleDict(
            {name: nn.Linear(inputs, outputs) for name, inputs, outputs in DENSE_LAYERS}
        )
        self.head = Head() if has_head else None

    def forward(self, patches: Tensor) -> tuple[Tensor | None, Tensor]:
        """Embed and score patches.

        Shape:
            patches ``[B, 96, 64]`` float32 -> logits ``[B, 527]``, embeddings ``[B, 128]``.
        """
        x = patches.unsqueeze(1)
        for block in BLOCKS:
            for name, _ in block:
                x = functional.relu(self.convolutions[name](x), inplace=True)
            x = functional.max_pool2d(x, 2)
        # TensorFlow's order: height, width, channel.
        x = x.permute(0, 2, 3, 1).flatten(1)
        x = functional.relu(self.dense["fc1_1"](x), inplace=True)
        x = functional.relu(self.dense["fc1_2"](x), inplace=True)
        embeddings = self.dense["fc2"](x)
        return None if self.head is None else self.head(embeddings), embeddings


def layouts() -> tuple[Layout, ...]:
    """Every published form of the weights."""
    checkpoint: dict[str, Target] = {}
    port: dict[str, Target] = {}
    inputs = 1
    convolutions = [entry for block in BLOCKS for entry in block]
    for index, (name, filters) in zip(_PORT_FEATURES, convolutions, strict=True):
        kernel = Target(f"convolutions.{name}.weight", (filters, inputs, 3, 3), HWIO)
        bias = Target(f"convolutions.{name}.bias", (filters,))
        _add_layer(checkpoint, _variable(name), port, f"features.{index}", kernel, bias)
        inputs = filters
    for index, (name, inputs, outputs) in zip(_PORT_EMBEDDINGS, DENSE_LAYERS, strict=True):
        kernel = Target(f"dense.{name}.weight", (outputs, inputs), DENSE)
        bias = Target(f"dense.{name}.bias", (outputs,))
        _add_layer(checkpoint, _variable(name), port, f"embeddings.{index}", kernel, bias)
    head = {
        "classifier.0.weight": Target("head.hidden.weight", (HEAD_HIDDEN, EMBEDDING_DIM)),
        "classifier.0.bias": Target("head.hidden.bias", (HEAD_HIDDEN,)),
        "classifier.2.weight": Target("head.classes.weight", (N_CLASSES, HEAD_HIDDEN)),
        "classifier.2.bias": Target("head.classes.bias", (N_CLASSES,)),
    }
    return (
        Layout(kind="torch", targets=port | head),
        Layout(kind="torch", targets=port, has_scores=False),
        Layout(kind="tensorflow", targets=checkpoint, has_scores=False),
    )


def _add_layer(
    checkpoint: dict[str, Target],
    variable: str,
    port: dict[str, Target],
    module: str,
    kernel: Target,
    bias: Target,
) -> None:
    checkpoint[f"{variable}/weights"], checkpoint[f"{variable}/biases"] = kernel, bias
    port[f"{module}.weight"] = Target(kernel.name, kernel.shape)
    port[f"{module}.bias"] = bias


def _variable(name: str) -> str:
    """conv3_1 -> vggish/conv3/conv3_1, as TF-Slim scopes repeated layers."""
    scope = name.partition("_")[0]
    return f"vggish/{scope}/{name}" if scope != name else f"vggish/{name}"
