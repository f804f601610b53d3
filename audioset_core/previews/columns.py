"""The columns of a picture of a recording of any length: lowest and highest value of each.

Items (samples, frames, patches) arrive in pieces, and memory holds only the columns. A column keeps
the extremes of its items, so that a click of one millisecond is visible in a day.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from audioset_core.arrays import F32, F64, Floats
from audioset_core.scores.pooling import sigmoid

_BLOCK_VALUES = 2**18
# A patch that ends where a column begins, up to rounding, is not part of the column.
_SLACK_PATCHES = 1e-6


class ColumnPeaks:
    """Lowest and highest item per column, of ``n_items`` that arrive in pieces.

    Column ``i`` has the items from ``i * n_items // n_columns`` on; there are at most as many
    columns as items. Items after the first ``n_items`` are ignored.
    """

    def __init__(self, n_items: int, n_columns: int, width: int | None = None) -> None:
        self.n_columns = max(1, min(n_items, n_columns))
        self._edges = np.arange(self.n_columns + 1, dtype=np.int64) * n_items // self.n_columns
        self._n_seen = 0
        shape = (self.n_columns,) if width is None else (self.n_columns, width)
        self.low = np.full(shape, np.nan, np.float32)
        """Shape: ``[n_columns]`` or ``[n_columns, width]``; NaN where nothing arrived."""
        self.high = self.low.copy()

    def push(self, items: Floats) -> None:
        """Add items. Shape: ``[n]`` or ``[n, width]``."""
        first = self._n_seen
        self._n_seen += len(items)
        items = items[: max(0, int(self._edges[-1]) - first)]
        if not len(items):
            return
        begin, end = np.searchsorted(self._edges, [first, first + len(items) - 1], "right") - 1
        starts = np.maximum(self._edges[begin : end + 1] - first, 0)
        for kept, extreme in ((self.low, np.fmin), (self.high, np.fmax)):
            part = kept[begin : end + 1]
            extreme(part, extreme.reduceat(items, starts, axis=0), out=part)


def column_edges(length_s: float, n_columns: int) -> F64:
    """Times at which columns begin, and the end time. Shape: ``[n_columns + 1]``."""
    return np.linspace(0.0, length_s, n_columns + 1)


def covering_patches(
    edges_s: F64, n_patches: int, *, hop_s: float, window_s: float
) -> npt.NDArray[np.int64]:
    """First and last patch (inclusive) of each column; no patch if the last is before the first.

    Patch ``k`` covers ``k * hop_s`` to ``k * hop_s + window_s``.

    Shape: ``[n_columns + 1]`` -> ``[n_columns, 2]``
    """
    first = np.floor((edges_s[:-1] - window_s) / hop_s + _SLACK_PATCHES) + 1
    last = np.ceil(edges_s[1:] / hop_s - _SLACK_PATCHES) - 1
    spans = np.stack([np.maximum(first, 0), np.minimum(last, n_patches - 1)], axis=1)
    return spans.astype(np.int64)


def peak_scores(
    logits: npt.NDArray[Any],
    categories: npt.NDArray[np.int64],
    spans: npt.NDArray[np.int64],
) -> F32:
    """The highest score of each column; NaN for a column without a patch.

    Reads a memory-mapped file in blocks of columns.

    Shape:
        logits: [n_patches, n_classes], spans: [n_columns, 2] -> [n_columns, len(categories)]
    """
    peaks = np.full((len(spans), len(categories)), np.nan, np.float32)
    covered = np.flatnonzero(spans[:, 1] >= spans[:, 0])
    if not len(covered) or not len(categories):
        return peaks
    patches_per_column = len(logits) / len(spans) + 2
    block = max(1, math.floor(_BLOCK_VALUES / (patches_per_column * logits.shape[1])))
    for start in range(0, len(covered), block):
        columns = covered[start : start + block]
        some = spans[columns]
        begin, end = int(some[0, 0]), int(some[-1, 1]) + 1
        # Rows first: a memory-mapped file is read once, in order.
        rows = np.full((end - begin + 1, len(categories)), -np.inf, np.float32)
        rows[:-1] = logits[begin:end][:, categories]
        # reduceat takes [start, end) pairs, and every end must be a row: hence one more.
        bounds = (some - begin + np.array([0, 1], np.int64)).ravel()
        peaks[columns] = sigmoid(np.maximum.reduceat(rows, bounds, axis=0)[::2])
    return peaks
