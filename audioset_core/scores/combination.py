"""The scores of several models for one recording as those of one: the mean of their logits.

Models differ in their rows: YAMNet has one of 0.96 s every 0.48 s, others one of 10 s every 7.5 s.
The combined rows are those of the finest part. A coarser part gives each of them the mean of its
own rows whose windows cover the row's centre; where none does, the row with the nearest centre.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from audioset_core.arrays import F32, F64, Floats
from audioset_core.scores.pooling import BLOCK_VALUES

Indices = npt.NDArray[np.intp]

# Of a row: times are decimal fractions, which binary ones only come close to.
_SLACK = 1e-6


@dataclass(frozen=True, slots=True)
class Grid:
    """Row `i` of a score file stands for `window_s` seconds from `i * hop_s` on."""

    hop_s: float
    window_s: float


@dataclass(frozen=True, slots=True)
class Part:
    """One model's logits of a recording, and the straight line that calibrates them.

    Shape:
        logits: [n_rows, n_own_classes], float16 or float32, at least one row
        columns: [n_own_classes], the combined class of each own class, none twice
    """

    logits: Floats
    grid: Grid
    columns: Indices
    scale: float = 1.0
    shift: float = 0.0


def finest(grids: Sequence[Grid]) -> int:
    """Which grid the combined rows have: the least hop, of equal ones the least window.

    >>> finest([Grid(7.5, 10.0), Grid(0.48, 0.96)])
    1
    """
    return min(range(len(grids)), key=lambda k: (grids[k].hop_s, grids[k].window_s))


def united(classes: Sequence[Sequence[str]]) -> tuple[tuple[str, ...], tuple[Indices, ...]]:
    """The classes of all parts, those of the first part first; and where each part's are.

    >>> united([["/dog", "/cat"], ["/owl", "/dog"]])
    (('/dog', '/cat', '/owl'), (array([0, 1]), array([2, 0])))
    """
    mids = tuple(dict.fromkeys(mid for own in classes for mid in own))
    place = {mid: k for k, mid in enumerate(mids)}
    return mids, tuple(np.array([place[mid] for mid in own], dtype=np.intp) for own in classes)


def covering_rows(rows: Indices, grid: Grid, other: Grid, n_other: int) -> Indices:
    """First and last row (inclusive) of another grid that stand for each row of this one.

    >>> yamnet, mn10 = Grid(0.48, 0.96), Grid(7.5, 10.0)
    >>> covering_rows(np.array([0, 15, 25, 900]), yamnet, mn10, 2).tolist()
    [[0, 0], [0, 1], [1, 1], [1, 1]]

    Shape:
        rows: [n] -> [n, 2], within `0 .. n_other - 1`
    """
    if grid == other:
        first = last = rows
    else:
        centre_s = rows * grid.hop_s + grid.window_s / 2
        last = np.floor(centre_s / other.hop_s + _SLACK)
        first = np.floor((centre_s - other.window_s) / other.hop_s + _SLACK) + 1
        nearest = np.round((centre_s - other.window_s / 2) / other.hop_s)
        is_covered = first <= last
        first, last = np.where(is_covered, first, nearest), np.where(is_covered, last, nearest)
    return np.clip(np.stack([first, last], axis=1), 0, n_other - 1).astype(np.intp)


def combined_blocks(
    parts: Sequence[Part], n_classes: int, block_values: int = BLOCK_VALUES
) -> Iterator[F32]:
    """The combined logits, block after block of rows: of each class the mean of the parts with it.

    Nothing is held but a block, so that the parts may be memory-mapped files of any length, and
    a row does not depend on the block that it lies in.

    Shape:
        [n_some, n_classes] each; together as many rows as the finest part
    """
    basis = parts[finest([part.grid for part in parts])]
    n_models = np.zeros(n_classes)
    for part in parts:
        n_models[part.columns] += 1
    n_rows, size = len(basis.logits), max(1, block_values // max(1, n_classes))
    for first in range(0, n_rows, size):
        rows = np.arange(first, min(first + size, n_rows))
        total = np.zeros((len(rows), n_classes))
        for part in parts:
            total[:, part.columns] += part.scale * _rows_for(rows, basis.grid, part) + part.shift
        yield (total / n_models).astype(np.float32)


def combined(parts: Sequence[Part], n_classes: int, dtype: npt.DTypeLike) -> Floats:
    """As `combined_blocks`, in one array of the type that is stored.

    Shape:
        [n_rows, n_classes]; infinite where float16 is too small for a value
    """
    n_rows = len(parts[finest([part.grid for part in parts])].logits)
    whole = np.empty((n_rows, n_classes), dtype=dtype)
    first = 0
    with np.errstate(over="ignore"):
        for block in combined_blocks(parts, n_classes):
            whole[first : first + len(block)] = block
            first += len(block)
    return whole


def _rows_for(rows: Indices, grid: Grid, part: Part) -> F64:
    """The part's logits for rows of the finest grid. Shape: [n, n_own_classes]."""
    spans = covering_rows(rows, grid, part.grid, len(part.logits))
    # Many fine rows lie below the same coarse ones, whose mean is computed once.
    distinct, which = np.unique(spans, axis=0, return_inverse=True)
    first, end = distinct[0, 0], distinct[:, 1].max() + 1
    # reduceat takes [start, end) pairs below the number of rows, hence one more row.
    own = np.zeros((end - first + 1, part.logits.shape[1]))
    own[:-1] = part.logits[first:end]
    bounds = (distinct - first + [0, 1]).ravel()
    sums = np.add.reduceat(own, bounds, axis=0)[::2]
    means: F64 = (sums / (distinct[:, 1:] - distinct[:, :1] + 1))[which.reshape(-1)]
    return means
