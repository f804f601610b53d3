"""The averaged network of a training to the file that lies in the package: float16 matrices."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from audioset_core.models.pocket import Pocket
from audioset_core.scores.pooling import sigmoid
from audioset_core.storage.atomic_files import write_atomically
from audioset_core.weights.convert import file_sha256, safetensors_bytes, tensors_sha256
from training.measures import compare, outputs
from training.places import Places

_STEPS = 30


def export(places: Places, target: Path | None = None) -> Path:
    """Write the weights; matrices in float16, what batch norms hold in float32.

    float16 moves a score by less than 0.002. All logits are shifted by one number, so that where
    the teacher hears something scores are neither too low nor too high on the held-out mixtures.
    """
    state = torch.load(places.checkpoint, weights_only=True)["averaged"]
    network = Pocket()
    network.load_state_dict(state)
    by = shift_of(*outputs(network, places.mixtures("held-out")))
    state["classifier.bias"] += by
    print(f"logits shifted by {by:+.2f}", flush=True)
    arrays = {
        name: np.ascontiguousarray(
            array.numpy(), dtype=np.float16 if array.ndim > 1 else np.float32
        )
        for name, array in state.items()
        if not name.endswith("num_batches_tracked")
    }
    metadata = {
        "model": "pocket",
        "version": f"1-{tensors_sha256(arrays)[:12]}",
        "has_scores": "true",
        "source_sha256": file_sha256(places.checkpoint),
        "source_name": places.checkpoint.name,
    }
    target = target or places.weights
    write_atomically(target, safetensors_bytes(arrays, metadata))
    return target


def shift_of(logits: NDArray[np.float32], teacher: NDArray[np.float32]) -> float:
    """What added to all logits takes the bias away where the teacher's score is 0.1 or more.

    Shape: both ``[n, n_classes]``, logits and scores.
    """
    low, high = -4.0, 4.0
    for _ in range(_STEPS):
        middle = (low + high) / 2
        if compare(sigmoid(logits + np.float32(middle)), teacher).bias < 0:
            low = middle
        else:
            high = middle
    return (low + high) / 2
