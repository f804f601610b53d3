"""``--precision fast``: how far it moves YAMNet's scores, and where it is refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from audioset_core.arrays import F32, F64
from audioset_core.audio.mono import mix_to_mono
from audioset_core.audio.resample import resampled
from audioset_core.demo_sounds import DEMO_SOUNDS
from audioset_core.errors import UserError
from audioset_core.features.log_mel import LogMelStream
from audioset_core.features.patch_reader import LogMelPiece
from audioset_core.inference.engines import open_network
from audioset_core.inference.interface import ComputeOptions
from audioset_core.inference.scorer import Scorer
from audioset_core.models.registry import BUNDLES, YAMNET
from audioset_core.scores.pooling import sigmoid
from audioset_core.weights.locate import ReadyWeights

FAST = ComputeOptions("cpu", "openvino", "fast")
FLOAT32 = ComputeOptions("cpu", "openvino")


def recordings(assets: Path | None) -> Iterator[tuple[F64, int]]:
    """The 40 clips of ESC-10, or the synthesised sounds."""
    if assets is None:
        yield from ((sound.samples(), sound.sample_rate_hz) for sound in DEMO_SOUNDS)
        return
    for path in sorted((assets / "esc10-dev").glob("*/*")):
        yield soundfile.read(path, always_2d=True)


def piece(samples: F64, rate_hz: int) -> LogMelPiece:
    stream = LogMelStream(YAMNET.frontend)
    mono = mix_to_mono(samples.astype(np.float32))
    blocks = resampled(iter([mono]), rate_hz, YAMNET.frontend.sample_rate_hz)
    frames = np.concatenate([*map(stream.push, blocks), stream.finish()])
    return LogMelPiece(frames, YAMNET.frontend.n_patches(stream.n_samples))


def fast_scorer(weights: ReadyWeights) -> Scorer:
    try:
        return Scorer(YAMNET, weights, FAST)
    except UserError as error:
        if "does not compute in bfloat16" not in str(error):
            raise
        pytest.skip(str(error))


def scores(scorer: Scorer, pieces: list[LogMelPiece]) -> list[F32]:
    return [sigmoid(logits) for logits in scorer.score(pieces, YAMNET.frontend)]


@pytest.mark.slow
@pytest.mark.numeric
@pytest.mark.parametrize("sounds", ["ESC-10", "synthetic"])
def test_clip_means_and_first_classes_stay(
    yamnet_weights: ReadyWeights, assets: Path, sounds: str
) -> None:
    fast = fast_scorer(yamnet_weights)
    pieces = [piece(*each) for each in recordings(assets if sounds == "ESC-10" else None)]
    exact = scores(Scorer(YAMNET, yamnet_weights, FLOAT32), pieces)
    found = scores(fast, pieces)
    moved = [abs(a.mean(axis=0) - b.mean(axis=0)).max() for a, b in zip(found, exact, strict=True)]
    assert 1e-4 < max(moved) < 0.01
    same = np.concatenate([a.argmax(1) == b.argmax(1) for a, b in zip(found, exact, strict=True)])
    assert same.mean() >= 0.995


@pytest.mark.slow
def test_the_fast_form_is_kept_beside_and_gives_the_same_bits(
    yamnet_weights: ReadyWeights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUDIOSET_CACHE", str(tmp_path))
    sound = [piece(DEMO_SOUNDS[0].samples(), DEMO_SOUNDS[0].sample_rate_hz)]
    (first,) = scores(fast_scorer(yamnet_weights), sound)
    (exact,) = scores(Scorer(YAMNET, yamnet_weights, FLOAT32), sound)
    kept = sorted((tmp_path / "openvino").iterdir())
    assert kept[1].name == kept[0].name + "-fast1"
    (again,) = scores(fast_scorer(yamnet_weights), sound)
    np.testing.assert_array_equal(again, first)
    assert (again != exact).any()


def full_disk(*_: object, **__: object) -> None:
    raise RuntimeError("cannot write")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        # As by a version of OpenVINO that does not know the marks.
        ("_EXACT", "", r"OpenVINO \(.*\) cannot keep single layers in float32; leave it out"),
        ("openvino.save_model", full_disk, "no temporary file can be written in .*; set TMPDIR"),
    ],
)
def test_a_form_that_cannot_be_made_is_told(
    yamnet_weights: ReadyWeights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    name: str, value: object, told: str,
) -> None:  # fmt: skip
    fast_scorer(yamnet_weights)
    monkeypatch.setenv("AUDIOSET_CACHE", str(tmp_path))
    monkeypatch.setattr(f"audioset_core.inference.openvino_engine.{name}", value)
    with pytest.raises(UserError, match=told):
        open_network(YAMNET, yamnet_weights, FAST)


def test_what_has_no_fast_form_is_refused(yamnet_weights: ReadyWeights) -> None:
    with pytest.raises(UserError, match="fast: yamnet has such a form, mn04 has none"):
        open_network(BUNDLES["mn04"], yamnet_weights, FAST)
    with pytest.raises(UserError, match="add --engine openvino --device cpu"):
        open_network(YAMNET, yamnet_weights, ComputeOptions("cpu", "torch", "fast"))
