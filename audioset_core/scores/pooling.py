"""From logits over time to what a table stores: class scores, detections, pooled windows.

Rows are patches, which overlap in time (0.96 s every 0.48 s), so everything here counts in patches
and leaves seconds to the caller. Scores are `sigmoid(logits)` in float32, whatever is stored.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Literal

import numpy as np
import numpy.typing as npt

from audioset_core.arrays import F32, F64, Floats, row_blocks
from audioset_core.errors import AudioError, Reason
from audioset_core.records import ClassScore, Detection

BLOCK_VALUES = 2**18
"""Values per block of rows: temporaries stay near the cache, memory flat for any length."""


@dataclass(frozen=True, slots=True)
class Pooled:
    """What is stored of one clip, by category index (detections then by start)."""

    class_scores: tuple[ClassScore, ...]
    detections: tuple[Detection, ...]


@dataclass(frozen=True, slots=True)
class Runs:
    """Runs as columns of equal length; sums are float64, so that long runs lose nothing.

    `total` is the sum over `n_patches` patches, which are all of them unless runs were merged.
    """

    category: npt.NDArray[np.int64]
    start: npt.NDArray[np.int64]
    end: npt.NDArray[np.int64]
    peak: F32
    total: F64
    peak_patch: npt.NDArray[np.int64]
    n_patches: npt.NDArray[np.int64]

    def where(self, kept: npt.NDArray[np.bool_]) -> Runs:
        """The runs for which `kept` is true."""
        return Runs(*(getattr(self, each.name)[kept] for each in fields(self)))


def sigmoid(logits: Floats) -> F32:
    """`1 / (1 + exp(-x))` in float32 without overflow; any shape.

    >>> sigmoid(np.float16([-1000, 0, 3])).round(3).tolist()
    [0.0, 0.5, 0.953000009059906]
    """
    x = logits.astype(np.float32)
    decay = np.exp(-np.abs(x))
    scores: F32 = np.where(x >= 0, np.float32(1), decay) / (1 + decay)
    return scores


def pool(
    logits: Floats,
    *,
    floor: float,
    threshold: float,
    block_values: int = BLOCK_VALUES,
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
    found: list[Runs] = []
    for first_patch, scores in score_blocks(logits, block_values):
        np.maximum(peaks, scores.max(axis=0), out=peaks)
        totals += scores.sum(axis=0, dtype=np.float64)
        found.append(runs_in(scores, np.float32(threshold), first_patch))
    if np.isnan(peaks).any():
        raise AudioError(Reason.INTERNAL, "the logits hold values that are not numbers")
    kept = np.flatnonzero(peaks >= np.float32(floor)) if n_patches else np.empty(0, dtype=np.int64)
    means = totals[kept] / max(1, n_patches)
    return Pooled(
        tuple(map(ClassScore, kept.tolist(), peaks[kept].tolist(), means.tolist())),
        detections_of(joined(found)) if found else (),
    )


def pooled_rows(steps: F32, steps_per_row: int, *, mode: Literal["max", "mean"]) -> F32:
    """Each row the maximum, or the mean, of consecutive steps; the last row may have fewer.

    Of logits the maximum, so that a row's score is that of its best step: nothing that a detection
    stands on is lost. Of embeddings the mean.

    >>> pooled_rows(np.float32([[1], [5], [3]]), 2, mode="max").tolist()
    [[5.0], [3.0]]

    Shape:
        [n_steps, n] -> [ceil(n_steps / steps_per_row), n]
    """
    if steps_per_row == 1 or not len(steps):
        return steps
    first = np.arange(0, len(steps), steps_per_row)
    if mode == "max":
        best: F32 = np.maximum.reduceat(steps, first, axis=0)
        return best
    counts = np.diff(first, append=len(steps)).astype(np.float32)
    sums: F32 = np.add.reduceat(steps, first, axis=0)
    return sums / counts[:, np.newaxis]


def detected_runs(logits: Floats, threshold: float, first_patch: int) -> Iterator[Runs]:
    """Runs of scores at or above the threshold, in blocks that `joined` makes one of.

    Shape:
        logits: [n_patches, n_classes]; they begin at `first_patch` of the clip.
    """
    for start, scores in score_blocks(logits, BLOCK_VALUES):
        yield runs_in(scores, np.float32(threshold), first_patch + start)


def window_spans(n_patches: int, *, window: int, stride: int) -> npt.NDArray[np.int64]:
    """First and last patch (inclusive) of each sliding window.

    Windows start at 0, stride, 2 stride, ... until the clip is covered, and the last one ends
    with the clip. Nothing is padded, so windows of even and odd length follow the same rule.

    >>> window_spans(6, window=4, stride=3).tolist()
    [[0, 3], [3, 5]]

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
    logits: Floats,
    *,
    window: int,
    stride: int,
    mode: Literal["max", "mean"] = "max",
) -> F32:
    """Scores of sliding windows: maximum or mean of the logits, then sigmoid.

    The mean is over the patches that a window really has, as `window_spans` lists them.

    Shape:
        logits: [n_patches, n_classes] -> [n_windows, n_classes]
    """
    spans = window_spans(len(logits), window=window, stride=stride)
    pooled = np.empty((len(spans), logits.shape[1]), dtype=np.float32)
    block = max(1, BLOCK_VALUES // max(1, logits.shape[1] * stride))
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


def score_blocks(logits: Floats, block_values: int) -> Iterator[tuple[int, F32]]:
    """(first patch, scores) of block after block of rows."""
    for first, rows in row_blocks(logits, block_values):
        yield first, sigmoid(rows)


def runs_in(scores: F32, threshold: np.float32 | F32, first_patch: int) -> Runs:
    """Runs within one block of patches that begins at `first_patch`, by category and start.

    Shape:
        scores: [n_patches, n_classes]
        threshold: one, or [n_classes]
    """
    category, patch = np.nonzero((scores >= threshold).T)
    values = scores[patch, category]
    begins = np.ones(len(patch), dtype=bool)
    begins[1:] = (np.diff(category) != 0) | (np.diff(patch) != 1)
    ones = np.ones(len(patch), dtype=np.int64)
    return _reduced(
        np.flatnonzero(begins),
        Runs(category, patch, patch, values, values.astype(np.float64), patch, ones),
        shift=first_patch,
    )


def joined(blocks: list[Runs]) -> Runs:
    """Runs of all blocks by category and start, those that touch across a border made one."""
    columns = [each.name for each in fields(Runs)]
    runs = Runs(*(np.concatenate([getattr(each, name) for each in blocks]) for name in columns))
    order = np.lexsort((runs.start, runs.category))
    return merged(Runs(*(getattr(runs, name)[order] for name in columns)), 0)


def merged(runs: Runs, most_missing: int) -> Runs:
    """Runs, in order, with at most so many patches between them made one."""
    begins = np.ones(len(runs.start), dtype=bool)
    begins[1:] = (np.diff(runs.category) != 0) | (runs.start[1:] > runs.end[:-1] + 1 + most_missing)
    return _reduced(np.flatnonzero(begins), runs)


def _reduced(first: npt.NDArray[np.int64], parts: Runs, *, shift: int = 0) -> Runs:
    """Merge neighbours: part `first[i]` up to the next `first` become run i, moved by `shift`."""
    if not len(first):
        return parts
    last = np.append(first[1:], len(parts.start)) - 1
    peak = np.maximum.reduceat(parts.peak, first)
    # Of several parts as high as the peak, the earliest.
    is_peak = parts.peak == np.repeat(peak, last - first + 1)
    candidates = np.where(is_peak, parts.peak_patch, np.iinfo(np.int64).max)
    return Runs(
        parts.category[first],
        parts.start[first] + shift,
        parts.end[last] + shift,
        peak,
        np.add.reduceat(parts.total, first),
        np.minimum.reduceat(candidates, first) + shift,
        np.add.reduceat(parts.n_patches, first),
    )


def detections_of(runs: Runs) -> tuple[Detection, ...]:
    """The runs as records, in the same order."""
    mean = runs.total / runs.n_patches
    columns = (runs.category, runs.start, runs.end, runs.peak, mean, runs.peak_patch)
    return tuple(map(Detection, *(column.tolist() for column in columns)))
