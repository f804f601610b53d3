"""Train the student on mixtures with the teacher's logits; resumable at any moment.

Matrices are trained with Muon, the rest with AdamW; the learning rate is constant for most of the
training and falls to 0 over its last part, so that a training can be lengthened before that.

Source: K. Jordan et al., Muon, 2024 (https://kellerjordan.github.io/posts/muon/); the
coefficients of the iteration are from there.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from audioset_core.models.pocket import Pocket
from training.measures import AUDIBLE, agreement
from training.mixtures import as_log_mel
from training.places import Places

_BATCH = 256
_SHARDS_AT_ONCE = 3
_MUON_RATE, _ADAM_RATE, _WEIGHT_DECAY = 0.03, 2e-3, 0.01
_WARM_UP_SHARE, _FALLING_SHARE = 0.02, 0.35
# A last part, in which scores that are heard count more: a student that is not sure says the mean,
# which lies below what the teacher says where the teacher hears something.
_TUNING_SHARE, _TUNING_RATE, _TUNING_WEIGHT = 0.25, 0.3, 3.0
_AVERAGE = 0.999
_SAVE_EVERY_S, _MEASURE_EVERY_S = 120.0, 300.0
# Logits below this are noise of the teacher's floor; what lies above counts for more.
_FLOOR = -8.0
_SQUARE_WEIGHT = 0.05


def loss(student: Tensor, teacher: Tensor, heard_weight: float = 1.0) -> Tensor:
    """Cross-entropy on the teacher's scores, and squared logit error where anything is heard.

    Scores of the teacher's from 0.1 on count ``heard_weight`` times in the cross-entropy.

    Shape: both ``[B, n_classes]`` logits -> scalar.
    """
    scores = teacher.sigmoid()
    entropy = functional.binary_cross_entropy_with_logits(student, scores, reduction="none")
    entropy = torch.where(scores >= AUDIBLE, heard_weight * entropy, entropy)
    # The floor is one value: only a student that rises above it is pulled back.
    difference = student.clamp(min=_FLOOR) - teacher.clamp(min=_FLOOR)
    weight = 0.05 + torch.sigmoid(teacher + 3)
    return (entropy + _SQUARE_WEIGHT * weight * difference**2).sum(dim=1).mean()


class Muon(torch.optim.Optimizer):
    """Momentum whose step is made orthogonal: every direction of a matrix learns alike."""

    def __init__(self, parameters: list[nn.Parameter]) -> None:
        super().__init__(parameters, {"lr": _MUON_RATE, "momentum": 0.95})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override] # noqa: ARG002
        """Update every matrix; kernels of convolutions count as matrices of their filters."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["momentum"] = torch.zeros_like(parameter)
                momentum = state["momentum"].mul_(group["momentum"]).add_(parameter.grad)
                ahead = parameter.grad.add(momentum, alpha=group["momentum"])
                flat = ahead.reshape(len(ahead), -1)
                step = orthogonal(flat) * max(1, flat.shape[0] / flat.shape[1]) ** 0.5
                parameter.mul_(1 - group["lr"] * _WEIGHT_DECAY)
                parameter.add_(step.view_as(parameter), alpha=-group["lr"])


def orthogonal(matrix: Tensor, n_steps: int = 5) -> Tensor:
    """The nearest matrix with singular values near 1, by an iteration of Newton and Schulz."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x: Tensor = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    x = (x / (x.norm() + 1e-7)).bfloat16()
    for _ in range(n_steps):
        square = x @ x.T
        x = a * x + (b * square + c * square @ square) @ x
    x = x.float()
    return x.T if matrix.shape[0] > matrix.shape[1] else x


def batches(folder: Path, rng: np.random.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    """Mixtures and logits without end, from the shards that were used least so far.

    Shards that are made meanwhile are taken in.
    """
    used: Counter[str] = Counter()
    while True:
        names = [path.name for path in folder.glob("*.npz") if not path.name.startswith(".")]
        names.sort(key=lambda name: (used[name], rng.random()))
        chosen = names[:_SHARDS_AT_ONCE]
        used.update(chosen)
        loaded = [np.load(folder / name) for name in chosen]
        patches = np.concatenate([shard["patches"] for shard in loaded])
        logits = np.concatenate([shard["logits"] for shard in loaded])
        order = rng.permutation(len(patches))
        for at in range(0, len(order) - _BATCH + 1, _BATCH):
            rows = order[at : at + _BATCH]
            yield (
                torch.from_numpy(as_log_mel(patches[rows])),
                torch.from_numpy(logits[rows].astype(np.float32)),
            )


def rate(seen: int, n_samples: int) -> float:
    """The learning rate's factor: up, constant, down to 0; once more down in the tuning."""
    if seen >= n_samples:
        left = 1 - (seen - n_samples) / (_TUNING_SHARE * n_samples)
        return max(0.0, _TUNING_RATE * left)
    up = seen / (_WARM_UP_SHARE * n_samples)
    down = (n_samples - seen) / (_FALLING_SHARE * n_samples)
    return max(0.0, min(1.0, up, down))


