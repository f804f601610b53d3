"""Confidence intervals for `evaluation.metrics`: percentiles over resampled clips, with a seed.

A clip that is drawn n times counts as a clip of weight n. scikit-learn also takes weights, but
needs milliseconds for one resample; this is the same arithmetic for all resamples at once, and
tests compare the two.

Source: Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from audioset_core.arrays import F32, F64

_CONFIDENCE = 0.95
# Weights in memory at a time: resamples times items.
_BLOCK_VALUES = 2**22


@dataclass(frozen=True, slots=True)
class Intervals:
    """95 % by measure (mAP, AUC, d_prime, lwlrap, zero_shot), and of AP by class index."""

    of_measure: Mapping[str, tuple[float, float]]
    ap_of_class: Mapping[int, tuple[float, float]]


def resampled(
    scores: F32,
    labels: npt.NDArray[np.int8],
    clip_of: npt.NDArray[np.intp],
    n_clips: int,
    is_exclusive: bool,
    *,
    n_resamples: int,
    seed: int,
) -> Intervals:
    """Draw clips with replacement; items of one clip are drawn together.

    Shape:
        scores, labels: [n_items, n_classes]; labels 1, 0, or -1 for unknown
        clip_of: [n_items], below n_clips
    """
    from scipy.special import ndtri

    rng = np.random.default_rng(seed)
    parts: list[tuple[F64, ...]] = []
    for weights in _weights(rng, clip_of, n_clips, n_resamples):
        aps = np.empty((len(weights), labels.shape[1]))
        aucs = np.empty_like(aps)
        for k in range(labels.shape[1]):
            is_known = labels[:, k] >= 0
            aps[:, k], aucs[:, k] = weighted_ap_and_auc(
                scores[is_known, k], labels[is_known, k], weights[:, is_known]
            )
        own = _item_measures(scores, labels, weights, is_exclusive)
        parts.append((aps, aucs, *own))
    aps, aucs, lwlraps, picks = (np.concatenate(each) for each in zip(*parts, strict=True))
    auc = _row_means(aucs)
    with np.errstate(invalid="ignore"):
        d_prime = np.sqrt(2) * ndtri(auc)
    of_measure = {
        "mAP": _row_means(aps), "AUC": auc, "d_prime": d_prime, "lwlrap": lwlraps,
        "zero_shot": picks,
    }  # fmt: skip
    return Intervals(
        {name: found for name, values in of_measure.items() if (found := _percentiles(values))},
        {k: found for k in range(aps.shape[1]) if (found := _percentiles(aps[:, k]))},
    )


def weighted_ap_and_auc(scores: F32, truth: npt.NDArray[np.int8], weights: F64) -> tuple[F64, F64]:
    """Average precision and area under the ROC curve for each row of weights; NaN for neither.

    Shape:
        scores, truth: [n_items]; weights: [n_resamples, n_items] -> [n_resamples], twice
    """
    order = np.argsort(-scores, kind="stable")
    # Items of equal score pass a threshold together.
    ends = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True)) if len(order) else order
    own = weights[:, order]
    hits = np.cumsum(own * (truth[order] == 1), axis=1)[:, ends]
    misses = np.cumsum(own * (truth[order] == 0), axis=1)[:, ends]
    if not len(ends):
        return np.full(len(weights), np.nan), np.full(len(weights), np.nan)
    with np.errstate(invalid="ignore", divide="ignore"):
        precision = np.nan_to_num(hits / (hits + misses))
        n_hits, n_misses = hits[:, -1], misses[:, -1]
        new_hits = np.diff(hits, axis=1, prepend=0)
        new_misses = np.diff(misses, axis=1, prepend=0)
        ap = (new_hits * precision).sum(axis=1) / n_hits
        auc = (new_misses * (hits - new_hits / 2)).sum(axis=1) / (n_hits * n_misses)
    is_both = (n_hits > 0) & (n_misses > 0)
    return np.where(is_both, ap, np.nan), np.where(is_both, auc, np.nan)


def ranking_precision(scores: F32, labels: npt.NDArray[np.int8]) -> F64:
    """Each item's label-ranking average precision; 0 without a label. Ties get the worse rank.

    Shape:
        scores, labels: [n_items, n_classes] -> [n_items]
    """
    from scipy.stats import rankdata

    found = np.zeros(len(scores))
    for at, (row, truth) in enumerate(zip(scores, labels == 1, strict=True)):
        if truth.any():
            among_all = rankdata(-row, method="max")[truth]
            found[at] = np.mean(rankdata(-row[truth], method="max") / among_all)
    return found


def _weights(
    rng: np.random.Generator, clip_of: npt.NDArray[np.intp], n_clips: int, n_resamples: int
) -> Iterator[F64]:
    """How often each item is drawn, in blocks of resamples."""
    size = max(1, _BLOCK_VALUES // max(1, len(clip_of)))
    for first in range(0, n_resamples, size):
        n = min(size, n_resamples - first)
        drawn = [
            np.bincount(rng.integers(n_clips, size=n_clips), minlength=n_clips) for _ in range(n)
        ]
        yield np.array(drawn, dtype=np.float64)[:, clip_of]


def _item_measures(
    scores: F32,
    labels: npt.NDArray[np.int8],
    weights: F64,
    is_exclusive: bool,
) -> tuple[F64, F64]:
    """(lwlrap, share of right picks) of each resample; NaN where they are not defined."""
    nothing = np.full(len(weights), np.nan)
    picks = nothing
    if is_exclusive:
        picks = _average((labels.argmax(axis=1) == scores.argmax(axis=1)).astype(float), weights)
    if (labels < 0).any():
        return nothing, picks
    n_labels = (labels == 1).sum(axis=1)
    return _average(ranking_precision(scores, labels), weights * n_labels), picks


def _average(values: F64, weights: F64) -> F64:
    with np.errstate(invalid="ignore"):
        average: F64 = (weights @ values) / weights.sum(axis=1)
    return average


def _row_means(table: F64) -> F64:
    """Row means over the classes for which a resample has a value."""
    known = ~np.isnan(table)
    with np.errstate(invalid="ignore"):
        means: F64 = np.where(known, table, 0).sum(axis=1) / known.sum(axis=1)
    return means


def _percentiles(values: npt.NDArray[Any]) -> tuple[float, float] | None:
    kept = values[np.isfinite(values)]
    if not len(kept):
        return None
    tail = (1 - _CONFIDENCE) / 2
    low, high = np.quantile(kept, [tail, 1 - tail])
    return float(low), float(high)
