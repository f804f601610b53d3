"""From logits over time to what a table stores: class scores, detections, pooled windows.

Rows are patches, which overlap in time (0.96 s every 0.48 s), so everything here counts in patches
and leaves seconds to the caller. Scores are `sigmoid(logits)` in float32, whatever is stored.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from audioset_core.errors import AudioError, Reason

FloatArray = npt.NDArray[np.floating[Any]]
Float32Array = npt.NDArray[np.float32]

# Values per block of rows: temporaries stay near the cache, memory flat for a clip of any length.
_BLOCK_VALUES = 2**18


@dataclass(frozen=True, slots=True)
class ClassScore:
    """One category over a whole clip: highest and mean score of its patches."""

    category_index: int
    peak: float
    mean: float


@dataclass(frozen=True, slots=True)
class Detection:
    """Consecutive patches of one category at or above the threshold; `end_patch` is inclusive."""

    category_index: int
    start_patch: int
    end_patch: int
    peak: float
    mean: float
    peak_patch: int


@dataclass(frozen=True, slots=True)
class Pooled:
    """What is stored of one clip, by category index (detections then by start)."""

    class_scores: tuple[ClassScore, ...]
    detections: tuple[Detection, ...]


@dataclass(frozen=True, slots=True)
class _Runs:
    """Runs as columns of equal length; sums are float64, so that long runs lose nothing."""

    category: npt.NDArray[np.int64]
    start: npt.NDArray[np.int64]
    end: npt.NDArray[np.int64]
    peak: Float32Array
    total: npt.NDArray[np.float64]
    peak_patch: npt.NDArray[np.int64]


def sigmoid(logits: FloatArray) -> Float32Array:
    """`1 / (1 + exp(-x))` in float32 without overflow; any shape."""
    x = logits.astype(np.float32)
    decay = np.exp(-np.abs(x))
    scores: Float32Array = np.where(x >= 0, np.float32(1), decay) / (1 + decay)
    return scores


def pool(
    logits: FloatArray,
    *,
    floor: float,
    threshold: float,
    block_values: int = _BLOCK_VALUES,
) -> Pooled:
    """Class scores with `peak >= floor`, and detections: runs of scores `>= threshold`.

    Two runs separated by a single patch below the threshold are two detections. No patches give
    empty results. One pass in blocks of rows: works on a memory-mapped file of any length.

    Shape:
        logits: [n_patches, n_classes], float16 or float32

    Raises:
        AudioError: a logit is not a number.
    """
    n_patches, n_classes = logits.shape
    peaks = np.zeros(n_classes, dtype=np.float32)
    totals = np.zeros(n_classes, dtype=np.float64)
    found: list[_Runs] = []
    for first_patch, scores in _score_blocks(logits, block_values):
        np.maximum(peaks, scores.max(axis=0), out=peaks)
        totals += scores.sum(axis=0, dtype=np.float64)
        found.append(_runs(scores, np.float32(threshold), first_patch))
    if np.isnan(peaks).any():
        raise AudioError(Reason.INTERNAL, "the logits hold values that are not numbers")
    kept = np.flatnonzero(peaks >= np.float32(floor)) if n_patches else np.empty(0, dtype=np.int64)
    means = totals[kept] / max(1, n_patches)
    return Pooled(
        tuple(map(ClassScore, kept.tolist(), peaks[kept].tolist(), means.tolist())),
        _detections(_joined(found)) if found else (),
    )


def top_categories(mean_scores: FloatArray, k: int) -> tuple[int, ...]:
    """Indices of the `k` highest scores, best first; among equals the lower index."""
    return tuple(np.argsort(-mean_scores, kind="stable")[:k].tolist())


def window_spans(n_patches: int, *, window: int, stride: int) -> npt.NDArray[np.int64]:
    """First and last patch (inclusive) of each sliding window.

    Windows start at 0, stride, 2 stride, ... until the clip is covered, and the last one ends
    with the clip. Nothing is padded, so even and odd windows follow the same rule:

    Shape:
        [1 + ceil(max(0, n_patches - window) / stride), 2]; [0, 2] without patches
    """
    if window < 1 or not 1 <= stride <= window:
        raise ValueError(
            f"window={window}, stride={stride}: 1 <= stride <= window, or patches are skipped"
        )
    n_windows = 1 - (-max(0, n_patches - window) // stride) if n_patches else 0
    starts = np.arange(n_windows, dtype=np.int64) * stride
    return np.stack([starts, np.minimum(starts + window, n_patches) - 1], axis=1)


def sliding_scores(
    logits: FloatArray,
    *,
    window: int,
    stride: int,
    mode: Literal["max", "mean"] = "max",
) -> Float32Array:
    """Scores of sliding windows: maximum or mean of the logits, then sigmoid.

    The mean counts the patches that a window really has. `window_spans` says which those are.

    Shape:
        logits: [n_patches, n_classes] -> [n_windows, n_classes]
    """
    spans = window_spans(len(logits), window=window, stride=stride)
    pooled = np.empty((len(spans), logits.shape[1]), dtype=np.float32)
    block = max(1, _BLOCK_VALUES // max(1, logits.shape[1] * stride))
    for first in range(0, len(spans), block):
        some = spans[first : first + block]
        rows = logits[some[0, 0] : some[-1, 1] + 1].astype(np.float32)
        # reduceat takes [start, end) pairs; the last end is the end of the rows, so left out.
        bounds = (some - some[0, 0] + [0, 1]).ravel()[:-1]
        if mode == "max":
            pooled[first : first + block] = np.maximum.reduceat(rows, bounds, axis=0)[::2]
        else:
            totals = np.add.reduceat(rows, bounds, axis=0, dtype=np.float64)[::2]
            pooled[first : first + block] = totals / (some[:, 1:] - some[:, :1] + 1)
    return sigmoid(pooled)


def _score_blocks(logits: FloatArray, block_values: int) -> Iterator[tuple[int, Float32Array]]:
    n_rows = max(1, block_values // max(1, logits.shape[1]))
    for first in range(0, len(logits), n_rows):
        yield first, sigmoid(logits[first : first + n_rows])


def _runs(scores: Float32Array, threshold: np.float32, first_patch: int) -> _Runs:
    """Runs within one block, ordered by category and start."""
    category, patch = np.nonzero((scores >= threshold).T)
    values = scores[patch, category]
    begins = np.ones(len(patch), dtype=bool)
    begins[1:] = (np.diff(category) != 0) | (np.diff(patch) != 1)
    return _reduced(
        np.flatnonzero(begins),
        _Runs(category, patch, patch, values, values.astype(np.float64), patch),
        shift=first_patch,
    )


def _joined(blocks: list[_Runs]) -> _Runs:
    """Runs of all blocks, those that touch across a border made one."""
    category = np.concatenate([runs.category for runs in blocks])
    start = np.concatenate([runs.start for runs in blocks])
    order = np.lexsort((start, category))
    category, start = category[order], start[order]
    end = np.concatenate([runs.end for runs in blocks])[order]
    begins = np.ones(len(order), dtype=bool)
    begins[1:] = (np.diff(category) != 0) | (start[1:] != end[:-1] + 1)
    return _reduced(
        np.flatnonzero(begins),
        _Runs(
            category,
            start,
            end,
            np.concatenate([runs.peak for runs in blocks])[order],
            np.concatenate([runs.total for runs in blocks])[order],
            np.concatenate([runs.peak_patch for runs in blocks])[order],
        ),
    )


def _reduced(first: npt.NDArray[np.int64], parts: _Runs, *, shift: int = 0) -> _Runs:
    """Merge neighbours: part `first[i]` up to the next `first` become run i, moved by `shift`."""
    if not len(first):
        return parts
    last = np.append(first[1:], len(parts.start)) - 1
    peak = np.maximum.reduceat(parts.peak, first)
    # Of several parts as high as the peak, the earliest.
    is_peak = parts.peak == np.repeat(peak, last - first + 1)
    candidates = np.where(is_peak, parts.peak_patch, np.iinfo(np.int64).max)
    return _Runs(
        parts.category[first],
        parts.start[first] + shift,
        parts.end[last] + shift,
        peak,
        np.add.reduceat(parts.total, first),
        np.minimum.reduceat(candidates, first) + shift,
    )


def _detections(runs: _Runs) -> tuple[Detection, ...]:
    means = runs.total / (runs.end - runs.start + 1)
    return tuple(
        map(
            Detection,
            runs.category.tolist(),
            runs.start.tolist(),
            runs.end.tolist(),
            runs.peak.tolist(),
            means.tolist(),
            runs.peak_patch.tolist(),
        )
    )
