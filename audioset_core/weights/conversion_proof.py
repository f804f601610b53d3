"""Proof of a conversion: our PyTorch beside the published network in TensorFlow.

The published file is read twice, by `audioset_core.weights.convert` for PyTorch and,
independently, by `audioset_core.weights.tensorflow_weights` for TensorFlow. Both compute the same
synthetic sounds, and every stage is compared: log-mel, the network on the same patches, waveform
to score. Between the lines of a pure tone there is nothing but the rounding noise of the FFT, and
the logarithm shows it: no bar on the mean is applied to tones.

Source: the bars are those of docs/numerics.md.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from audioset_core.arrays import F32, F64
from audioset_core.errors import WeightsError
from audioset_core.features import log_mel as frontend
from audioset_core.models.registry import BUNDLES, find_bundle
from audioset_core.weights.convert import load_published
from audioset_core.weights.tensorflow_networks import MODELS, Reference
from audioset_core.weights.tensorflow_weights import model_of, read_weights

if TYPE_CHECKING:
    from torch import nn


LOG_MEL_MAX_BAR, LOG_MEL_MEAN_BAR = 1e-2, 1e-5
NETWORK_BAR, END_TO_END_BAR = 1e-5, 1e-4
EMBEDDING_BAR = 1e-4
"""Of a sound's largest embedding value, from patches and from the waveform."""

ALL_SOUNDS = "all"
HEADING = ("stage", "of", "sound", "largest", "bar", "mean", "bar", "")

# What `fold_batch_norm` does to each network.
_FASTER = {"yamnet": "folded", "vggish": "channels last"}
_RATE_HZ = 16_000
_SEED = 20_170_305


@dataclass(frozen=True, slots=True, kw_only=True)
class Sound:
    """A synthetic recording at 16 kHz."""

    name: str
    samples: F32
    is_tone: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """How far one stage is from the reference on one sound (or on all)."""

    stage: str
    quantity: str
    """Log-mel, scores, or embeddings (as parts of the sound's largest)."""
    sound: str
    is_tone: bool
    n_values: int
    max_difference: float
    mean_difference: float
    max_bar: float
    mean_bar: float | None
    """None: the mean is shown, and nothing is asked of it."""

    @property
    def passed(self) -> bool:
        """Whether the differences are within their bars; NaN never is."""
        mean_ok = self.mean_bar is None or self.mean_difference <= self.mean_bar
        return self.max_difference <= self.max_bar and mean_ok


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Every comparison of one weights file."""

    source_name: str
    model: str
    comparisons: tuple[Comparison, ...]

    @property
    def passed(self) -> bool:
        """Whether every comparison is within its bars."""
        return bool(self.comparisons) and all(each.passed for each in self.comparisons)

    def rows(self) -> tuple[tuple[str, ...], ...]:
        """A table as text, its heading first: each stage over all sounds, then every sound."""
        groups = self._groups()
        totals = [_row(_over_all(g), passed=all(each.passed for each in g)) for g in groups]
        return (HEADING, *totals, *(_row(each, passed=each.passed) for g in groups for each in g))

    def _groups(self) -> list[list[Comparison]]:
        """Comparisons by what they compare."""
        groups: dict[tuple[str, str], list[Comparison]] = {}
        for each in self.comparisons:
            groups.setdefault((each.stage, each.quantity), []).append(each)
        return list(groups.values())


def verify_conversion(source: Path, model: str | None = None) -> Report:
    """Convert a published weights file and compare every stage with TensorFlow's.

    Parameters:
        source: what ``audioset convert`` takes: HDF5, checkpoint, SavedModel, ``.pth``.
        model: the model's name; None goes by the names of the weights.

    Raises:
        WeightsError: the file is not convertible, or TensorFlow is not installed.
    """
    published = read_weights(source)
    model = model or model_of(published)
    if model not in MODELS:
        raise WeightsError(
            f"no reference network to compare {model!r} with; there is {', '.join(MODELS)}"
        )
    reference = MODELS[model](published)
    config = BUNDLES[model].frontend
    networks = _networks(load_published(source, model=model), model)
    made = sounds()
    ours = [frontend.log_mel(sound.samples, config) for sound in made]
    theirs = [reference.log_mel(sound.samples) for sound in made]
    stages = {
        "network": [reference.patches(frames) for frames in theirs],
        "end to end": [frontend.patches(frames, config) for frames in ours],
    }
    comparisons = [
        _comparison(
            "log-mel", "log-mel", *each, LOG_MEL_MAX_BAR,
            mean_bar=None if each[0].is_tone else LOG_MEL_MEAN_BAR,
        )
        for each in zip(made, ours, theirs, strict=True)
    ]  # fmt: skip
    comparisons += _network_comparisons(made, stages, networks, reference)
    return Report(source_name=source.name, model=model, comparisons=tuple(comparisons))


def sounds() -> tuple[Sound, ...]:
    """The sounds of the comparison: the same every time, 1 to 5 s each but one."""
    rng = np.random.default_rng(_SEED)

    def seconds(n_samples: int) -> F64:
        return np.arange(n_samples) / _RATE_HZ

    def sine(frequency_hz: float, n_samples: int) -> F64:
        return 0.5 * np.sin(2 * np.pi * frequency_hz * seconds(n_samples))

    def chirp(start_hz: float, end_hz: float, n_samples: int) -> F64:
        t = seconds(n_samples)
        rate = (end_hz - start_hz) / (n_samples / _RATE_HZ)
        return 0.5 * np.sin(2 * np.pi * (start_hz + rate * t / 2) * t)

    def noise(level: float, n_samples: int) -> F64:
        return level * rng.standard_normal(n_samples)

    impulses = np.zeros(56_000)
    impulses[rng.integers(0, 56_000, 12)] = rng.uniform(-1, 1, 12)
    swell = np.hanning(40_000) ** 4
    # Lengths on both sides of a patch's border and of a hop's.
    made = (
        ("sine 100 Hz", sine(100, 15_600), True),
        ("sine 440 Hz", sine(440, 48_000), True),
        ("sine 1 kHz", sine(1000, 23_281), True),
        ("sine 7 kHz", sine(7000, 32_000), True),
        ("chirp up", chirp(20, 7900, 80_000), True),
        ("chirp down", chirp(3000, 60, 30_000), True),
        ("noise", noise(0.1, 48_001), False),
        ("quiet noise", noise(1e-4, 23_280), False),
        ("loud noise", noise(1.5, 32_000), False),
        ("swelling noise", noise(0.5, 40_000) * swell, False),
        ("tone in noise", sine(523.25, 40_000) * swell + noise(0.01, 40_000), False),
        ("impulses", impulses, False),
        ("silence", np.zeros(32_000), False),
        ("short noise", noise(0.2, 4_800), False),
    )
    return tuple(
        Sound(name=name, samples=samples.astype(np.float32), is_tone=is_tone)
        for name, samples, is_tone in made
    )


def _networks(arrays: Mapping[str, F32], model: str) -> dict[str, nn.Module]:
    """Our network as converted, and as `audioset_core.inference.scorer` runs it."""
    import torch

    from audioset_core.models.folding import fold_batch_norm

    has_scores = model != "vggish" or any(name.startswith("head.") for name in arrays)
    network = find_bundle(model, has_scores=has_scores).build()
    network.load_state_dict({name: torch.from_numpy(array) for name, array in arrays.items()})
    network.eval()
    return {"": network, f", {_FASTER[model]}": fold_batch_norm(copy.deepcopy(network))}


def _network_comparisons(
    made: tuple[Sound, ...],
    stages: Mapping[str, list[F32]],
    networks: Mapping[str, nn.Module],
    reference: Reference,
) -> list[Comparison]:
    """The network on the reference's patches, then each side from the waveform on its own."""
    scores, embeddings = reference.network(np.concatenate(stages["network"]))
    comparisons = []
    for stage, inputs in stages.items():
        for suffix, network in networks.items():
            found = _outputs(network, np.concatenate(inputs))
            bar = NETWORK_BAR if stage == "network" else END_TO_END_BAR
            for quantity, ours, theirs, max_bar in (
                ("scores", found[0], scores, bar),
                ("embeddings", found[1], embeddings, EMBEDDING_BAR),
            ):
                if ours is None or theirs is None:
                    continue
                each = zip(
                    made, _split(ours, inputs), _split(theirs, stages["network"]), strict=True
                )
                comparisons += [
                    _comparison(f"{stage}{suffix}", quantity, *rows, max_bar) for rows in each
                ]
    return comparisons


