"""How well scores agree with truth, per class and overall; computed by scikit-learn.

    AP, mAP   average precision: how pure the list is when a class is sorted by score
    AUC       probability that a random positive scores above a random negative; a tie counts half
    d'        sqrt(2) z(AUC): the same as a distance in standard deviations
    lwlrap    label-weighted label-ranking average precision: are a clip's own labels at its top?
    F1        best over thresholds, and where

A class without a positive, or without a negative, has no AP and no AUC: it is left out of the
means, and counted. Intervals of confidence: `audioset_core.evaluation.bootstrap`.

Source: https://scikit-learn.org/stable/modules/model_evaluation.html; lwlrap is LRAP weighted by
the number of labels, https://github.com/DCASE-REPO/dcase2019_task2_baseline; d' as in
Hershey et al. 2017, https://arxiv.org/abs/1609.09430
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from audioset_core.arrays import F32
from audioset_core.errors import UserError
from audioset_core.evaluation.bootstrap import Intervals, resampled

Scores = F32
Labels = npt.NDArray[np.int8]
"""1 present, 0 absent, -1 unknown."""

UNKNOWN = -1


@dataclass(frozen=True, slots=True)
class Best:
    """The threshold with the highest F1, and what it gives."""

    threshold: float
    f1: float
    precision: float
    recall: float


@dataclass(frozen=True, slots=True)
class ClassMeasures:
    """The measures of one class; None where a measure is not defined."""

    mid: str
    n_positives: int
    n_negatives: int
    ap: float | None
    auc: float | None
    d_prime: float | None
    best: Best | None
    ap_interval: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class Measures:
    """All classes, and the means over those that have both positives and negatives.

    `intervals`: 95 % by measure; empty for a single clip, or without resampling.
    """

    n_items: int
    n_clips: int
    n_classes_in_means: int
    mean_ap: float | None
    auc: float | None
    d_prime: float | None
    lwlrap: float | None
    zero_shot: float | None
    classes: tuple[ClassMeasures, ...]
    intervals: Mapping[str, tuple[float, float]]


def measure(
    scores: Scores,
    labels: Labels,
    mids: Sequence[str],
    clips: Sequence[str] | None = None,
    *,
    is_exclusive: bool = False,
    n_resamples: int = 0,
    seed: int = 0,
) -> Measures:
    """Every measure of a table of scores.

    `clips` has the recording of each item: items of one recording are drawn together.
    `is_exclusive`: each item has one class, so that the highest score can be right or wrong.

    Shape:
        scores, labels: [n_items, n_classes]

    Raises:
        UserError: scikit-learn is not installed.
    """
    need_sklearn()
    which = np.unique(np.asarray(clips), return_inverse=True)[1] if clips else None
    clip_of = np.arange(len(scores)) if which is None else which
    n_clips = int(clip_of.max(initial=-1)) + 1
    by_class = [_ap_and_auc(scores[:, k], labels[:, k]) for k in range(len(mids))]
    auc = _mean([auc for _, auc in by_class])
    found = Intervals({}, {})
    if n_resamples and n_clips > 1:
        found = resampled(
            scores, labels, clip_of, n_clips, is_exclusive, n_resamples=n_resamples, seed=seed
        )
    classes = tuple(
        ClassMeasures(
            mid,
            int((labels[:, k] == 1).sum()),
            int((labels[:, k] == 0).sum()),
            *by_class[k],
            d_prime(by_class[k][1]),
            best_threshold(scores[:, k], labels[:, k]),
            found.ap_of_class.get(k),
        )
        for k, mid in enumerate(mids)
    )
    return Measures(
        n_items=len(scores),
        n_clips=n_clips,
        n_classes_in_means=sum(ap is not None for ap, _ in by_class),
        mean_ap=_mean([ap for ap, _ in by_class]),
        auc=auc,
        d_prime=d_prime(auc),
        lwlrap=lwlrap(scores, labels),
        zero_shot=_accuracy(scores, labels) if is_exclusive else None,
        classes=classes,
        intervals=found.of_measure,
    )


def d_prime(auc: float | None) -> float | None:
    """The d' of an AUC; None for an AUC of 0 or 1, whose d' is infinite.

    >>> round(d_prime(0.9), 3), d_prime(1.0)
    (1.812, None)
    """
    from scipy.special import ndtri

    value = None if auc is None else math.sqrt(2) * float(ndtri(auc))
    return value if value is not None and math.isfinite(value) else None


def best_threshold(scores: Scores, labels: Labels) -> Best | None:
    """The threshold with the highest F1, halfway between the lowest score above it and the next.

    Among equals the highest threshold. None without positives, or without negatives.

    >>> scores, labels = np.float32([0.9, 0.8, 0.5, 0.1]), np.int8([1, 1, 0, 0])
    >>> best_threshold(scores, labels)
    Best(threshold=0.6500000059604645, f1=1.0, precision=1.0, recall=1.0)

    Raises:
        UserError: scikit-learn is not installed.
    """
    need_sklearn()
    from sklearn.metrics import precision_recall_curve

    is_known = labels != UNKNOWN
    known, truth = scores[is_known].astype(np.float64), labels[is_known]
    if not 0 < truth.sum() < len(truth):
        return None
    precision, recall, thresholds = precision_recall_curve(truth, known)
    precision, recall = precision[:-1], recall[:-1]
    total = precision + recall
    f1 = np.divide(2 * precision * recall, total, out=np.zeros_like(total), where=total > 0)
    at = len(f1) - 1 - int(np.argmax(f1[::-1]))
    below = known[known < thresholds[at]]
    # Halfway to what is left out: a score that is stored a little lower still counts.
    threshold = (thresholds[at] + below.max()) / 2 if len(below) else thresholds[at]
    return Best(float(threshold), float(f1[at]), float(precision[at]), float(recall[at]))


def lwlrap(scores: Scores, labels: Labels) -> float | None:
    """The lwlrap of items with a label; None without any, or if a label is unknown.

    >>> lwlrap(np.float32([[0.9, 0.2], [0.6, 0.4]]), np.int8([[1, 0], [0, 1]]))
    0.75
    """
    from sklearn.metrics import label_ranking_average_precision_score

    n_labels = (labels == 1).sum(axis=1)
    kept = n_labels > 0
    if not kept.any() or (labels == UNKNOWN).any():
        return None
    return float(
        label_ranking_average_precision_score(
            labels[kept].astype(int), scores[kept], sample_weight=n_labels[kept]
        )
    )


_Pair = tuple[float | None, float | None]


def _ap_and_auc(scores: Scores, labels: Labels) -> _Pair:
    from sklearn.metrics import average_precision_score, roc_auc_score

    is_known = labels != UNKNOWN
    known, truth = scores[is_known], labels[is_known]
    if not 0 < truth.sum() < len(truth):
        return None, None
    return float(average_precision_score(truth, known)), float(roc_auc_score(truth, known))


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _accuracy(scores: Scores, labels: Labels) -> float | None:
    from sklearn.metrics import accuracy_score

    if not len(scores):
        return None
    return float(accuracy_score(labels.argmax(axis=1), scores.argmax(axis=1)))


def need_sklearn() -> None:
    """Say what is to be installed.

    Raises:
        UserError: scikit-learn is not installed.
    """
    try:
        import sklearn.metrics  # noqa: F401
    except ImportError:
        raise UserError("this needs scikit-learn: pip install 'audioset-flows[evaluate]'") from None
