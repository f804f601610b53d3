"""The models that can label: network, front end, classes and official weights of each.

A new model is an entry in this file, and a module if it is the first of its family. The module has
the network and ``layouts()``, the published forms of its weights; both are given the entry's
``network_options``. Modules are imported when a network is built: naming a model needs no torch.
"""

from __future__ import annotations

import importlib
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import cache, partial
from typing import TYPE_CHECKING, Any, Literal

from audioset_core.errors import UserError
from audioset_core.features import config
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
    """The publisher's address of a model's weights, and the digest that they must have."""

    url: str
    file_name: str
    sha256: str
    size_bytes: int = 0
    """0: no publisher states the size."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelBundle:
    """One model, without its weights, which `audioset_core.weights.locate` finds."""

    name: str
    title: str
    """Begins with the short name that messages use."""
    frontend: FrontendConfig
    """With the hop from one patch to the next that the model's authors use."""
    categories_name: str | None
    """A class list, see `load_categories`. None: no classifier head, embeddings only."""
    embedding_dim: int
    network: str
    """``module:class``, below ``audioset_core.models``.

    Called with patches ``[n, patch_frames, n_mels]``, the network returns ``(logits or None,
    embeddings)``.
    """
    network_options: tuple[tuple[str, Any], ...] = ()
    """What tells the models of a family apart: keyword arguments of the class and of `layouts`."""
    has_optional_head: bool = False
    """Published weights may lack the classifier head: the class takes ``has_head``."""
    official: OfficialWeights | None = None
    weights_hint: str = ""
    """Which file to give where there is no official download whose digest is known."""
    mean_ap: float | None = None
    """Mean average precision on AudioSet's evaluation set, as published; see docs/models.md."""
    caution: str = ""
    """A remark on its scores, shown wherever the model is named."""
    embedded: str = ""
    """File in ``audioset_core/data`` with the weights, of a model that is in the package."""
    framings: tuple[Framing, ...] = ("reference", "pad")
    """``seed`` repeats the older port's chunks: for the models that the older port had."""
    fast_layers: str = ""
    """Pattern of the layers that ``--precision fast`` computes in bfloat16; "": there is no such
    form. Chosen by measurement: docs/numerics.md."""
    cpu_batch_patches: int = 16
    cuda_batch_patches: int = 256

    @property
    def has_scores(self) -> bool:
        """Whether the network scores classes; it always gives embeddings."""
        return self.categories_name is not None

    @property
    def categories(self) -> tuple[Category, ...]:
        """The classes, in the order of the model's outputs; empty without a head."""
        return load_categories(self.categories_name) if self.categories_name else ()

    def build(self) -> nn.Module:
        """The untrained network; imports torch."""
        head = {"has_head": self.has_scores} if self.has_optional_head else {}
        name = self.network.partition(":")[2]
        network: nn.Module = _member(self.network, name, self.network_options)(**head)
        return network

    def layouts(self) -> tuple[Layout, ...]:
        """The published forms of its weights; imports torch."""
        return _layouts(self.network, self.network_options)

    def check_fast(self) -> None:
        """Check that the model has a form for ``--precision fast``.

        Raises:
            UserError: it has none.
        """
        if not self.fast_layers:
            have = ", ".join(bundle.name for bundle in BUNDLES.values() if bundle.fast_layers)
            raise UserError(f"--precision fast: {have} has such a form, {self.name} has none")

    def framed(self, *, patch_hop_s: float | None, framing: Framing) -> FrontendConfig:
        """The front end with this hop and framing.

        The hop of a network that scores steps within a patch is that of the stored rows.

        ``pad`` fills the last patch with zeros, so that no audio is dropped: YAMNet's reference
        does that in any case, VGGish's does not.

        >>> YAMNET.framed(patch_hop_s=0.96, framing="reference").patch_hop_frames
        96

        Raises:
            UserError: a hop that is not a multiple of 10 ms, or would skip audio.
        """
        if framing not in self.framings:
            raise UserError(f"--framing {framing}: {self.name} has {', '.join(self.framings)}")
        if framing == "seed":
            if patch_hop_s not in (None, _SEED_HOP_FRAMES / 100):
                raise UserError("--framing seed fixes the hop at 0.96 s: leave out --patch-hop")
            return replace(self.frontend, patch_hop_frames=_SEED_HOP_FRAMES, pads_tail=False)
        pads_tail = framing == "pad" or self.frontend.pads_tail
        if self.frontend.steps_per_patch > 1:
            return replace(self.frontend, steps_per_row=self._steps_per_row(patch_hop_s))
        hop_frames = self.frontend.patch_hop_frames
        if patch_hop_s is not None:
            hop_frames = self._hop_frames(patch_hop_s)
        return replace(self.frontend, patch_hop_frames=hop_frames, pads_tail=pads_tail)

    def _steps_per_row(self, patch_hop_s: float | None) -> int:
        """Rows must end where patches end, or pieces of a recording could not be pooled alone."""
        frontend = self.frontend
        if patch_hop_s is None:
            return frontend.steps_per_row
        allowed = [n for n in range(1, 51) if frontend.steps_per_patch % n == 0]
        found = [n for n in allowed if math.isclose(n * frontend.step_hop_s, patch_hop_s)]
        if not found:
            choices = ", ".join(f"{n * frontend.step_hop_s:g}" for n in allowed)
            raise UserError(f"--patch-hop {patch_hop_s:g}: {self.name} has {choices}")
        return found[0]

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
                f"from {frame_hop_s:g} to {self.frontend.patch_window_s:g} for {self.name}"
            )
        return hop_frames


