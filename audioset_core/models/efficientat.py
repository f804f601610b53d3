"""EfficientAT's ``mn``: MobileNetV3 over log-mel of 10 s, 527 AudioSet classes.

Source: Schmid et al., Efficient large-scale audio tagging via transformer-to-CNN knowledge
distillation, 2023 (arXiv:2211.04772); https://github.com/fschmid56/EfficientAT (MIT). Published
weights: the state dicts ``mn*_as*.pt`` of release v0.0.1.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from audioset_core.checkpoints.layouts import Layout, own_names
from audioset_core.models.mobile_blocks import BLOCKS, clip_head, mobile_features, scaled

N_CLASSES = 527
_HIDDEN = 1280


class MobileNet(nn.Module):
    """The network: patches in, logits and embeddings out. Any number of frames.

    Args:
        width: factor of every channel count; 1.0 is ``mn10``.
        head: ``mlp``: two linear layers on the mean over the patch. ``conv``: a linear layer at
            every place, averaged afterwards (``_fc`` in published names).
        halvings: how many of the four strided blocks halve bands and frames, from the first on
            (``_s2221`` is 3, ``_s2211`` is 2).
    """

    def __init__(
        self, width: float, head: Literal["mlp", "conv"] = "mlp", halvings: int = 4
    ) -> None:
        super().__init__()
        n_left = halvings
        strides = []
        for row in BLOCKS:
            stride = 2 if row.is_strided and n_left > 0 else 1
            n_left -= row.is_strided
            strides.append((stride, stride))
        self.features = mobile_features(width, tuple(strides))
        self.embedding_dim = 6 * scaled(BLOCKS[-1].outputs, width)
        self._has_conv_head = head == "conv"
        self.classifier = (
            nn.Sequential(
                nn.Conv2d(self.embedding_dim, N_CLASSES, 1, bias=False), nn.BatchNorm2d(N_CLASSES)
            )
            if self._has_conv_head
            else clip_head(self.embedding_dim, scaled(_HIDDEN, width), N_CLASSES)
        )

    def forward(self, patches: Tensor) -> tuple[Tensor, Tensor]:
        """Score patches.

        Shape:
            patches ``[B, T, 128]`` float32 -> logits ``[B, 527]``, embeddings ``[B, 960 * width]``.
        """
        x = self.features(patches.transpose(1, 2).unsqueeze(1))
        embeddings = x.mean(dim=(2, 3))
        if self._has_conv_head:
            return self.classifier(x).mean(dim=(2, 3)), embeddings
        return self.classifier(embeddings), embeddings


def layouts(
    width: float, head: Literal["mlp", "conv"] = "mlp", halvings: int = 4
) -> tuple[Layout, ...]:
    """The published state dict: our names and axes are theirs."""
    targets = own_names(lambda: MobileNet(width, head, halvings))
    return (Layout(kind="torch", targets=targets),)
