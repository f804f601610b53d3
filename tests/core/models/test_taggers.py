"""EfficientAT, frame_mn and CED against outputs of the original code, weights by rule and real."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import soundfile
import soxr
import torch
from numpy.typing import NDArray

from audioset_core.errors import UserError
from audioset_core.features.log_mel import LogMelStream, log_mel
from audioset_core.features.mel import hann_window, mel_matrix
from audioset_core.features.patch_reader import LogMelReader
from audioset_core.inference.interface import ComputeOptions
from audioset_core.inference.scorer import Scorer
from audioset_core.inference.torch_engine import load_network
from audioset_core.models.folding import fold_batch_norm
from audioset_core.models.registry import BUNDLES, ModelBundle
from audioset_core.weights.convert import convert
from audioset_core.weights.locate import ReadyWeights
from tests.core.models import rule_weights
from tests.core.models.rule_weights import sampled

# Each golden model, by the publisher's name, and our name.
PUBLISHED: dict[str, str] = {
    **{f"mn{size}_as": f"mn{size}" for size in ("04", "05", "10", "20", "40")},
    **{f"mn10_as_{variant}": f"mn10_{variant}" for variant in ("fc", "fc_s2221", "fc_s2211")},
    **{f"dymn{size}_as": f"dymn{size}" for size in ("04", "10", "20")},
    **{f"frame_mn{size}_strong_1": f"frame_mn{size}" for size in ("06", "10")},
    **{f"ced_{size}": f"ced_{size}" for size in ("tiny", "mini", "small", "base")},
}
SMALL = ("mn04_as", "dymn04_as", "frame_mn06_strong_1", "ced_tiny")
"""Of each family; the others are slow."""
CLIPS = ["sine440", "noise", "silence", "short", "impulses", "esc_dog", "clip3", "clip10"]
# On how many the original was run; the others have two.
IN_FULL = ("mn04_as", "mn10_as", "dymn04_as", "dymn10_as", "ced_tiny", "ced_mini")
CLIPS_OF: dict[str, list[str]] = {
    **dict.fromkeys(IN_FULL, CLIPS),
    **{name: ["noise", "esc_dog", "clip3", "clip10"] for name in ("ced_small", "ced_base")},
    **{name: [] for name in PUBLISHED if name.startswith("frame_mn")},
}
FAMILIES = {"efficientat": "mn04", "frame_mn": "frame_mn10", "ced": "ced_tiny"}
Golden = Mapping[str, NDArray[Any]]


def family(name: str) -> str:
    return next((f for f in ("frame_mn", "ced") if name.startswith(f)), "efficientat")


def published(name: str) -> ModelBundle:
    return BUNDLES[PUBLISHED[name]]


@cache
def _golden(folder: Path, name: str) -> Golden:
    with np.load(folder / f"{name}_golden.npz") as stored:
        return dict(stored)


@pytest.fixture(scope="module")
def folder(assets: Path) -> Path:
    return assets / "golden" / "taggers"


def waveform(assets: Path, name: str, rate_hz: int) -> NDArray[np.float32]:
    if name.startswith("clip"):
        return rule_weights.clip(name, rate_hz)
    samples = _golden(assets / "golden", "yamnet")[f"{name}/waveform"]
    return samples if rate_hz == 16_000 else soxr.resample(samples, 16_000, rate_hz, quality="HQ")


@cache
def network(name: str) -> torch.nn.Module:
    """With weights by rule, in every published form converted by its layout."""
    bundle = published(name)
    (model, layout), *_ = [(bundle.build(), layout) for layout in bundle.layouts()]
    arrays = {
        target.name: target.place(rule_weights.weight(theirs, target.published_shape))
        for theirs, target in layout.targets.items()
    }
    counters = {k: v for k, v in model.state_dict().items() if k.endswith("num_batches_tracked")}
    model.load_state_dict({**{k: torch.from_numpy(v) for k, v in arrays.items()}, **counters})
    return model.eval()


def scored(model: torch.nn.Module, mel: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    """Logits and embeddings of ``[B, bands, frames]``."""
    with torch.inference_mode():
        patches = torch.from_numpy(np.ascontiguousarray(mel.transpose(0, 2, 1)))
        return [output.numpy() for output in model(patches)]


def given(name: str) -> NDArray[np.float32]:
    if family(name) != "ced":
        return rule_weights.given_mel(128)
    return (rule_weights.given_mel(64).astype(np.float64) * 20 - 40).astype(np.float32)


def on_any_input(model: torch.nn.Module) -> torch.nn.Module:
    """A copy; CED's floor 120 dB below the loudest is left out: what is given is no sound."""
    copied = copy.deepcopy(model)
    if hasattr(copied, "dynamic_range"):
        copied.dynamic_range = torch.nn.Identity()
    return copied


