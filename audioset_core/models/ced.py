"""CED: a vision transformer over log-mel of 10 s, 527 AudioSet classes.

Patches of 16 bands by 16 frames (0.16 s) become tokens, twelve blocks of attention compare them,
their mean is classified.

Source: Dinkel et al., CED: Consistent ensemble distillation for audio tagging, 2024
(arXiv:2308.11957). Written from the paper and from the published arrays; weights: Apache-2.0,
https://huggingface.co/mispeech (``ced-*``).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from audioset_core.checkpoints.layouts import Layout, own_names
from audioset_core.features.config import CED as FRONTEND
from audioset_core.features.mel import hann_window, mel_matrix

N_CLASSES = 527
N_MELS = 64
TOKEN_SIZE = 16
"""Bands and frames of one token."""
MOST_FRAMES = 1012
"""Of one input: 63 tokens."""
DEPTH = 12
_DYNAMIC_RANGE_DB = 120.0
_NORM_EPS, _HEAD_NORM_EPS = 1e-6, 1e-5


class Attention(nn.Module):
    """Every token looks at every other one."""

    def __init__(self, dim: int, n_heads: int) -> None:
        super().__init__()
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self._n_heads = n_heads

    def forward(self, x: Tensor) -> Tensor:
        """Shape: ``[B, N, dim]`` unchanged."""
        queries, keys, values = (
            part.unflatten(2, (self._n_heads, -1)).transpose(1, 2)
            for part in self.qkv(x).chunk(3, dim=2)
        )
        seen = functional.scaled_dot_product_attention(queries, keys, values)
        out: Tensor = self.proj(seen.transpose(1, 2).flatten(2))
        return out


class Perceptron(nn.Module):
    """Two linear layers, the inner one four times as wide."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, 4 * dim)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(4 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Shape: ``[B, N, dim]`` unchanged."""
        out: Tensor = self.fc2(self.act(self.fc1(x)))
        return out


class TransformerBlock(nn.Module):
    """Attention and perceptron, each on normed tokens and added to them."""

    def __init__(self, dim: int, n_heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, _NORM_EPS)
        self.attn = Attention(dim, n_heads)
        self.norm2 = nn.LayerNorm(dim, _NORM_EPS)
        self.mlp = Perceptron(dim)

    def forward(self, x: Tensor) -> Tensor:
        """Shape: ``[B, N, dim]`` unchanged."""
        x = x + self.attn(self.norm1(x))
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


class PatchEmbedding(nn.Module):
    """Tokens from squares of the log-mel."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(1, dim, TOKEN_SIZE, TOKEN_SIZE)

    def forward(self, x: Tensor) -> Tensor:
        """Shape: ``[B, 1, F, T]`` -> ``[B, dim, F // 16, T // 16]``."""
        out: Tensor = self.proj(x)
        return out


class DynamicRange(nn.Module):
    """What lies 120 dB below the loudest of a patch counts as that."""

    def forward(self, x: Tensor) -> Tensor:
        """Shape: ``[B, F, T]`` of decibels, unchanged."""
        return x.maximum(x.amax(dim=(1, 2), keepdim=True) - _DYNAMIC_RANGE_DB)


class CED(nn.Module):
    """The network: patches in, logits and embeddings out; 16 to 1,012 frames.

    Args:
        dim: size of a token; 192 is ``tiny``, 256 ``mini``, 384 ``small``, 768 ``base``.
        n_heads: heads of attention, each 64 wide.
    """

    def __init__(self, dim: int, n_heads: int) -> None:
        super().__init__()
        self.time_pos_embed = nn.Parameter(torch.zeros(1, dim, 1, MOST_FRAMES // TOKEN_SIZE))
        self.freq_pos_embed = nn.Parameter(torch.zeros(1, dim, N_MELS // TOKEN_SIZE, 1))
        self.dynamic_range = DynamicRange()
        self.init_bn = nn.BatchNorm1d(N_MELS)
        self.patch_embed = PatchEmbedding(dim)
        self.blocks = nn.Sequential(*(TransformerBlock(dim, n_heads) for _ in range(DEPTH)))
        self.norm = nn.LayerNorm(dim, _NORM_EPS)
        self.outputlayer = nn.Sequential(
            nn.LayerNorm(dim, _HEAD_NORM_EPS), nn.Linear(dim, N_CLASSES)
        )

    def forward(self, patches: Tensor) -> tuple[Tensor, Tensor]:
        """Score patches of decibels.

        Shape:
            patches ``[B, T, 64]`` float32 -> logits ``[B, 527]``, embeddings ``[B, dim]``.
        """
        x = self.init_bn(self.dynamic_range(patches.transpose(1, 2)))
        x = self.patch_embed(x.unsqueeze(1))
        x = x + self.time_pos_embed[..., : x.shape[3]] + self.freq_pos_embed
        tokens = self.norm(self.blocks(x.flatten(2).transpose(1, 2)))
        embeddings = tokens.mean(dim=1)
        return self.outputlayer(embeddings), embeddings


def layouts(dim: int, n_heads: int) -> tuple[Layout, ...]:
    """Zenodo's state dict, which holds the front end as well, and Hugging Face's."""

    def build() -> nn.Module:
        return CED(dim, n_heads)

    constants = {
        "front_end.0.spectrogram.window": hann_window(FRONTEND),
        "front_end.0.mel_scale.fb": mel_matrix(FRONTEND),
    }
    zenodo = own_names(build, init_bn="init_bn.1")
    hugging_face = own_names(build, outputlayer="outputlayer", rest="encoder.")
    return (
        Layout(kind="torch", targets=zenodo, constants=constants),
        Layout(kind="torch", targets=hugging_face),
    )
