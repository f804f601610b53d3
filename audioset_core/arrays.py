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
