"""The front end on torch's device, here the CPU: the same patches, and so the same scores."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import soxr
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from audioset_core.audio.recording import Recording
from audioset_core.errors import UserError
from audioset_core.features.config import VGGISH, YAMNET, FrontendConfig
from audioset_core.features.log_mel import patches
from audioset_core.features.patch_reader import (
    LogMelPiece,
    Piece,
    WaveformPiece,
    WaveformReader,
    open_reader,
)
from audioset_core.features.shared_reader import SharedReader
from audioset_core.features.torch_log_mel import TorchFrontend
from audioset_core.inference import engines as networks
from audioset_core.inference.engines import takes_waveforms
from audioset_core.inference.interface import ComputeOptions
from audioset_core.inference.scorer import Scorer
from audioset_core.models.registry import PANNS
from audioset_core.models.registry import YAMNET as BUNDLE
from audioset_core.scores.pooling import sigmoid
from audioset_core.weights.conversion_proof import END_TO_END_BAR
from audioset_core.weights.locate import ReadyWeights
from tests.bounds import assert_rounding, assert_within, htk_matrix, patches_sigma

F32 = NDArray[np.float32]

pytestmark = pytest.mark.numeric

EMPTY_BAR = 3e-4
"""Docs: what scores differ by at most where roundings are all there is in most of the spectrum."""
TONE_BAR = 1e-3
"""Between the lines of a tone there are roundings only. Noise of their standard deviation in the
patches of the chirp moves a score by up to 1.3e-3."""
CONFIGS = {
    "yamnet": YAMNET,
    "vggish": VGGISH,
    "seed": BUNDLE.framed(patch_hop_s=None, framing="seed"),
    # Not a whole number of blocks of 11,025, 22,050 or 37,800 Hz.
    "hop 0.05 s": BUNDLE.framed(patch_hop_s=0.05, framing="reference"),
    "hop 0.96 s": BUNDLE.framed(patch_hop_s=0.96, framing="reference"),
}
DEVICES = [
    pytest.param("cpu"),
    pytest.param(
        "cuda",
        marks=[
            pytest.mark.gpu,
            pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
        ],
    ),
]


def blocks_of(samples: F32, sizes: list[int]) -> Iterator[F32]:
    at = turn = 0
    while at < len(samples):
        size = sizes[turn % len(sizes)]
        yield samples[at : at + size]
        at, turn = at + size, turn + 1


def pieces_of(
    samples: F32,
    rate_hz: int,
    config: FrontendConfig,
    *,
    as_waveform: bool,
    budgets: tuple[float, ...] = (1e9,),
    sizes: tuple[int, ...] = (65_536,),
) -> list[Piece]:
    reader = open_reader(blocks_of(samples, list(sizes)), rate_hz, config, as_waveform=as_waveform)
    found: list[Piece] = []
    while not reader.is_finished:
        found.append(reader.read(budgets[len(found) % len(budgets)]))
        assert len(found) < 5_000
    return found


def on_cpu(samples: F32, rate_hz: int, config: FrontendConfig) -> F32:
    (piece,) = pieces_of(samples, rate_hz, config, as_waveform=False)
    assert isinstance(piece, LogMelPiece)
    return patches(piece.frames, config)


def on_device(pieces: list[Piece], config: FrontendConfig, device: str = "cpu") -> F32:
    frontend = TorchFrontend(torch.device(device))
    found = []
    for piece in pieces:
        assert isinstance(piece, WaveformPiece)
        views = frontend.patches(piece, config)
        assert views.shape == (piece.n_patches, config.patch_frames, config.n_mels)
        found.append(views.cpu().numpy())
    return np.concatenate(found)


def noise(n_samples: int, seed: int = 0) -> F32:
    return np.random.default_rng(seed).normal(0, 0.1, n_samples).astype(np.float32)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("rate_hz", [8_000, 16_000, 22_050, 37_800, 44_100, 44_101, 48_000])
def test_patches_are_those_of_the_cpu(rate_hz: int, name: str, device: str) -> None:
    config = CONFIGS[name]
    for duration_s in (0.1, 0.975, 7.3):
        samples = noise(round(duration_s * rate_hz))
        pieces = pieces_of(samples, rate_hz, config, as_waveform=True)
        found = on_device(pieces, config, device)
        sigma = patches_sigma(samples, rate_hz, config)
        assert_rounding(found, on_cpu(samples, rate_hz, config), sigma)


@pytest.mark.parametrize(
    "mistake",
    [
        replace(YAMNET, log_offset=0.00101),
        replace(YAMNET, mel_min_hz=125.1),
        replace(YAMNET, fft_samples=400),
    ],
)
@pytest.mark.parametrize("rate_hz", [8_000, 44_100])
def test_the_tolerance_catches_a_wrong_setting(rate_hz: int, mistake: FrontendConfig) -> None:
    samples = noise(3 * rate_hz)
    pieces = pieces_of(samples, rate_hz, YAMNET, as_waveform=True)
    expected = on_cpu(samples, rate_hz, YAMNET)
    found = on_device(pieces, mistake)
    with pytest.raises(AssertionError, match=r"differ by more than allowed|mean difference is"):
        assert_rounding(found, expected, patches_sigma(samples, rate_hz, YAMNET))


@given(
    rate_hz=st.sampled_from([8_000, 11_025, 16_000, 22_050, 44_100, 44_101, 96_000]),
    name=st.sampled_from(sorted(CONFIGS)),
    duration_s=st.floats(0.001, 20),
    budgets=st.lists(st.floats(0, 9), min_size=1, max_size=3),
    sizes=st.lists(st.integers(1_000, 90_000), min_size=1, max_size=3),
)
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_however_it_is_cut(
    rate_hz: int, name: str, duration_s: float, budgets: list[float], sizes: list[int]
) -> None:
    config = CONFIGS[name]
    samples = noise(max(1, round(duration_s * rate_hz)))
    pieces = pieces_of(
        samples, rate_hz, config, as_waveform=True, budgets=tuple(budgets), sizes=tuple(sizes)
    )
    found, expected = on_device(pieces, config), on_cpu(samples, rate_hz, config)
    assert_rounding(found, expected, patches_sigma(samples, rate_hz, config))


def test_what_is_held_does_not_grow() -> None:
    minutes = WaveformReader(blocks_of(noise(44_100 * 120), [65_536]), 44_100, YAMNET)
    sizes = []
    while not minutes.is_finished:
        piece = minutes.read(10.0)
        sizes.append((len(piece.samples), len(minutes._held)))
    assert len(sizes) > 10
    assert max(taken for taken, _ in sizes) < 13 * 44_100
    assert max(held for _, held in sizes) < 1.1 * 44_100


@pytest.mark.parametrize("device", DEVICES)
def test_scores_are_those_of_the_cpu(
    yamnet_weights: ReadyWeights, assets: Path, device: Any
) -> None:
    """Docs: of recordings, within 1e-4."""
    scorer = Scorer(BUNDLE, yamnet_weights, ComputeOptions(device, "torch"))
    clips = sorted((assets / "esc10-dev").rglob("*.ogg"))[::4]
    assert len(clips) >= 5
    heard, framed = [], []
    for path in clips:
        for as_waveform, found in ((True, heard), (False, framed)):
            reader = SharedReader(Recording(os.fsencode(path)), [(YAMNET, as_waveform)])
            [[piece]] = reader.read(1e9)
            found.append(piece)
            reader.close()
    for mine, theirs in zip(scorer.score(heard, YAMNET), scorer.score(framed, YAMNET), strict=True):
        assert_within(sigmoid(mine), sigmoid(theirs), END_TO_END_BAR)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("rate_hz", [8_000, 11_025, 22_050, 48_000])
def test_scores_at_other_rates(
    yamnet_weights: ReadyWeights, assets: Path, rate_hz: int, device: Any
) -> None:
    scorer = Scorer(BUNDLE, yamnet_weights, ComputeOptions(device, "torch"))
    for path in sorted((assets / "esc10-dev").rglob("*.ogg"))[::13]:
        samples, own_hz = soundfile.read(path, dtype="float32")
        samples = soxr.resample(samples, own_hz, rate_hz)
        heard, framed = (
            scorer.score(pieces_of(samples, rate_hz, YAMNET, as_waveform=as_waveform), YAMNET)[0]
            for as_waveform in (True, False)
        )
        # One of them is silent for seconds, at every rate.
        assert_within(sigmoid(heard), sigmoid(framed), EMPTY_BAR)


@pytest.mark.parametrize("device", DEVICES)
def test_golden_scores(yamnet_weights: ReadyWeights, assets: Path, device: Any) -> None:
    golden = np.load(assets / "golden" / "yamnet_golden.npz")
    scorer = Scorer(BUNDLE, yamnet_weights, ComputeOptions(device, "torch"))
    for name in map(str, golden["__names__"]):
        samples = golden[f"{name}/waveform"]
        pieces = pieces_of(samples, 16_000, YAMNET, as_waveform=True)
        sigma = patches_sigma(samples, 16_000, YAMNET, golden["mel_matrix"] - htk_matrix())
        heard = on_device(pieces, YAMNET, device)
        assert_rounding(heard, golden[f"{name}/patches"], sigma, name)
        found = sigmoid(np.concatenate(scorer.score(pieces, YAMNET)))
        bar = TONE_BAR if name in {"chirp", "sine440"} else END_TO_END_BAR
        assert_within(found, golden[f"{name}/scores"], bar, name)


def test_other_front_ends_are_refused() -> None:
    with pytest.raises(ValueError, match="Google's models"):
        pieces_of(noise(16_000), 16_000, PANNS.frontend, as_waveform=True)


def test_who_hears(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(networks, "_has_gpu", lambda: True)
    assert takes_waveforms(YAMNET, ComputeOptions("auto", "auto"))
    assert takes_waveforms(YAMNET, ComputeOptions("cuda", "torch"))
    assert not takes_waveforms(YAMNET, ComputeOptions("cpu", "auto"))
    assert not takes_waveforms(YAMNET, ComputeOptions("auto", "openvino"))
    # Mirrored at its two ends.
    assert not takes_waveforms(PANNS.frontend, ComputeOptions("cuda", "auto"))
    monkeypatch.setattr(networks, "_has_gpu", lambda: False)
    assert not takes_waveforms(YAMNET, ComputeOptions("auto", "auto"))


def test_no_memory_for_a_piece_is_told_in_one_line(
    yamnet_weights: ReadyWeights, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: Any, **kwargs: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    scorer = Scorer(BUNDLE, yamnet_weights, ComputeOptions("cpu", "torch"))
    monkeypatch.setattr(torch.fft, "rfft", full)
    with pytest.raises(UserError, match=r"memory is full.*--device cpu"):
        scorer.score(pieces_of(noise(16_000), 16_000, YAMNET, as_waveform=True), YAMNET)


def test_another_hop_and_a_long_clip_in_small_batches(yamnet_weights: ReadyWeights) -> None:
    scorer = Scorer(BUNDLE, yamnet_weights, ComputeOptions("cpu", "torch"))
    samples = noise(44_100 * 30)
    config = replace(YAMNET, patch_hop_frames=96)
    whole = pieces_of(samples, 44_100, config, as_waveform=True)
    parts = pieces_of(samples, 44_100, config, as_waveform=True, budgets=(3.0, 11.0))
    assert len(parts) > 3
    found, expected = (
        sigmoid(np.concatenate(scorer.score(pieces, config))) for pieces in (parts, whole)
    )
    assert_within(found, expected, END_TO_END_BAR)


def test_a_file_by_its_reader(tmp_path: Path) -> None:
    path = tmp_path / "a.flac"
    soundfile.write(path, np.stack([noise(90_000), noise(90_000, 1)], axis=1), 44_100)
    reader = SharedReader(Recording(os.fsencode(path)), [(YAMNET, True)])
    try:
        [[piece]] = reader.read(60.0)
        assert isinstance(piece, WaveformPiece)
        assert (piece.rate_hz, piece.n_patches, reader.is_finished) == (44_100, 4, True)
    finally:
        reader.close()