def _member(network: str, name: str, options: tuple[tuple[str, Any], ...]) -> Callable[..., Any]:
    """A function or class of the network's module, with the network's options."""
    module = importlib.import_module(f"audioset_core.models.{network.partition(':')[0]}")
    return partial(getattr(module, name), **dict(options))


@cache
def _layouts(network: str, options: tuple[tuple[str, Any], ...]) -> tuple[Layout, ...]:
    found: tuple[Layout, ...] = _member(network, "layouts", options)()
    return found


YAMNET = ModelBundle(
    name="yamnet",
    title="YAMNet (MobileNet v1)",
    frontend=config.YAMNET,
    categories_name="yamnet",
    embedding_dim=1024,
    network="yamnet:YAMNet",
    mean_ap=0.306,
    framings=("reference", "pad", "seed"),
    fast_layers=r"layers\.layer([3-9]|1\d)\.pointwise_conv|classifier",
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
    frontend=config.VGGISH,
    categories_name="audioset527",
    embedding_dim=128,
    network="vggish:VGGish",
    has_optional_head=True,
    framings=("reference", "pad", "seed"),
    weights_hint=(
        "for embeddings Google's https://storage.googleapis.com/audioset/vggish_model.ckpt, for "
        "scores as well "
        "https://github.com/w-hc/vggish/releases/download/v0.1/vggish_with_classifier.pth"
    ),
)

PANNS = ModelBundle(
    name="panns",
    title="PANNs Cnn14, 16 kHz",
    # The network was trained on clips of 10 s, but pools over time and so takes any length. A patch
    # is 2 s: six steps on its last time axis (one is 0.32 s), short enough to say when a sound
    # occurs. 201 centred frames are what a recording of exactly 2 s has, and zeros fill a shorter
    # one before it is mirrored, as in training.
    # Source: arXiv:1912.10211, section IV; the 16 kHz settings of the released Cnn14_16k.
    frontend=FrontendConfig(
        log_offset=1e-10,
        patch_hop_frames=100,
        pads_tail=True,
        frame_samples=512,
        mel_min_hz=50.0,
        mel_max_hz=8000.0,
        patch_frames=201,
        family="librosa",
        precision="float64",
        is_centred=True,
    ),
    categories_name="audioset527",
    embedding_dim=2048,
    network="panns:Cnn14",
    mean_ap=0.438,
    weights_hint="https://zenodo.org/record/3987831/files/Cnn14_16k_mAP%3D0.438.pth",
    # 50 times the time of YAMNet per patch.
    cpu_batch_patches=8,
    cuda_batch_patches=128,
)

