"""The clips most like one, by the cosine between vectors of their patches; exact, in one pass.

Each clip's matrix is read in blocks (memory-mapped), so memory stays flat whatever its length.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from audioset_core.arrays import F64, Floats

Prepare = Callable[[Floats], Floats]

_BLOCK_VALUES = 2**20


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A clip and its cosine; `patch` is the one that is compared, None for the mean of all."""

    clip: str
    cosine: float
    patch: int | None


def mean_vector(matrix: Floats, prepare: Prepare) -> F64:
    """The mean of the patches' vectors; zeros without patches.

    Shape:
        matrix: [n_patches, dim] -> [dim]
    """
    total = np.zeros(matrix.shape[1])
    for first in range(0, len(matrix), _rows(matrix)):
        total += prepare(matrix[first : first + _rows(matrix)]).sum(axis=0, dtype=np.float64)
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
    wanted = _unit(query[np.newaxis])[0]
    best: list[tuple[float, _Later, int | None]] = []
    for clip, matrix in clips:
        if not len(matrix):
            continue
        if by_patch:
            cosine, patch = _best_patch(wanted, matrix, prepare)
        else:
            mean = mean_vector(matrix, prepare)
            cosine, patch = float(_unit(mean[np.newaxis])[0] @ wanted), None
        entry = (cosine, _Later(clip), patch)
        if len(best) < top:
            heapq.heappush(best, entry)
        elif entry[:2] > best[0][:2]:
            heapq.heapreplace(best, entry)
    ordered = sorted(best, key=lambda entry: (-entry[0], entry[1].clip))
    return [Neighbour(later.clip, cosine, patch) for cosine, later, patch in ordered]


@dataclass(frozen=True, slots=True, order=False)
class _Later:
    """Clip ids so that the lower one is the greater."""

    clip: str

    def __lt__(self, other: _Later) -> bool:
        return self.clip > other.clip


def _best_patch(wanted: F64, matrix: Floats, prepare: Prepare) -> tuple[float, int]:
    best, patch = -np.inf, 0
    for first in range(0, len(matrix), _rows(matrix)):
        cosines = _unit(prepare(matrix[first : first + _rows(matrix)]).astype(np.float64)) @ wanted
        place = int(cosines.argmax())
        if cosines[place] > best:
            best, patch = float(cosines[place]), first + place
    return best, patch


def _unit(vectors: F64) -> F64:
    """Vectors of length one; those of length zero stay, and are like nothing."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: F64 = vectors / np.where(lengths > 0, lengths, 1.0)
    return unit


def _rows(matrix: Floats) -> int:
    return max(1, _BLOCK_VALUES // max(1, int(matrix.shape[1])))
