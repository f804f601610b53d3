from __future__ import annotations

import re
from dataclasses import replace

import pytest

from audioset_core.bundle import BUNDLES, YAMNET, find_bundle
from audioset_core.errors import UserError


def test_yamnet_is_complete() -> None:
    assert find_bundle("yamnet") is YAMNET
    assert len(YAMNET.categories) == 521
    assert [category.index for category in YAMNET.categories] == list(range(521))
    assert (YAMNET.categories[0].name, YAMNET.categories[0].mid) == ("Speech", "/m/09x0r")
    assert YAMNET.official.url.startswith("https://")
    assert re.fullmatch("[0-9a-f]{64}", YAMNET.official.sha256)


@pytest.mark.parametrize("name", sorted(BUNDLES))
def test_networks_have_the_outputs_that_are_named(name: str) -> None:
    import torch

    bundle = BUNDLES[name]
    assert bundle.name == name
    shape = (1, bundle.frontend.patch_frames, bundle.frontend.n_mels)
    with torch.inference_mode():
        logits, embeddings = bundle.build().eval()(torch.zeros(shape))
    assert logits.shape == (1, len(bundle.categories))
    assert embeddings.shape == (1, bundle.embedding_dim)


def test_unknown_model_names_the_known() -> None:
    with pytest.raises(UserError, match=r"'yamnett'.*yamnet"):
        find_bundle("yamnett")


def test_default_framing_is_the_references() -> None:
    assert YAMNET.framed(patch_hop_s=None, framing="reference") == YAMNET.frontend


@pytest.mark.parametrize(
    ("hop_s", "frames"), [(0.01, 1), (0.1, 10), (0.48, 48), (0.57, 57), (0.96, 96)]
)
def test_hop_in_steps_of_10_ms(hop_s: float, frames: int) -> None:
    framed = YAMNET.framed(patch_hop_s=hop_s, framing="reference")
    assert framed == replace(YAMNET.frontend, patch_hop_frames=frames)
    assert framed.patch_hop_s == pytest.approx(hop_s)


@pytest.mark.parametrize(
    "hop_s", [0.0, -0.48, 0.005, 0.485, 0.97, 10.0, 1e300, float("nan"), float("inf")]
)
def test_other_hops_are_refused(hop_s: float) -> None:
    with pytest.raises(UserError, match="--patch-hop"):
        YAMNET.framed(patch_hop_s=hop_s, framing="reference")


def test_seed_framing_fixes_the_hop() -> None:
    seed = YAMNET.framed(patch_hop_s=None, framing="seed")
    assert (seed.patch_hop_frames, seed.pads_tail) == (96, False)
    assert YAMNET.framed(patch_hop_s=0.96, framing="seed") == seed
    with pytest.raises(UserError, match="leave out --patch-hop"):
        YAMNET.framed(patch_hop_s=0.48, framing="seed")