POCKET = ModelBundle(
    name="pocket",
    title="Pocket (small, in the package)",
    caution="small, learned from YAMNet and less accurate",
    frontend=config.YAMNET,
    categories_name="yamnet",
    embedding_dim=320,
    network="pocket:Pocket",
    embedded="pocket.safetensors",
    cpu_batch_patches=32,
)

_EFFICIENTAT = "https://github.com/fschmid56/EfficientAT/releases/"


def _published(url: str, sha256: str, size_bytes: int) -> dict[str, Any]:
    """Where the weights are: a download if their digest is known, else the file to give."""
    if not sha256:
        return {"weights_hint": url}
    file_name = url.rpartition("/")[2]
    return {
        "official": OfficialWeights(
            url=url, file_name=file_name, sha256=sha256, size_bytes=size_bytes
        )
    }


def _efficientat(
    name: str, file_name: str, mean_ap: float, sha256: str = "", size_bytes: int = 0
) -> ModelBundle:
    """A tagger of whole windows of 10 s; the digits of its name are its width in tenths."""
    width, url = int(name[-2:]) / 10, f"{_EFFICIENTAT}download/v0.0.1/{file_name}"
    return ModelBundle(
        name=name,
        title=f"EfficientAT {name}",
        frontend=config.EFFICIENTAT,
        categories_name="audioset527",
        embedding_dim=round(960 * width),
        network=(
            "dynamic_mobile_net:DynamicMobileNet"
            if name.startswith("dy")
            else "efficientat:MobileNet"
        ),
        network_options=(("width", width),),
        mean_ap=mean_ap,
        **_published(url, sha256, size_bytes),
        cpu_batch_patches=1,
        cuda_batch_patches=32,
    )


