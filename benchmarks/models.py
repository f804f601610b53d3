"""The cost of every model and precision side by side, on one core, against YAMNet's in float32.

    python -m benchmarks.models [--minutes 5] [--rounds 3] [--precision P ...] [-- MODEL ...]

The sound is synthetic noise at each model's rate, so that neither decoding nor resampling counts.
Networks have the weights at hand, or random ones: a network's cost does not depend on them. All
models take turns in one process; the least CPU time of the rounds counts. "of float32": how many
times as fast as the same network in float32. "of YAMNet": how many hours of audio the model labels
while YAMNet labels one, each at its own hop. What a model or this processor lacks is left out.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # one core is meant

import argparse
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

import numpy as np

from audioset_core.errors import UserError, WeightsError
from audioset_core.features.log_mel import log_mel
from audioset_core.features.patch_reader import LogMelPiece
from audioset_core.inference.interface import ComputeOptions, Precision
from audioset_core.inference.scorer import Scorer
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

    def run(self) -> None:
        """One round."""
        config = self.bundle.frontend
        began = time.process_time()
        frames = log_mel(self.samples, config)
        made = time.process_time()
        list(self.scorer.run([LogMelPiece(frames, config.n_patches(len(self.samples)))], config))
        self.front_end_s.append(made - began)
        self.network_s.append(time.process_time() - made)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("models", nargs="*", metavar="MODEL", default=list(BUNDLES))
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--rounds", type=int, default=3)
    precisions = get_args(Precision)
    parser.add_argument("--precision", nargs="+", choices=precisions, default=precisions)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        turns = []
        for name in dict.fromkeys(("yamnet", *options.models)):
            bundle = BUNDLES[name]
            n_samples = round(options.minutes * 60 * bundle.frontend.sample_rate_hz)
            samples = (0.1 * rng.standard_normal(n_samples)).astype(np.float32)
            ready = weights(bundle, Path(folder))
            for precision in dict.fromkeys(("float32", *options.precision)):
                compute = ComputeOptions("cpu", precision=precision)
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
    float32_s = {t.bundle.name: min(t.network_s) for t in turns if t.precision == "float32"}
    for turn in turns:
        front_end_s, network_s = min(turn.front_end_s), min(turn.network_s)
        print(
            f"{turn.bundle.name:<12}{turn.scorer.network.engine:<10}{turn.precision:<10}"
            f"{turn.bundle.frontend.patch_hop_s:>5g}s{front_end_s * per_hour:>9.1f} s"
            f"{network_s * per_hour:>8.1f} s{float32_s[turn.bundle.name] / network_s:>11.2f}x"
            f"{yamnet_s / (front_end_s + network_s):>10.2f}x"
        )


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
