"""Models by engine by precision side by side: what each costs on one core, against YAMNet's.

    python -m benchmarks.models [--minutes 5] [--rounds 3] [--precision P ...] [-- MODEL ...]

The sound is synthetic noise at each model's rate, so that neither decoding nor resampling counts.
Networks have the weights at hand, or random ones: a network's cost does not depend on them. All
models take turns in one process; the least CPU time of the rounds counts. "of float32": how many
times as fast as the same network in float32 by the same engine. "of YAMNet": how many hours of
audio the model labels while YAMNet labels one with OpenVINO in float32, each at its own hop. What a
model or this processor lacks is left out.

    python -m benchmarks.models --overlap [--rounds 5] [yamnet vggish panns]

What OpenVINO spares where patches overlap or come again, in CPU time, which other programs on the
machine change little. Three ways take turns: every patch by itself, consecutive patches that share
layers, and a recording of silence.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # one core is meant

import argparse
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import get_args

import numpy as np

from audioset_core.errors import UserError, WeightsError
from audioset_core.features.config import FrontendConfig
from audioset_core.features.log_mel import log_mel, patches
from audioset_core.features.patch_reader import LogMelPiece
from audioset_core.inference import openvino_engine
from audioset_core.inference.interface import ComputeOptions, EngineName, Forward, Precision
from audioset_core.inference.repeats import Repeats
from audioset_core.inference.scorer import Output, Scorer, _known
from audioset_core.models.registry import BUNDLES, ModelBundle
from audioset_core.weights.locate import ReadyWeights, find_source, prepare


@dataclass(slots=True)
class Turn:
    """One model, its input, and the CPU seconds that its stages took, by round."""

    bundle: ModelBundle
    precision: Precision
    scorer: Scorer
    samples: np.ndarray
    front_end_s: list[float] = field(default_factory=list)
    network_s: list[float] = field(default_factory=list)

    @property
    def network(self) -> tuple[str, str]:
        """Model and engine."""
        return self.bundle.name, self.scorer.network.engine

    def run(self) -> None:
        """One round."""
        config = self.bundle.frontend
        began = time.process_time()
        frames = log_mel(self.samples, config)
        made = time.process_time()
        list(self.scorer.run([LogMelPiece(frames, config.n_patches(len(self.samples)))], config))
        self.front_end_s.append(made - began)
        self.network_s.append(time.process_time() - made)


ENGINES: tuple[EngineName, ...] = ("openvino", "torch")
# Seconds from patch to patch, and patches in a round.
OVERLAPPING = {
    "yamnet": ((0.96, 0.48, 0.24, 0.16), 512),
    "vggish": ((0.96, 0.48, 0.24), 64),
    "panns": ((2.0, 1.0, 0.5), 32),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("models", nargs="*", metavar="MODEL", default=list(BUNDLES))
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--rounds", type=int, default=3)
    precisions = get_args(Precision)
    parser.add_argument("--precision", nargs="+", choices=precisions, default=precisions)
    parser.add_argument("--overlap", action="store_true")
    options = parser.parse_args()
    if options.overlap:
        chosen = [name for name in options.models if name in OVERLAPPING]
        overlap({name: OVERLAPPING[name] for name in chosen}, options.rounds)
        return
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        turns = []
        for name in dict.fromkeys(("yamnet", *options.models)):
            bundle = BUNDLES[name]
            n_samples = round(options.minutes * 60 * bundle.frontend.sample_rate_hz)
            samples = (0.1 * rng.standard_normal(n_samples)).astype(np.float32)
            ready = weights(bundle, Path(folder))
            precisions = dict.fromkeys(("float32", *options.precision))
            for engine, precision in product(ENGINES, precisions):
                compute = ComputeOptions("cpu", engine, precision)
                with suppress(UserError):
                    scorer = Scorer(bundle, ready, compute, n_lanes=1)
                    turns.append(Turn(bundle, precision, scorer, samples))
        for _ in range(options.rounds):
            for turn in turns:
                turn.run()
    print(f"{'model':<12}{'engine':<10}{'precision':<10}{'hop':>6}{'front end':>11}{'network':>10}"
          f"{'of float32':>12}{'of YAMNet':>11}")  # fmt: skip
    per_hour = 60 / options.minutes
    yamnet_s = min(turns[0].front_end_s) + min(turns[0].network_s)
    float32_s = {t.network: min(t.network_s) for t in turns if t.precision == "float32"}
    for turn in turns:
        front_end_s, network_s = min(turn.front_end_s), min(turn.network_s)
        print(
            f"{turn.bundle.name:<12}{turn.network[1]:<10}{turn.precision:<10}"
            f"{turn.bundle.frontend.patch_hop_s:>5g}s{front_end_s * per_hour:>9.1f} s"
            f"{network_s * per_hour:>8.1f} s{float32_s[turn.network] / network_s:>11.2f}x"
            f"{yamnet_s / (front_end_s + network_s):>10.2f}x"
        )


def overlap(chosen: dict[str, tuple[tuple[float, ...], int]], rounds: int) -> None:
    """A table of CPU seconds per 1,000 patches, and what is spared; medians of the rounds."""
    openvino_engine._SECONDS_BEFORE_SHARING = 0
    print(
        f"{'model':<10}{'hop':>6}{'apart':>10}{'shared':>10}{'spared':>9}{'silence':>10}{'check':>9}"
    )
    for name, (hops, n_patches) in chosen.items():
        with tempfile.TemporaryDirectory() as folder:
            ready = weights(BUNDLES[name], Path(folder))
            compute = ComputeOptions("cpu", "openvino")
            scorer = Scorer(BUNDLES[name], ready, compute, n_lanes=1)
        for hop_s in hops:
            config = BUNDLES[name].framed(patch_hop_s=hop_s, framing="reference")
            n_frames = (n_patches - 1) * config.patch_hop_frames + config.patch_frames
            frames = np.random.default_rng(0).normal(-4, 2, (n_frames, config.n_mels))
            noise = LogMelPiece(frames.astype(np.float32), n_patches)
            silence = LogMelPiece(np.full_like(noise.frames, -6.9), n_patches)
            sharing = type(scorer.network).sharing(scorer.network, config)
            ways = ((noise, None), (noise, sharing), (silence, None))
            spent = [[_cpu_s(scorer, config, *way) for way in ways] for _ in range(rounds)]
            began = time.process_time()
            _known(patches(noise.frames, config), Output(None, None), Repeats())
            check_s = time.process_time() - began
            apart, shared, silent = (s / n_patches * 1e3 for s in np.median(spent, axis=0))
            spared = np.median([1 - each[1] / each[0] for each in spent])
            print(
                f"{name:<10}{hop_s:>5g}s{apart:>8.2f} s{shared:>8.2f} s{spared:>9.1%}"
                f"{silent:>8.3f} s{check_s / n_patches * 1e3 / apart:>9.2%}",
                flush=True,
            )


def _cpu_s(
    scorer: Scorer, config: FrontendConfig, piece: LogMelPiece, sharing: Forward | None
) -> float:
    scorer.network.sharing = lambda _: sharing  # type: ignore[method-assign]
    began = time.process_time()
    scorer.run([piece], config)
    return time.process_time() - began


def weights(bundle: ModelBundle, folder: Path) -> ReadyWeights:
    """Those at hand, or random ones."""
    try:
        if find_source(bundle) is not None:
            return prepare(bundle)
    except WeightsError:
        pass
    from safetensors.torch import save_file

    path = folder / f"{bundle.name}.safetensors"
    save_file({name: array.contiguous() for name, array in bundle.build().state_dict().items()},
              path, metadata={"model": bundle.name})  # fmt: skip
    return ReadyWeights(path, bundle.name, "random", "")


if __name__ == "__main__":
    main()
