"""How well a student agrees with its teacher on held-out mixtures."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from audioset_core.models.folding import fold_batch_norm
from audioset_core.models.pocket import Pocket
from audioset_core.scores.pooling import sigmoid
from training.mixtures import as_log_mel

AUDIBLE = 0.1


@dataclass(frozen=True, slots=True)
class Agreement:
    """Of scores, where the teacher's is at least 0.1."""

    top_1: float
    """Share of patches whose best class is the teacher's."""
    error: float
    """Mean absolute difference of scores."""
    bias: float
    """Mean difference, student less teacher."""

    def __str__(self) -> str:
        return f"top-1 {self.top_1:.3f}, error {self.error:.4f}, bias {self.bias:+.4f}"


def compare(student: NDArray[np.float32], teacher: NDArray[np.float32]) -> Agreement:
    """Shape: both ``[n, n_classes]`` scores."""
    is_audible = teacher >= AUDIBLE
    difference = (student - teacher)[is_audible]
    top_1 = float((student.argmax(axis=1) == teacher.argmax(axis=1)).mean())
    return Agreement(top_1, float(np.abs(difference).mean()), float(difference.mean()))


def agreement(network: Pocket, folder: Path) -> Agreement:
    """Measure on the first shard of a folder of mixtures."""
    logits, teacher = outputs(network, folder, n_shards=1)
    return compare(sigmoid(logits), teacher)


def outputs(
    network: Pocket, folder: Path, n_shards: int | None = None
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Logits of the network and scores of the teacher, of a folder's first shards or of all."""
    folded = fold_batch_norm(copy.deepcopy(network).eval())
    logits, teachers = [], []
    for path in sorted(folder.glob("[0-9]*.npz"))[:n_shards]:
        shard = np.load(path)
        teachers.append(sigmoid(shard["logits"].astype(np.float32)))
        with torch.no_grad():
            for at in range(0, len(shard["patches"]), 512):
                patches = torch.from_numpy(as_log_mel(shard["patches"][at : at + 512]))
                logits.append(folded(patches)[0].numpy())
    return np.concatenate(logits), np.concatenate(teachers)