def assert_near(found: NDArray[Any], wanted: NDArray[Any], bound: float, name: str = "") -> None:
    """Within the bound; dymn20's outputs reach 124, where it is relative to the largest."""
    assert found.shape == wanted.shape
    scale = float(np.abs(wanted).max()) if name == "dymn20_as" else 1.0
    assert np.abs(found - wanted).max() <= bound * scale


@pytest.mark.numeric
@pytest.mark.parametrize("clip", [*CLIPS, "clip25"])
@pytest.mark.parametrize("golden_name", FAMILIES)
def test_log_mel_is_the_originals(assets: Path, folder: Path, golden_name: str, clip: str) -> None:
    golden = _golden(folder, golden_name)
    config = replace(BUNDLES[FAMILIES[golden_name]].frontend, pads_tail=False)
    samples = waveform(assets, clip, config.sample_rate_hz)
    assert len(samples) == golden[f"wave/{clip}/samples"]
    np.testing.assert_array_equal(sampled(samples, 64), golden[f"wave/{clip}/sampled"])
    mel = log_mel(samples, config).T
    assert mel.shape == tuple(golden[f"mel/{clip}/shape"])
    wanted = golden[f"mel/{clip}"]
    mel = mel if golden_name != "ced" else np.maximum(mel, mel.max() - 120)
    bound = 1e-3 if golden_name != "ced" or clip in ("noise", "silence", "esc_dog") else _TONES_DB
    assert_near(mel[:, :: 10 if clip == "clip25" else 1], wanted, bound)


@pytest.mark.parametrize(
    "variant", ["hop_5", "hop_15", "hop_20", "hop_25", "mels_40", "mels_64", "mels_256"]
)
def test_log_mel_of_variants_is_the_originals(assets: Path, folder: Path, variant: str) -> None:
    golden = _golden(folder, "efficientat")
    name = "mn10_" + variant.replace("_", "")
    config = replace(BUNDLES[name].frontend, pads_tail=False)
    mel = log_mel(waveform(assets, "short", 32_000), config).T
    assert_near(mel, golden[f"mel_variant/{variant}/short"], 1e-3)
    assert (mel_matrix(config).max(axis=0) == 0).sum() == golden[
        f"mel_variant/{variant}/empty_bands"
    ]


# CED's original computes in float32, which shows in bands far below a pure tone: an FFT of 512
# points leaves about 2**-24 of the frame's norm in every bin, 144 dB below the tone; the 32 bins
# of the widest band add up to 15 dB more. In a band 40 dB above that, 20 log10(1 + 10**(-40 / 20))
# = 0.09 dB; bands at the 120 dB floor lie 9 dB closer, and the phase of the noise decides.
_TONES_DB = 0.25


@pytest.mark.parametrize("golden_name", FAMILIES)
def test_windows_and_matrices_are_the_originals(folder: Path, golden_name: str) -> None:
    golden, config = _golden(folder, golden_name), BUNDLES[FAMILIES[golden_name]].frontend
    matrix = golden["mel_matrix"]
    ours = mel_matrix(config)
    matrix = matrix if matrix.shape[0] == config.fft_samples // 2 + 1 else matrix.T
    np.testing.assert_allclose(ours[: len(matrix)], matrix, atol=2e-5)
    window = golden["window"]
    at = (len(window) - config.frame_samples) // 2
    np.testing.assert_allclose(
        hann_window(config), window[at : at + config.frame_samples], atol=1e-6
    )


