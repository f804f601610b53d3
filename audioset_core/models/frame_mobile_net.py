"""frame_mn: MobileNetV3 that keeps time, 447 AudioSet classes every 40 ms.

Bands shrink to one, frames only to a quarter: each step of the sequence is scored on its own.

Source: Schmid et al., Effective pre-training of audio transformers for sound event detection,
2025 (arXiv:2409.09546); https://github.com/fschmid56/PretrainedSED (MIT). Published weights: the
state dicts ``frame_mn*_strong_1.pt`` of release v0.0.1.
"""

from __future__ import annotations

from torch import Tensor, nn

from audioset_core.checkpoints.layouts import Layout, own_names
from audioset_core.models.mobile_blocks import BLOCKS, mobile_features, scaled

N_CLASSES = 447
_BAND_STRIDES = (1, 2, 2, 1, 1, 2, 1, 2, 1, 1, 2, 1, 1, 1, 2)
_FRAME_STRIDES = (1, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1)


class FrameMobileNet(nn.Module):
    """The network: patches in, logits and embeddings of every step out.

    Args:
        width: factor of every channel count; 1.0 is ``frame_mn10``.
    """

    def __init__(self, width: float) -> None:
        super().__init__()
        self.features = mobile_features(
            width, tuple(zip(_BAND_STRIDES, _FRAME_STRIDES, strict=True))
        )
        self.embedding_dim = 6 * scaled(BLOCKS[-1].outputs, width)
        self.strong_head = nn.Linear(self.embedding_dim, N_CLASSES)

    def forward(self, patches: Tensor) -> tuple[Tensor, Tensor]:
        """Score every step of 40 ms.

        Shape:
            patches ``[B, T, 128]`` float32 -> logits ``[B, ceil(T / 4), 447]``, embeddings
            ``[B, ceil(T / 4), 960 * width]``.
        """
        x = self.features(patches.transpose(1, 2).unsqueeze(1))
        sequence = x.squeeze(2).transpose(1, 2)
        return self.strong_head(sequence), sequence


def layouts(width: float) -> tuple[Layout, ...]:
    """The published state dict, whose head for whole clips had no part in the training."""
    targets = own_names(lambda: FrameMobileNet(width), features="model.frame_mn.features")
    unused = {
        name.replace("strong", "weak"): target.shape
        for name, target in targets.items()
        if name.startswith("strong_head.")
    }
    return (Layout(kind="torch", targets=targets, unused=unused),)
