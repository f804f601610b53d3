from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace

import pytest

from audioset_core.errors import UserError
from audioset_core.models.registry import BUNDLES, PANNS, VGGISH, YAMNET, find_bundle


def test_yamnet_is_complete() -> None:
    assert find_bundle("yamnet") is YAMNET
    assert len(YAMNET.categories) == 521
    assert [category.index for category in YAMNET.categories] == list(range(521))
    assert (YAMNET.categories[0].name, YAMNET.categories[0].mid) == ("Speech", "/m/09x0r")
    assert YAMNET.official is not None
    assert YAMNET.official.url.startswith("https://")
    assert re.fullmatch("[0-9a-f]{64}", YAMNET.official.sha256)


@pytest.mark.parametrize("name", sorted(BUNDLES))
def test_networks_have_the_outputs_that_are_named(name: str) -> None:
    import torch

    bundle = BUNDLES[name]
    assert bundle.name == name
    assert bundle.has_scores
    patches = (1, bundle.frontend.patch_frames, bundle.frontend.n_mels)
    with torch.inference_mode(), torch.device("meta"):  # shapes alone are computed
        logits, embeddings = bundle.build().eval()(torch.zeros(patches))
    n_steps = bundle.frontend.steps_per_patch
    shape = (1,) if n_steps == 1 else (1, n_steps)
    assert logits.shape == (*shape, len(bundle.categories))
    assert embeddings.shape == (*shape, bundle.embedding_dim)


@pytest.mark.parametrize("name", sorted(BUNDLES))
def test_every_layout_fills_the_network(name: str) -> None:
    import torch

    bundle = BUNDLES[name]
    for layout in bundle.layouts():
        network = find_bundle(name, has_scores=layout.has_scores)
        with torch.device("meta"):
            state = network.build().state_dict()
        wanted = {
            key: tuple(value.shape)
            for key, value in state.items()
            if not key.endswith("num_batches_tracked")
        }
        ours = {target.name: target.shape for target in layout.targets.values()}
        assert len(ours) == len(layout.targets)
        missing = wanted.keys() - ours.keys()
        assert missing == set(layout.ones)
        assert ours == {key: shape for key, shape in wanted.items() if key not in missing}


def test_weights_without_a_head_have_no_classes() -> None:
    bundle = find_bundle("vggish", has_scores=False)
    assert (bundle.name, bundle.has_scores, bundle.categories) == ("vggish", False, ())
    assert len(VGGISH.categories) == len(PANNS.categories) == 527
    with pytest.raises(UserError, match="no model without classifier head is called 'yamnet'"):
        find_bundle("yamnet", has_scores=False)


def test_models_are_named_without_torch() -> None:
    code = (
        "import sys; from audioset_core.models.registry import BUNDLES, find_bundle\n"
        "[(len(b.categories), b.framed(patch_hop_s=None, framing='pad')) for b in BUNDLES.values()]"
        "\nassert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", sorted(BUNDLES))
def test_weights_are_official_embedded_or_a_file_is_named(name: str) -> None:
    bundle = BUNDLES[name]
    is_named = bundle.weights_hint.startswith(("http", "for ", "the file "))
    assert [bundle.official is not None, bool(bundle.embedded), is_named].count(True) == 1


def test_variants_of_mn10_have_its_window_and_hop() -> None:
    """Windows of 10 s every 7.5 s; with 15 ms from frame to frame, 667 of them are 10.005 s."""
    frames = {"hop5": 2000, "hop15": 667, "hop20": 500, "hop25": 400}
    variants = {n.removeprefix("mn10_"): b for n, b in BUNDLES.items() if n.startswith("mn10_")}
    assert len(variants) == 10
    for name, bundle in variants.items():
        assert bundle.frontend.patch_frames == frames.get(name, 1000)
        assert bundle.frontend.patch_hop_s == 7.5
        assert bundle.frontend.patch_window_s == (10.005 if name == "hop15" else 10.0)
        assert bundle.frontend.n_mels == int(name.removeprefix("mels")) if "mels" in name else 128
        assert "mn10_as_" + re.sub(r"(?<=hop|els)(?=\d)", "_", name) in bundle.weights_hint


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


def test_pad_drops_nothing() -> None:
    assert not VGGISH.frontend.pads_tail
    padded = VGGISH.framed(patch_hop_s=None, framing="pad")
    assert padded == replace(VGGISH.frontend, pads_tail=True)
    assert VGGISH.framed(patch_hop_s=0.48, framing="pad").patch_hop_frames == 48
    for bundle in (YAMNET, PANNS):
        assert bundle.framed(patch_hop_s=None, framing="pad") == bundle.frontend


def test_seed_framing_of_other_models() -> None:
    assert VGGISH.framed(patch_hop_s=None, framing="seed") == VGGISH.frontend
    with pytest.raises(UserError, match="--framing seed: panns has reference, pad"):
        PANNS.framed(patch_hop_s=None, framing="seed")


@pytest.mark.parametrize(("hop_s", "is_allowed"), [(2.0, True), (0.01, True), (2.01, False)])
def test_no_hop_skips_audio(hop_s: float, is_allowed: bool) -> None:
    if is_allowed:
        framed = PANNS.framed(patch_hop_s=hop_s, framing="reference")
        assert framed.patch_hop_s == pytest.approx(hop_s)
    else:
        with pytest.raises(UserError, match=r"from 0\.01 to 2"):
            PANNS.framed(patch_hop_s=hop_s, framing="reference")