def _outputs(network: nn.Module, inputs: F32) -> tuple[F32 | None, F32]:
    """Scores (None without classes) and embeddings."""
    import torch

    with torch.inference_mode():
        logits, embeddings = network(torch.from_numpy(inputs))
    return None if logits is None else torch.sigmoid(logits).numpy(), embeddings.numpy()


def _split(rows: F32, inputs: list[F32]) -> list[F32]:
    """Rows of one batch over all sounds, by sound."""
    return np.split(rows, np.cumsum([len(each) for each in inputs])[:-1])


def _comparison(
    stage: str,
    quantity: str,
    sound: Sound,
    found: F32,
    expected: F32,
    max_bar: float,
    *,
    mean_bar: float | None = None,
) -> Comparison:
    """Infinitely different where the shapes differ."""
    largest = mean = math.inf
    if found.shape == expected.shape:
        scale = 1.0
        if quantity == "embeddings":
            scale = float(np.abs(expected).max(initial=0.0)) or 1.0
        difference = np.abs(found.astype(np.float64) - expected) / scale
        largest = float(difference.max(initial=0.0))
        mean = float(difference.mean()) if difference.size else 0.0
    return Comparison(
        stage=stage,
        quantity=quantity,
        sound=sound.name,
        is_tone=sound.is_tone,
        n_values=expected.size,
        max_difference=largest,
        mean_difference=mean,
        max_bar=max_bar,
        mean_bar=mean_bar,
    )


def _over_all(comparisons: list[Comparison]) -> Comparison:
    n_values = sum(each.n_values for each in comparisons)
    total = sum(each.mean_difference * each.n_values for each in comparisons if each.n_values)
    return replace(
        comparisons[0],
        sound=ALL_SOUNDS,
        is_tone=False,
        n_values=n_values,
        max_difference=float(np.max([each.max_difference for each in comparisons])),
        mean_difference=total / n_values if n_values else 0.0,
        mean_bar=None,
    )


def _row(each: Comparison, *, passed: bool) -> tuple[str, ...]:
    return (
        each.stage,
        each.quantity,
        f"{each.sound}{' *' * each.is_tone}",
        f"{each.max_difference:.1e}",
        f"{each.max_bar:.0e}",
        f"{each.mean_difference:.1e}",
        "" if each.mean_bar is None else f"{each.mean_bar:.0e}",
        "ok" if passed else "FAILED",
    )
