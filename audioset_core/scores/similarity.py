"""The clips most like one, by the cosine between vectors of their patches; exact, in one pass.

Each clip's matrix is read in blocks (memory-mapped), so memory stays flat whatever its length.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from audioset_core.arrays import F64, Floats, row_blocks, unit_rows
from audioset_core.scores.pooling import sigmoid

Prepare = Callable[[Floats], Floats]


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A clip and its cosine; `patch` is the one that is compared, None for the mean of all."""

    clip: str
    cosine: float
    patch: int | None


def prepare_of(kind: Literal["embeddings", "scores"]) -> Prepare:
    """What is done with a file's rows before they are compared: logits become scores."""
    return sigmoid if kind == "scores" else _as_they_are


def mean_vector(matrix: Floats, prepare: Prepare) -> F64:
    """The mean of the patches' vectors; zeros without patches.

    Shape:
        matrix: [n_patches, dim] -> [dim]
    """
    total = np.zeros(matrix.shape[1])
    for _, rows in row_blocks(matrix):
        total += prepare(rows).sum(axis=0, dtype=np.float64)
    return total / max(1, len(matrix))


def nearest(
    query: F64,
    clips: Iterable[tuple[str, Floats]],
    *,
    top: int,
    by_patch: bool,
    prepare: Prepare,
) -> list[Neighbour]:
    """The `top` clips whose mean, or whose best patch, points most in the query's direction.

    Among equals the lower clip id, and the earlier patch. Clips without patches are left out.

    Shape:
        query: [dim]; clips: [n_patches, dim] each
    """
    wanted = unit_rows(query[np.newaxis])[0]
    found = (
        Neighbour(clip, *_compared(wanted, matrix, prepare, by_patch=by_patch))
        for clip, matrix in clips
        if len(matrix)
    )
    return heapq.nsmallest(top, found, key=lambda each: (-each.cosine, each.clip))


def _compared(
    wanted: F64, matrix: Floats, prepare: Prepare, *, by_patch: bool
) -> tuple[float, int | None]:
    """The cosine of the best patch, and which that is; or of the mean, and None."""
    if by_patch:
        return _best_patch(wanted, matrix, prepare)
    mean = mean_vector(matrix, prepare)
    return float(unit_rows(mean[np.newaxis])[0] @ wanted), None


def _best_patch(wanted: F64, matrix: Floats, prepare: Prepare) -> tuple[float, int]:
    best, patch = -np.inf, 0
    for first, rows in row_blocks(matrix):
        cosines = unit_rows(prepare(rows)) @ wanted
        place = int(cosines.argmax())
        if cosines[place] > best:
            best, patch = float(cosines[place]), first + place
    return best, patch


def _as_they_are(vectors: Floats) -> Floats:
    return vectors