def train(places: Places, n_samples: int, *, seed: int = 0) -> None:
    """Train until so many mixtures were seen, then tune on a quarter as many.

    Goes on from the checkpoint if there is one.
    """
    torch.manual_seed(seed)
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    network = Pocket().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    averaged = Pocket().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    matrices = [
        p for name, p in network.named_parameters() if p.ndim > 1 and not name.startswith("class")
    ]
    others = [p for p in network.parameters() if not any(p is m for m in matrices)]
    optimisers: list[torch.optim.Optimizer] = [
        Muon(matrices), torch.optim.AdamW(others, lr=_ADAM_RATE, weight_decay=0.0)
    ]  # fmt: skip
    first_rates = [_MUON_RATE, _ADAM_RATE]
    seen = 0
    if places.checkpoint.exists():
        state = torch.load(places.checkpoint, weights_only=True)
        network.load_state_dict(state["network"])
        averaged.load_state_dict(state["averaged"])
        for optimiser, kept in zip(optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(kept)
        seen = state["seen"]
    else:
        _set_prior(network, places)
        averaged.load_state_dict(network.state_dict())
    saved = measured = begun = time.monotonic()
    begun_at, total = seen, 0.0
    for patches, teacher in batches(places.mixtures("train"), np.random.default_rng(seed + seen)):
        for optimiser, first in zip(optimisers, first_rates, strict=True):
            optimiser.param_groups[0]["lr"] = first * rate(seen, n_samples)
        network.train()
        with torch.autocast("cpu", torch.bfloat16):
            logits, _ = network(patches)
        found = loss(logits.float(), teacher, _TUNING_WEIGHT if seen >= n_samples else 1.0)
        for optimiser in optimisers:
            optimiser.zero_grad()
        found.backward()  # type: ignore[no-untyped-call]
        for optimiser in optimisers:
            optimiser.step()
        seen += len(patches)
        _average(averaged, network, min(_AVERAGE, (seen / _BATCH + 1) / (seen / _BATCH + 10)))
        now_lost = found.item()
        total = 0.98 * total + 0.02 * now_lost if total else now_lost
        now, is_done = time.monotonic(), seen >= (1 + _TUNING_SHARE) * n_samples
        if now - saved > _SAVE_EVERY_S or is_done:
            _save(places, network, averaged, optimisers, seen)
            saved = now
        if now - measured > _MEASURE_EVERY_S or is_done:
            measured = now
            speed = (seen - begun_at) / (now - begun)
            line = agreement(averaged, places.mixtures("held-out"))
            print(f"{seen} seen, {speed:.0f}/s, loss {total:.3f}, {line}", flush=True)
        if is_done:
            return


def _set_prior(network: Pocket, places: Places) -> None:
    """The last layer begins with the mean logit of each class."""
    first = min(places.mixtures("train").glob("[0-9]*.npz"))
    with torch.no_grad():
        network.classifier.bias.copy_(
            torch.from_numpy(np.load(first)["logits"].astype(np.float32).mean(axis=0))
        )
        network.classifier.weight.mul_(0.5)


@torch.no_grad()
def _average(averaged: nn.Module, network: nn.Module, keep: float) -> None:
    for kept, new in zip(
        averaged.state_dict().values(), network.state_dict().values(), strict=True
    ):
        if kept.dtype.is_floating_point:
            kept.lerp_(new, 1 - keep)
        else:
            kept.copy_(new)


def _save(
    places: Places,
    network: nn.Module,
    averaged: nn.Module,
    optimisers: list[torch.optim.Optimizer],
    seen: int,
) -> None:
    passing = places.checkpoint.with_suffix(".part")
    torch.save(
        {
            "network": network.state_dict(),
            "averaged": averaged.state_dict(),
            "optimisers": [optimiser.state_dict() for optimiser in optimisers],
            "seen": seen,
        },
        passing,
    )
    passing.replace(places.checkpoint)
