"""The models that can label: architecture, front end, classes and official weights of each.

Adding a model is one entry here and one module with its network.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from audioset_core.categories import Category, load_categories
from audioset_core.errors import UserError
from audioset_core.frontend import YAMNET as YAMNET_FRONTEND
from audioset_core.frontend import FrontendConfig

if TYPE_CHECKING:
    from torch import nn

Framing = Literal["reference", "seed"]
# The older port's chunking: a patch every 0.96 s, the unfilled tail dropped.
_SEED_HOP_FRAMES = 96


@dataclass(frozen=True, slots=True, kw_only=True)
class OfficialWeights:
    """Where the publisher keeps a model's weights, and what they must hash to."""

    url: str
    file_name: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelBundle:
    """One model: everything but its weights, which `audioset_core.weights` finds."""

    name: str
    title: str
    frontend: FrontendConfig
    categories_name: str
    embedding_dim: int
    official: OfficialWeights
    build: Callable[[], nn.Module]
    """The network for inference, untrained; imports torch when called."""

    @property
    def categories(self) -> tuple[Category, ...]:
        """The classes, in the order of the model's outputs."""
        return load_categories(self.categories_name)

    def framed(self, *, patch_hop_s: float | None, framing: Framing) -> FrontendConfig:
        """The front end with the patches placed as asked.

        Raises:
            UserError: a hop that is not a multiple of 10 ms, or would skip audio.
        """
        if framing == "seed":
            if patch_hop_s not in (None, _SEED_HOP_FRAMES / 100):
                raise UserError("--framing seed fixes the hop at 0.96 s: leave out --patch-hop")
            return replace(self.frontend, patch_hop_frames=_SEED_HOP_FRAMES, pads_tail=False)
        if patch_hop_s is None:
            return self.frontend
        if not math.isfinite(patch_hop_s):
            raise UserError(f"--patch-hop {patch_hop_s:g}: a number of seconds is expected")
        frame_hop_s = self.frontend.frame_hop_samples / self.frontend.sample_rate_hz
        hop_frames = round(patch_hop_s / frame_hop_s)
        if abs(hop_frames * frame_hop_s - patch_hop_s) > 1e-9 or not (
            1 <= hop_frames <= self.frontend.patch_frames
        ):
            raise UserError(
                f"--patch-hop {patch_hop_s:g}: choose a multiple of {frame_hop_s:g} s "
                f"from {frame_hop_s:g} to {self.frontend.patch_window_s:g}"
            )
        return replace(self.frontend, patch_hop_frames=hop_frames)


def _build_yamnet() -> nn.Module:
    from audioset_core.yamnet import YAMNet

    return YAMNet()


YAMNET = ModelBundle(
    name="yamnet",
    title="YAMNet (MobileNet v1)",
    frontend=YAMNET_FRONTEND,
    categories_name="yamnet",
    embedding_dim=1024,
    official=OfficialWeights(
        url="https://storage.googleapis.com/audioset/yamnet.h5",
        file_name="yamnet.h5",
        size_bytes=15_296_092,
        sha256="13c3308955bbfaef262f175ac9c40e47b134573a93984f009220dd7cc12a1744",
    ),
    build=_build_yamnet,
)

BUNDLES: dict[str, ModelBundle] = {bundle.name: bundle for bundle in (YAMNET,)}


def find_bundle(name: str) -> ModelBundle:
    """The bundle of that name.

    Raises:
        UserError: no such model.
    """
    try:
        return BUNDLES[name]
    except KeyError:
        raise UserError(f"no model is called {name!r}; there is {', '.join(BUNDLES)}") from None