@pytest.mark.parametrize("golden_name", FAMILIES)
def test_samples_in_pieces_give_the_whole_to_the_bit(
    golden_name: str, rng: np.random.Generator
) -> None:
    config = BUNDLES[FAMILIES[golden_name]].frontend
    samples = rule_weights.clip("clip10", config.sample_rate_hz)
    whole = log_mel(samples, config)
    for _ in range(3):
        stream = LogMelStream(config)
        cuts = np.sort(rng.integers(0, len(samples), 40))
        parts = [stream.push(part) for part in np.split(samples, cuts)]
        np.testing.assert_array_equal(np.concatenate([*parts, stream.finish()]), whole)


@pytest.mark.parametrize("seconds", [0.02, 0.5, 9.99, 10.0, 10.01, 14.99, 15.0, 15.01, 37.0])
@pytest.mark.parametrize("golden_name", FAMILIES)
def test_frames_are_there_for_every_patch(golden_name: str, seconds: float) -> None:
    config = BUNDLES[FAMILIES[golden_name]].frontend
    n_samples = round(seconds * config.sample_rate_hz)
    frames = log_mel(np.zeros(n_samples, np.float32), config)
    hop_s, n_patches = config.patch_hop_s, config.n_patches(n_samples)
    assert config.patch_window_s == 10.0
    assert n_patches == 1 + max(0, int(np.ceil(round((seconds - 10.0) / hop_s, 6))))
    assert len(frames) >= (n_patches - 1) * config.patch_hop_frames + config.patch_frames


def is_quick(name: str, clip: str) -> bool:
    return name in SMALL and clip in ("short", "noise")


def by_size(*names: str) -> list[Any]:
    return [n if n in SMALL else pytest.param(n, marks=pytest.mark.slow) for n in names]


@pytest.mark.numeric
@pytest.mark.parametrize("name", by_size(*PUBLISHED))
def test_outputs_are_the_originals(folder: Path, name: str) -> None:
    golden, model = _golden(folder, family(name)), on_any_input(network(name))
    logits, embeddings = scored(model, given(name))
    if family(name) == "frame_mn":
        strong = golden[f"{name}/given/native_strong"]
        assert_near(logits.transpose(0, 2, 1)[:, :, ::8], strong, 1e-4)
        assert_near(embeddings[:, ::8], golden[f"{name}/given/sequence"], 1e-4)
    else:
        assert_near(logits, golden[f"{name}/given/logits"], 1e-4, name)
        assert_near(embeddings, golden[f"{name}/given/embedding"], 1e-4, name)


@pytest.mark.parametrize(
    ("name", "clip"),
    [
        pytest.param(name, clip, marks=[] if is_quick(name, clip) else pytest.mark.slow)
        for name in PUBLISHED
        for clip in CLIPS_OF.get(name, ("noise", "esc_dog"))
    ],
)
def test_waveforms_are_scored_as_by_the_original(
    assets: Path, folder: Path, name: str, clip: str
) -> None:
    golden = _golden(folder, family(name))
    wanted = golden[f"{name}/{clip}/logits"]
    logits, embeddings = scored(network(name), golden[f"mel/{clip}"][np.newaxis])
    assert_near(logits[0], wanted, 1e-4)
    assert_near(embeddings[0], golden[f"{name}/{clip}/embedding"], 1e-4)
    config = replace(published(name).frontend, pads_tail=False)
    mel = log_mel(waveform(assets, clip, config.sample_rate_hz), config).T[np.newaxis]
    logits, _ = scored(network(name), mel)
    if family(name) == "ced":
        # Of tones, the original's own float32 moves its probabilities by up to 3.7e-4.
        assert np.abs(_sigmoid(logits[0]) - _sigmoid(wanted)).max() <= 1e-3
    else:
        assert_near(logits[0], wanted, 1e-3)


def _sigmoid(logits: NDArray[Any]) -> NDArray[Any]:
    return 1 / (1 + np.exp(-logits))


