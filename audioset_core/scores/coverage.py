"""Seconds that patches cover. Each covers a window; windows overlap, and no moment counts twice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from audioset_core.arrays import F64, Floats, row_blocks

_DIGITS = 6
"""Of seconds, as people write them: 6.24, not 6.239999999999999."""


@overload
def end_s(last_patch: int, *, hop_s: float, window_s: float, duration_s: float) -> float: ...
@overload
def end_s(
    last_patch: npt.NDArray[np.int64], *, hop_s: float, window_s: float, duration_s: float
) -> F64: ...
def end_s(last_patch: Any, *, hop_s: float, window_s: float, duration_s: float) -> Any:
    """Where a detection ends, in seconds: with the window of its last patch, or with the clip.

    The only such rule in Python; the one in SQL is `db.query.time_spans.end_s`.

    >>> end_s(3, hop_s=0.48, window_s=0.96, duration_s=10.0)
    2.4
    >>> end_s(3, hop_s=0.48, window_s=0.96, duration_s=2.0)
    2.0
    """
    ends = np.round(np.minimum(last_patch * hop_s + window_s, duration_s), _DIGITS)
    return ends if isinstance(last_patch, np.ndarray) else float(ends)


def covered_s(
    is_detected: npt.NDArray[np.bool_], *, hop_s: float, window_s: float, duration_s: float
) -> float:
    """Seconds of the clip that the marked patches cover.

    >>> covered_s(np.array([True, True, False]), hop_s=0.48, window_s=0.96, duration_s=10.0)
    1.44

    Shape:
        is_detected: [n_patches]
    """
    return union_s(patch_spans(is_detected, hop_s=hop_s, window_s=window_s, duration_s=duration_s))


def patch_spans(
    is_detected: npt.NDArray[np.bool_], *, hop_s: float, window_s: float, duration_s: float
) -> F64:
    """From where to where each marked patch lies, in seconds.

    Shape:
        is_detected: [n_patches] -> [n_marked, 2]
    """
    detected = np.flatnonzero(is_detected)
    starts = np.round(detected * hop_s, _DIGITS)
    ends = end_s(detected, hop_s=hop_s, window_s=window_s, duration_s=duration_s)
    return np.stack([starts, ends], axis=1)


def union_s(spans: F64) -> float:
    """Seconds that spans cover together, in any order.

    >>> union_s(np.array([[1.0, 3.0], [0.0, 2.0], [5.0, 6.0]]))
    4.0

    Shape:
        spans: [n, 2]
    """
    if not len(spans):
        return 0.0
    starts, ends = spans[np.argsort(spans[:, 0], kind="stable")].T
    # A span adds what lies beyond those before.
    before = np.concatenate([[0.0], np.maximum.accumulate(ends)[:-1]])
    return float(np.maximum(0.0, ends - np.maximum(starts, before)).sum())


def reaching(
    logits: Floats, groups: Mapping[Any, Sequence[int]], score: float
) -> dict[Any, npt.NDArray[np.bool_]]:
    """For each group of categories, the patches in which one of them has at least the score.

    Shape:
        logits: [n_patches, n_classes] -> each [n_patches]
    """
    least = np.float32(np.inf) if score >= 1 else np.float32(np.log(score / (1 - score)))
    marks = {key: np.zeros(len(logits), dtype=bool) for key in groups}
    for first, block in row_blocks(logits):
        rows = np.asarray(block, dtype=np.float32)
        for key, indices in groups.items():
            marks[key][first : first + len(rows)] = (rows[:, list(indices)] >= least).any(axis=1)
    return marks
