"""Patches that came before: never a second time through the network, and not a bit different."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from audioset_core.features.config import FRAME_MN
from audioset_core.features.config import YAMNET as FRONTEND
from audioset_core.features.log_mel import log_mel, patches
from audioset_core.features.patch_reader import LogMelPiece
from audioset_core.inference import repeats as repeats_module
from audioset_core.inference.interface import ComputeOptions
from audioset_core.inference.repeats import Repeats
from audioset_core.inference.scorer import Scorer
from audioset_core.models.registry import BUNDLES, YAMNET
from audioset_core.weights.locate import ReadyWeights

BATCH = YAMNET.cpu_batch_patches


@pytest.fixture(scope="module", params=["torch", "openvino"])
def scorer(request: pytest.FixtureRequest, yamnet_weights: ReadyWeights) -> Scorer:
    return Scorer(YAMNET, yamnet_weights, ComputeOptions("cpu", request.param))


@pytest.fixture
def n_computed(scorer: Scorer, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The patches of every batch, without the zeros that fill it."""
    counts: list[int] = []
    forward = scorer.network.forward

    def counting(batch: Any) -> Any:
        counts.append(int(np.asarray(batch).any(axis=(1, 2)).sum()))
        return forward(batch)

    monkeypatch.setattr(scorer.network, "sharing", lambda _: None)  # however long it ran
    monkeypatch.setattr(scorer.network, "forward", counting)
    return counts


def sound(seconds: float, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (0.1 * rng.standard_normal(round(16_000 * seconds))).astype(np.float32)


def piece(samples: np.ndarray) -> LogMelPiece:
    return LogMelPiece(log_mel(samples, FRONTEND), FRONTEND.n_patches(len(samples)))


SILENCE = np.zeros(16_000 * 20, np.float32)
SECOND = sound(0.96)


@pytest.mark.parametrize(
    ("samples", "n_expected"),
    [
        (SILENCE, 1),
        (np.concatenate([sound(2), SILENCE, sound(2, 1), SILENCE]), 12),
        # A loop as long as the hop of two patches: but for its beginning, the padded end is new.
        pytest.param(np.tile(SECOND, 40), 3, marks=pytest.mark.slow),
        # A loop that does not fall on the patches' grid is computed.
        pytest.param(np.tile(sound(0.977), 5), 10, marks=pytest.mark.slow),
    ],
    ids=["silence", "between silences", "loop", "loop off the grid"],
)
def test_what_came_before_is_not_computed_and_has_the_same_bits(
    scorer: Scorer, n_computed: list[int], samples: np.ndarray, n_expected: int
) -> None:
    clip = piece(samples)
    (output,) = scorer.run([clip], FRONTEND, embeddings=True)
    assert sum(n_computed) == n_expected
    views = patches(clip.frames, FRONTEND)
    for row in (1, clip.n_patches // 2, clip.n_patches - 1):
        (alone,) = scorer.run([LogMelPiece(views[row].copy(), 1)], FRONTEND, embeddings=True)
        assert output.logits is not None
        assert alone.logits is not None
        np.testing.assert_array_equal(output.logits[row], alone.logits[0])
        np.testing.assert_array_equal(output.embeddings[row], alone.embeddings[0])  # type: ignore[index]


def test_recordings_repeat_each_other(scorer: Scorer, n_computed: list[int]) -> None:
    clips = [sound(9), SILENCE[: 16_000 * 9], sound(9), SILENCE]
    expected = [scorer.score([piece(samples)], FRONTEND)[0] for samples in clips]
    n_computed.clear()
    found = scorer.score([piece(samples) for samples in clips], FRONTEND)
    for mine, theirs in zip(found, expected, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert len(n_computed) == -(-(FRONTEND.n_patches(16_000 * 9) + 1) // BATCH)


def test_bytes_decide() -> None:
    """Neither zeros of either sign nor frames that are looked up by are mistaken for a repeat."""
    repeats = Repeats[int]()
    zeros = np.zeros((96, 64), np.float32)
    invalid, near = np.full_like(zeros, np.nan), zeros.copy()
    near[1, 63] = 1e-45
    given = [zeros, -zeros, invalid, near, zeros, invalid.copy(), near]
    # Patches that are looked up alike take each other's place: the zeros are computed again.
    assert [repeats.place_of(patch, at) for at, patch in enumerate(given)] == [0, 1, 2, 3, 4, 2, 6]
    assert repeats.place_of(near.copy(), 7) == 6


def test_a_few_hundred_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repeats_module, "_MOST_KEPT_BYTES", 3 * 96 * 64 * 4)
    repeats = Repeats[int]()
    given = [np.full((96, 64), value, np.float32) for value in (0, 1, 2, 0, 3, 1, 0)]
    # The one seen longest ago is forgotten: of 0, 1, 2 and 3 the 1, not the 0.
    assert [repeats.place_of(patch, at) for at, patch in enumerate(given)] == [0, 1, 2, 0, 4, 5, 0]


def test_steps_of_a_padded_window(monkeypatch: pytest.MonkeyPatch) -> None:
    """A last window that is cut short is no example for a whole one."""

    class Network:
        device, engine, batch_patches, n_lanes = "cpu", "fake", 2, 1

        def enter_lane(self) -> None: ...

        def batches(self, count: int, config: Any) -> Any:
            return np.zeros((count, 2, config.patch_frames, config.n_mels), np.float32)

        def patches(self, piece: LogMelPiece, config: Any) -> Any:
            return patches(piece.frames, config)

        def forward(self, batch: np.ndarray) -> Any:
            steps = batch.mean(axis=(1, 2))[:, None, None] + np.arange(4.0)[:, None]
            return steps.repeat(447, 2), steps.repeat(960, 2)

        def sharing(self, _config: Any) -> None: ...

    monkeypatch.setattr("audioset_core.inference.scorer.open_network", lambda *_, **__: Network())
    config = replace(FRAME_MN, patch_frames=10, patch_hop_frames=10, steps_per_patch=4)
    scorer = Scorer(BUNDLES["frame_mn10"], ReadyWeights("", "frame_mn10", "", ""))  # type: ignore[arg-type]
    ones = np.ones((30, 128), np.float32)
    pieces = [LogMelPiece(ones[:10], 1, 3), LogMelPiece(ones, 3, 2), LogMelPiece(ones[:20], 2)]
    found = scorer.score(pieces, config)
    whole = [1.0, 2, 3, 4]
    assert [list(logits[:, 0]) for logits in found] == [[1], [*whole, *whole, 1, 2], whole * 2]
