"""The models that can label: architecture, front end, classes and official weights of each.

Adding a model is one module with its network and the layouts of its published weights, and one
entry here. Networks are imported when they are built: naming a model needs no torch.
"""

from __future__ import annotations

import importlib
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from audioset_core.errors import UserError
from audioset_core.features import config as frontend_config
from audioset_core.features.config import FrontendConfig
from audioset_core.models.classes import Category, load_categories

if TYPE_CHECKING:
    from torch import nn

    from audioset_core.checkpoints.layouts import Layout

Framing = Literal["reference", "pad", "seed"]
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
    """One model: everything but its weights, which `audioset_core.weights.locate` finds."""

    name: str
    title: str
    frontend: FrontendConfig
    categories_name: str | None
    """None: the network has no classifier head, it gives embeddings only."""
    embedding_dim: int
    network: str
    """``module:class`` of the network; the module's ``layouts()`` are its published weights."""
    network_options: tuple[tuple[str, Any], ...] = ()
    official: OfficialWeights | None = None
    weights_hint: str = ""
    """Which file to give where there is no official download whose digest is known."""
    caution: str = ""
    """What a person should know of its answers, wherever the model is named."""
    embedded: str = ""
    """File in ``audioset_core/data`` with the weights, of a model that lies in the package."""
    framings: tuple[Framing, ...] = ("reference", "pad", "seed")
    cpu_batch_patches: int = 16
    cuda_batch_patches: int = 256

    @property
    def has_scores(self) -> bool:
        """Whether the network scores classes; embeddings it always gives."""
        return self.categories_name is not None

    @property
    def categories(self) -> tuple[Category, ...]:
        """The classes, in the order of the model's outputs; empty without a head."""
        return load_categories(self.categories_name) if self.categories_name else ()

    def build(self) -> nn.Module:
        """The untrained network; imports torch.

        Called with patches it returns ``(logits or None, embeddings)``; its ``for_inference()``
        is the same function, faster.
        """
        module, _, name = self.network.partition(":")
        network: nn.Module = getattr(importlib.import_module(module), name)(
            **dict(self.network_options)
        )
        return network

    def layouts(self) -> tuple[Layout, ...]:
        """The published forms of its weights; imports torch."""
        module = importlib.import_module(self.network.partition(":")[0])
        found: tuple[Layout, ...] = module.layouts()
        return found

    def framed(self, *, patch_hop_s: float | None, framing: Framing) -> FrontendConfig:
        """The front end with the patches placed as asked.

        ``pad`` fills the last patch with zeros, so that no audio is dropped: what YAMNet's
        reference does anyway, VGGish's does not.

        Raises:
            UserError: a hop that is not a multiple of 10 ms, or would skip audio.
        """
        if framing not in self.framings:
            raise UserError(f"--framing {framing}: {self.name} knows {', '.join(self.framings)}")
        if framing == "seed":
            if patch_hop_s not in (None, _SEED_HOP_FRAMES / 100):
                raise UserError("--framing seed fixes the hop at 0.96 s: leave out --patch-hop")
            return replace(self.frontend, patch_hop_frames=_SEED_HOP_FRAMES, pads_tail=False)
        pads_tail = framing == "pad" or self.frontend.pads_tail
        hop_frames = self.frontend.patch_hop_frames
        if patch_hop_s is not None:
            hop_frames = self._hop_frames(patch_hop_s)
        return replace(self.frontend, patch_hop_frames=hop_frames, pads_tail=pads_tail)

    def _hop_frames(self, patch_hop_s: float) -> int:
        if not math.isfinite(patch_hop_s):
            raise UserError(f"--patch-hop {patch_hop_s:g}: a number of seconds is expected")
        frame_hop_s = self.frontend.frame_hop_samples / self.frontend.sample_rate_hz
        hop_frames = round(patch_hop_s / frame_hop_s)
        if abs(hop_frames * frame_hop_s - patch_hop_s) > 1e-9 or not (
            1 <= hop_frames <= self.frontend.patch_span_frames
        ):
            raise UserError(
                f"--patch-hop {patch_hop_s:g}: choose a multiple of {frame_hop_s:g} s "
                f"from {frame_hop_s:g} to {self.frontend.patch_window_s:g}"
            )
        return hop_frames


YAMNET = ModelBundle(
    name="yamnet",
    title="YAMNet (MobileNet v1)",
    frontend=frontend_config.YAMNET,
    categories_name="yamnet",
    embedding_dim=1024,
    network="audioset_core.models.yamnet:YAMNet",
    official=OfficialWeights(
        url="https://storage.googleapis.com/audioset/yamnet.h5",
        file_name="yamnet.h5",
        size_bytes=15_296_092,
        sha256="13c3308955bbfaef262f175ac9c40e47b134573a93984f009220dd7cc12a1744",
    ),
)

VGGISH = ModelBundle(
    name="vggish",
    title="VGGish",
    frontend=frontend_config.VGGISH,
    categories_name="audioset527",
    embedding_dim=128,
    network="audioset_core.models.vggish:VGGish",
    weights_hint=(
        "for embeddings Google's https://storage.googleapis.com/audioset/vggish_model.ckpt, for "
        "scores as well "
        "https://github.com/w-hc/vggish/releases/download/v0.1/vggish_with_classifier.pth"
    ),
)

PANNS = ModelBundle(
    name="panns",
    title="PANNs Cnn14, 16 kHz",
    frontend=frontend_config.PANNS,
    categories_name="audioset527",
    embedding_dim=2048,
    network="audioset_core.models.panns:Cnn14",
    weights_hint="https://zenodo.org/record/3987831/files/Cnn14_16k_mAP%3D0.438.pth",
    framings=("reference", "pad"),  # the older port did not have this model
    # 50 times the time of YAMNet per patch.
    cpu_batch_patches=8,
    cuda_batch_patches=128,
)

POCKET = ModelBundle(
    name="pocket",
    title="Pocket (small, in the package)",
    caution="small, learned from YAMNet and less accurate",
    frontend=frontend_config.YAMNET,
    categories_name="yamnet",
    embedding_dim=320,
    network="audioset_core.models.pocket:Pocket",
    embedded="pocket.safetensors",
    framings=("reference", "pad"),  # the older port did not have this model
    cpu_batch_patches=32,
)

BUNDLES: dict[str, ModelBundle] = {
    bundle.name: bundle for bundle in (YAMNET, VGGISH, PANNS, POCKET)
}

# Networks whose published weights may lack the classifier head, without it.
_HEADLESS: dict[str, ModelBundle] = {
    "vggish": replace(VGGISH, categories_name=None, network_options=(("has_head", False),)),
}


def find_bundle(name: str, *, has_scores: bool = True) -> ModelBundle:
    """The bundle of that name; for weights without a classifier head, the network without one.

    Raises:
        UserError: no such model.
    """
    try:
        return BUNDLES[name] if has_scores else _HEADLESS[name]
    except KeyError:
        known = BUNDLES if has_scores else _HEADLESS
        what = "model" if has_scores else "model without classifier head"
        raise UserError(f"no {what} is called {name!r}; there is {', '.join(known)}") from None