@pytest.mark.parametrize(
    ("name", "clip"),
    [
        pytest.param(name, clip, marks=[] if is_quick(name, clip) else pytest.mark.slow)
        for name in ("frame_mn06_strong_1", "frame_mn10_strong_1")
        for clip in CLIPS
    ],
)
def test_steps_are_scored_as_by_the_original(
    assets: Path, folder: Path, name: str, clip: str
) -> None:
    """Ten seconds, filled up with zeros: 250 steps of 40 ms."""
    golden, config = _golden(folder, family(name)), published(name).frontend
    samples = waveform(assets, clip, config.sample_rate_hz)
    frames = log_mel(samples, config)[: config.patch_frames]
    logits, _ = scored(network(name), frames.T[np.newaxis])
    assert logits.shape == (1, 250, 447)
    wanted = golden[f"{name}/{clip}/padded10/strong"]
    step = 250 // wanted.shape[1]
    assert_near(logits[0, ::step].T, wanted, 1e-3)


@pytest.fixture(scope="module")
def frame_mn06(tmp_path_factory: pytest.TempPathFactory) -> ReadyWeights:
    folder = tmp_path_factory.mktemp("frame_mn06")
    source = rule_weights.write_published("frame_mn06", folder / "frame_mn06_strong_1.pt")
    convert(source, folder / "frame_mn06.safetensors", model="frame_mn06")
    return ReadyWeights(folder / "frame_mn06.safetensors", "frame_mn06", "", "")


