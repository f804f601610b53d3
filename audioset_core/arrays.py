"""Types of arrays that signatures name (docstrings have the shapes), and long arrays in blocks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
Floats = NDArray[np.floating[Any]]
"""float16, float32 or float64; a score file holds float16 or float32."""

Scalar = TypeVar("Scalar", bound=np.generic)


def unit_rows(rows: Floats) -> F64:
    """The rows scaled to length one; those of length zero stay zero.

    >>> unit_rows(np.array([[3.0, 4.0], [0.0, 0.0]])).tolist()
    [[0.6, 0.8], [0.0, 0.0]]

    Shape:
        rows: [n, width] -> [n, width]
    """
    wide = rows.astype(np.float64)
    lengths = np.linalg.norm(wide, axis=1, keepdims=True)
    unit: F64 = wide / np.where(lengths > 0, lengths, 1.0)
    return unit


def row_blocks(
    rows: NDArray[Scalar], n_values: int = 2**20
) -> Iterator[tuple[int, NDArray[Scalar]]]:
    """(number of the first row, some rows) until all rows have come, about `n_values` at a time.

    Memory stays flat where `rows` is a memory-mapped file.

    Shape:
        rows: [n, width] -> [n_some, width] each
    """
    size = max(1, n_values // max(1, rows.shape[1]))
    for first in range(0, len(rows), size):
        yield first, rows[first : first + size]