def _mn10_with(
    variant: str,
    *,
    frame_hop_samples: int = config.EFFICIENTAT.frame_hop_samples,
    n_mels: int = config.EFFICIENTAT.n_mels,
    **options: Any,
) -> ModelBundle:
    """mn10 with another front end or head: ``hop_5`` is published as ``mn10_as_hop_5``.

    Windows of 10 s (with 15 ms from frame to frame, 10.005 s) every 7.5 s, as for mn10.
    """
    window_samples = config.EFFICIENTAT.patch_samples
    base, name = BUNDLES["mn10"], "mn10_" + re.sub(r"_(?=\d)", "", variant)
    return replace(
        base,
        name=name,
        title=f"EfficientAT {name}",
        frontend=replace(
            config.EFFICIENTAT,
            frame_hop_samples=frame_hop_samples,
            n_mels=n_mels,
            patch_frames=-(-window_samples // frame_hop_samples),
            patch_hop_frames=config.EFFICIENTAT.patch_hop_samples // frame_hop_samples,
        ),
        network_options=(*base.network_options, *options.items()),
        mean_ap=None,
        official=None,
        weights_hint=f"the file mn10_as_{variant}*.pt of {_EFFICIENTAT}tag/v0.0.1",
    )


def _ced(size: str, dim: int, mean_ap: float, sha256: str) -> ModelBundle:
    return ModelBundle(
        name=f"ced_{size}",
        title=f"CED-{size}",
        frontend=config.CED,
        categories_name="audioset527",
        embedding_dim=dim,
        network="ced:CED",
        network_options=(("dim", dim), ("n_heads", dim // 64)),
        mean_ap=mean_ap,
        official=OfficialWeights(
            url=f"https://huggingface.co/mispeech/ced-{size}/resolve/main/model.safetensors",
            file_name=f"ced-{size}.safetensors",
            sha256=sha256,
        ),
        cpu_batch_patches=1,
        cuda_batch_patches=32,
    )


def _frame_mn(width: str, sha256: str = "", size_bytes: int = 0) -> ModelBundle:
    """Scores of 447 classes every 40 ms: for exact times."""
    releases = "https://github.com/fschmid56/PretrainedSED/releases/download/v0.0.1/"
    url = f"{releases}frame_mn{width}_strong_1.pt"
    return ModelBundle(
        name=f"frame_mn{width}",
        title=f"frame_mn{width} (PretrainedSED)",
        frontend=config.FRAME_MN,
        categories_name="audioset447",
        embedding_dim=round(96 * int(width)),
        network="frame_mobile_net:FrameMobileNet",
        network_options=(("width", int(width) / 10),),
        **_published(url, sha256, size_bytes),
        cpu_batch_patches=1,
        cuda_batch_patches=16,
    )


_TAGGERS = (
    _efficientat(
        "mn04",
        "mn04_as_mAP_432.pt",
        0.432,
        "899a8c6217063f6941793102a2780b3dd788ab11fce468d9cf5f0577c453321c",
        4_066_513,
    ),
    _efficientat("mn05", "mn05_as_mAP_443.pt", 0.443),
    _efficientat(
        "mn10",
        "mn10_as_mAP_471.pt",
        0.471,
        "0bd7dc2443af498c289a2e739f02ebb515d6aa3fd3ab9db539c86123ae368a4e",
        19_708_753,
    ),
    _efficientat("mn20", "mn20_as_mAP_478.pt", 0.478),
    _efficientat("mn40", "mn40_as_mAP_484.pt", 0.484),
    _efficientat("dymn04", "dymn04_as.pt", 0.450),
    _efficientat("dymn10", "dymn10_as.pt", 0.477),
    _efficientat("dymn20", "dymn20_as_mAP_493.pt", 0.491),
    _frame_mn("06"),
    _frame_mn(
        "10",
        "4a0fe320d5369987b772394c51881fb20a602967e6842f72f3e5c8181065ece7",
        15_537_114,
    ),
    _ced("tiny", 192, 0.481, "0e086f0cd62814c6def89001f3f25193f75955696f6975ef6800af31d00d6dd7"),
    _ced("mini", 256, 0.490, "e4070d02ca53ec7a1df83bbf779a0e70bc2bbc0a9bacde6330e1dc37c990b215"),
    _ced("small", 384, 0.496, "a495e319a620dec4c8b7ca7bb927667ed68169a9efc1a943ccbf5d5c6f9c0c71"),
    _ced("base", 768, 0.500, "314935693ed1dcef07576ca0c41277c51c642f3847bc5eb03918c5277eb79af9"),
)

BUNDLES: dict[str, ModelBundle] = {
    bundle.name: bundle for bundle in (YAMNET, VGGISH, PANNS, POCKET, *_TAGGERS)
}
# What mn10's authors published beside it, to compare front ends and heads. Files of the first two
# rows have the same arrays as mn10's.
BUNDLES |= {
    bundle.name: bundle
    for bundle in (
        *(_mn10_with(f"hop_{ms}", frame_hop_samples=32 * ms) for ms in (5, 15, 20, 25)),
        *(_mn10_with(f"mels_{n}", n_mels=n) for n in (40, 64, 256)),
        _mn10_with("fc", head="conv"),
        _mn10_with("fc_s2221", head="conv", halvings=3),
        _mn10_with("fc_s2211", head="conv", halvings=2),
    )
}


def find_bundle(name: str, *, has_scores: bool = True) -> ModelBundle:
    """The model of that name; without scores, its network without the classifier head.

    >>> find_bundle("pocket").frontend.patch_hop_s
    0.48

    Raises:
        UserError: no such model.
    """
    known = {n: b for n, b in BUNDLES.items() if has_scores or b.has_optional_head}
    if name not in known:
        what = "model" if has_scores else "model without classifier head"
        nearest = get_close_matches(name, known, n=1)
        hint = f"did you mean {nearest[0]!r}? " if nearest else ""
        raise UserError(f"no {what} is called {name!r}; {hint}there is {', '.join(known)}")
    return known[name] if has_scores else replace(known[name], categories_name=None)