@pytest.mark.parametrize("engine", ["torch", "openvino"])
def test_steps_in_pieces_are_the_whole_and_end_with_the_recording(
    folder: Path, frame_mn06: ReadyWeights, engine: Literal["torch", "openvino"]
) -> None:
    golden, bundle = _golden(folder, "frame_mn"), BUNDLES["frame_mn06"]
    scorer = Scorer(bundle, frame_mn06, ComputeOptions("cpu", engine))
    for clip, n_steps in (("clip3", 75), ("clip10", 250), ("clip25", 625)):
        samples = rule_weights.clip(clip, 16_000)
        scored = []
        for n_blocks, budget_s in ((1, 60.0), (50, 4.0)):
            blocks = iter(np.array_split(samples, n_blocks))
            reader = LogMelReader(blocks, 16_000, bundle.frontend)
            pieces = []
            while not reader.is_finished:
                pieces.append(reader.read(budget_s))
            scored.append(np.concatenate(scorer.score(pieces, bundle.frontend)))
        whole, in_pieces = scored
        assert whole.shape == (n_steps, 447)
        np.testing.assert_array_equal(in_pieces, whole)
        # The original cuts the waveform every 10 s and mirrors it at each cut; here frames at a
        # cut have their true neighbours. So its first piece is ours, but for its last steps.
        wanted = golden[f"frame_mn06_strong_1/{clip}/padded10/strong"].T
        every = 250 * -(-n_steps // 250) // len(wanted)
        n_equal = min(250, n_steps) // every
        if clip != "clip25":
            assert_near(whole[::every][:n_equal], wanted[:n_equal], 1e-3)


@pytest.mark.parametrize("seconds", [0.01, 0.04, 0.041, 9.96, 10.0, 10.01, 25.0, 29.999])
def test_no_step_is_only_padding(seconds: float) -> None:
    config, n_samples = BUNDLES["frame_mn06"].frontend, round(seconds * 16_000)
    reader = LogMelReader(iter([np.zeros(n_samples, np.float32)]), 16_000, config)
    n_steps = 0
    while not reader.is_finished:
        piece = reader.read(1.0)
        n_steps += 250 * piece.n_patches - piece.n_padded_steps
    assert (n_steps - 1) * 0.04 < seconds <= n_steps * 0.04 + 1e-9
    assert config.n_steps(n_samples) == n_steps
    assert config.n_rows(n_samples) == -(-n_steps // 5)


def test_the_hop_of_a_frame_model_is_that_of_its_rows() -> None:
    bundle = BUNDLES["frame_mn10"]
    assert bundle.framed(patch_hop_s=None, framing="reference").row_hop_s == pytest.approx(0.2)
    fine = bundle.framed(patch_hop_s=0.04, framing="pad")
    assert (fine.steps_per_row, fine.step_window_s, fine.patch_window_s) == (1, 0.04, 10.0)
    with pytest.raises(UserError, match=r"0\.3: frame_mn10 has 0\.04, 0\.08, 0\.2, 0\.4, 1, 2$"):
        bundle.framed(patch_hop_s=0.3, framing="reference")


def _taps(golden: Golden, name: str) -> Iterator[tuple[str, str]]:
    prefix = f"{name}/tap/"
    for key in golden:
        if key.startswith(prefix) and not key.endswith("/shape"):
            yield key, key.removeprefix(prefix).removeprefix("model.frame_mn.")


@pytest.mark.parametrize(
    "name",
    by_size("mn04_as", "mn10_as", "dymn04_as", "dymn10_as", "frame_mn10_strong_1", "ced_tiny"),
)
def test_inner_layers_give_what_the_originals_give(folder: Path, name: str) -> None:
    golden, model = _golden(folder, family(name)), on_any_input(network(name))
    for module in model.modules():  # or an activation would overwrite what a norm gave
        if hasattr(module, "inplace"):
            module.inplace = False
    modules = dict(model.named_modules())
    seen: dict[str, NDArray[Any]] = {}
    hooks = [
        modules[place].register_forward_hook(
            lambda _module, _inputs, output, key=key: seen.__setitem__(key, output.numpy())
        )
        for key, place in _taps(golden, name)
        if place in modules
    ]
    scored(model, given(name)[:1])
    for hook in hooks:
        hook.remove()
    assert len(seen) > 20
    for key, output in seen.items():
        assert output.size == np.prod(golden[f"{key}/shape"]), key
        scale = max(1.0, float(np.abs(golden[key]).max()))
        assert np.abs(sampled(output) - golden[key]).max() <= 1e-4 * scale, key


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mn04_as", "dymn04_as", "frame_mn06_strong_1"])
def test_folding_changes_nothing(name: str) -> None:
    before = scored(network(name), given(name))
    folded = published(name).build()
    folded.load_state_dict(network(name).state_dict())
    after = scored(fold_batch_norm(folded.eval()), given(name))
    for old, new in zip(before, after, strict=True):
        assert_near(new, old, 1e-4)


def test_silence_beside_a_sine_does_not_depend_on_it() -> None:
    """The original takes its 120 dB below the loudest of a whole batch; here a patch is alone."""
    model = network("ced_tiny")
    silence, sine = np.full((1, 64, 304), -100.0, np.float32), np.zeros((1, 64, 304), np.float32)
    alone = scored(model, silence)[0]
    together = scored(model, np.concatenate([sine + 30, silence]))[0]
    assert_near(together[1:], alone, 1e-5)


@pytest.fixture(scope="module")
def real_mn04(assets: Path, tmp_path_factory: pytest.TempPathFactory) -> torch.nn.Module:
    """The published weights, converted as a user's are."""
    target = tmp_path_factory.mktemp("weights") / "mn04.safetensors"
    convert(assets / "weights" / "mn04_as_mAP_432.pt", target, model="mn04")
    return load_network(BUNDLES["mn04"], ReadyWeights(target, "mn04", "", ""))


@pytest.mark.slow
def test_published_weights_give_the_published_outputs(
    assets: Path, folder: Path, real_mn04: torch.nn.Module
) -> None:
    golden = _golden(folder, "mn04_real")
    config = replace(BUNDLES["mn04"].frontend, pads_tail=False)
    assert_near(scored(real_mn04, given("mn04_as"))[0], golden["given/logits"], 1e-4)
    for clip in [*CLIPS, "clip25"]:
        mel = log_mel(waveform(assets, clip, 32_000), config).T[np.newaxis]
        logits, embeddings = scored(real_mn04, mel)
        assert_near(logits[0], golden[f"{clip}/logits"], 1e-3)
        assert_near(embeddings[0], golden[f"{clip}/embedding"], 1e-3)
    recordings = [key for key in golden if key.startswith("esc10_dev/")]
    assert len(recordings) == 40
    for key in recordings:
        path = assets / "esc10-dev" / key.removeprefix("esc10_dev/").removesuffix("/logits")
        samples, rate_hz = soundfile.read(path, dtype="float32")
        samples = soxr.resample(samples, rate_hz, 32_000, quality="HQ")
        logits, _ = scored(real_mn04, log_mel(samples, config).T[np.newaxis])
        assert_near(logits[0], golden[key], 1e-3)
