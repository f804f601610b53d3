"""Heads from examples: logistic regression on scaled embeddings, measured and calibrated.

What a head does to recordings that it has not seen is measured with folds that no recording is
divided by. The logits of those folds also calibrate the head (Platt scaling). Scaling, the head
and its calibration are folded into one affine map.

Source: https://scikit-learn.org/stable/modules/linear_model.html#logistic-regression
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from audioset_core.arrays import F32, F64
from audioset_core.errors import UserError
from audioset_core.evaluation.calibration import LEAST_OF_EACH, Platt, fit_platt
from audioset_core.evaluation.metrics import (
    UNKNOWN,
    ClassMeasures,
    Labels,
    measure,
    need_sklearn,
)

LEAST_PATCHES = 5
LEAST_RECORDINGS = 2
"""Fewest positive examples of a class."""

_STRENGTH = 0.03
"""scikit-learn's C, for embeddings of which there are more numbers than examples.

Measured on 40 recordings of ESC-10 with YAMNet (`docs/teaching.md`): from 0.01 to 0.1 the mean AP
varies by 0.01. One scale for all numbers of an embedding, since with a scale for each the rarest
ones, which are zero but for a few patches, weigh most: mean AP 0.86 in place of 0.92.
"""
_FOLDS = 5
_MOST_STEPS = 1000
_RESAMPLES = 1000

Numbers = npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Examples:
    """Patches with what is known of them.

    Shape:
        embeddings: [n, dim] float32
        labels: [n, n_classes] int8; 1 present, 0 absent, -1 unknown
        recordings: [n], the number of the recording that a patch is from
    """

    embeddings: F32
    labels: Labels
    recordings: Numbers


@dataclass(frozen=True, slots=True)
class FittedClass:
    """One head's examples and figures; AP is of recordings in folds that were not learned from.

    `ap_of_half`: the same with half of the positive recordings; None where there are too few.
    `line` None: too few examples to calibrate, or they do not agree with the head.
    """

    name: str
    n_recordings: int
    n_patches: int
    n_other_recordings: int
    n_other_patches: int
    ap: float | None
    ap_interval: tuple[float, float] | None
    ap_of_half: float | None
    line: Platt | None


@dataclass(frozen=True, slots=True)
class Fitted:
    """The map for all classes, its figures, and the mean AP with its interval.

    Shape:
        weight: [n_classes, dim] float32; bias: [n_classes] float32
    """

    weight: F32
    bias: F32
    classes: tuple[FittedClass, ...]
    mean_ap: float | None
    mean_ap_interval: tuple[float, float] | None


def fit_heads(examples: Examples, names: Sequence[str], seed: int = 0) -> Fitted:
    """Fit one head for each class; the same examples and seed give the same heads.

    Raises:
        UserError: too few examples of a class, or nothing to tell them from; or scikit-learn is
            not installed.
    """
    need_sklearn()
    for k, name in enumerate(names):
        _check_examples(examples.labels[:, k], examples.recordings, name)
    n_recordings = int(examples.recordings.max()) + 1
    best = np.full((n_recordings, len(names)), -np.inf, dtype=np.float32)
    of_half = best.copy()
    truth = np.full(best.shape, UNKNOWN, dtype=np.int8)
    heads = []
    lines: list[Platt | None] = []
    # One thread: faster for so few rows, and its sums are the same on any number of cores.
    with threadpool_limits(1, user_api="blas"):
        for k in range(len(names)):
            own, line = _fit_class(examples, k, seed)
            heads.append(own.head)
            lines.append(line)
            np.maximum.at(best[:, k], own.recordings, own.unseen.astype(np.float32))
            np.maximum.at(of_half[:, k], own.recordings, own.unseen_half.astype(np.float32))
            np.maximum.at(truth[:, k], own.recordings, own.labels)
    measured = measure(best, truth, names, n_resamples=_RESAMPLES, seed=seed)
    halved = measure(of_half, truth, names)
    return Fitted(
        np.array([head[:-1] for head in heads], dtype=np.float32),
        np.array([head[-1] for head in heads], dtype=np.float32),
        tuple(
            _figures(examples, k, line, full, half)
            for k, (line, full, half) in enumerate(
                zip(lines, measured.classes, halved.classes, strict=True)
            )
        ),
        measured.mean_ap,
        measured.intervals.get("mAP"),
    )


def fit_head(examples: Examples, name: str, k: int = 0) -> F64:
    """A class's weights and bias, as `fit_heads` fits them before the calibration: at once.

    Patches have the same order by both.

    Shape:
        [dim + 1]

    Raises:
        UserError: as `fit_heads`.
    """
    need_sklearn()
    labels = examples.labels[:, k]
    _check_examples(labels, examples.recordings, name)
    is_known = labels != UNKNOWN
    with threadpool_limits(1, user_api="blas"):
        return _regression(examples.embeddings[is_known], labels[is_known])


def fold_of(labels: Labels, recordings: Numbers, seed: int) -> Numbers:
    """The fold of each patch: of one recording all have one, and each fold has positives.

    Shape:
        labels, recordings: [n] -> [n], from 0 to at most four
    """
    present = np.unique(recordings[labels == 1])
    absent = np.setdiff1d(recordings, present)
    n_folds = min(_FOLDS, len(present))
    rng = np.random.default_rng(seed)
    fold = np.zeros(int(recordings.max()) + 1, dtype=np.intp)
    for group in (present, absent):
        fold[rng.permutation(group)] = np.arange(len(group)) % n_folds
    return fold[recordings]


@dataclass(frozen=True, slots=True)
class _Class:
    """One class's patches, its head `[dim + 1]`, and the logits of patches that it had not seen."""

    recordings: Numbers
    labels: Labels
    head: F64
    unseen: F64
    unseen_half: F64


def _fit_class(examples: Examples, k: int, seed: int) -> tuple[_Class, Platt | None]:
    is_known = examples.labels[:, k] != UNKNOWN
    rows, labels = examples.embeddings[is_known], examples.labels[is_known, k]
    recordings = examples.recordings[is_known]
    folds = fold_of(labels, recordings, seed)
    unseen, unseen_half = np.zeros(len(rows)), np.zeros(len(rows))
    for fold in range(int(folds.max()) + 1):
        is_other, is_own = folds != fold, folds == fold
        unseen[is_own] = _said(_regression(rows[is_other], labels[is_other]), rows[is_own])
        is_other &= _is_kept(labels, recordings, is_other, seed)
        unseen_half[is_own] = _said(_regression(rows[is_other], labels[is_other]), rows[is_own])
    head, line = _regression(rows, labels), None
    if min((labels == 1).sum(), (labels == 0).sum()) >= LEAST_OF_EACH:
        try:
            line = fit_platt(unseen, labels == 1)
            head = head * line.scale
            head[-1] += line.shift
        except UserError:  # worse than a guess; the AP says so
            line = None
    return _Class(recordings, labels, head, unseen, unseen_half), line


def _is_kept(
    labels: Labels, recordings: Numbers, is_other: npt.NDArray[np.bool_], seed: int
) -> npt.NDArray[np.bool_]:
    """Whether a patch is kept where only half of the positive recordings are learned from."""
    present = np.unique(recordings[(labels == 1) & is_other])
    drawn = np.random.default_rng(seed).permutation(present)[(len(present) + 1) // 2 :]
    is_left_out: npt.NDArray[np.bool_] = (labels == 1) & np.isin(recordings, drawn)
    return ~is_left_out


def _regression(rows: F32, labels: Labels) -> F64:
    """Weights for the rows as they are, and the bias. Shape: [n, dim], [n] -> [dim + 1]."""
    from sklearn.linear_model import LogisticRegression

    centre = rows.mean(axis=0, dtype=np.float64)
    spread = float(np.sqrt(rows.var(axis=0, dtype=np.float64).mean())) or 1.0
    model = LogisticRegression(C=_STRENGTH, class_weight="balanced", max_iter=_MOST_STEPS)
    model.fit((rows - centre) / spread, labels)
    weight = model.coef_[0] / spread
    return np.append(weight, model.intercept_[0] - weight @ centre)


def _said(head: F64, rows: F32) -> F64:
    said: F64 = rows.astype(np.float64) @ head[:-1] + head[-1]
    return said


def _check_examples(labels: Labels, recordings: Numbers, name: str) -> None:
    n_patches, n_recordings = _counts(labels == 1, recordings)
    if n_patches < LEAST_PATCHES or n_recordings < LEAST_RECORDINGS:
        raise UserError(
            f"{name}: {n_patches} patches of {n_recordings} recordings are examples; teaching "
            f"needs at least {LEAST_PATCHES} patches of {LEAST_RECORDINGS} recordings"
        )
    present = recordings[labels == 1]
    if len(np.setdiff1d(recordings[labels == 0], present)) < LEAST_RECORDINGS:
        raise UserError(
            f"{name}: there are no other recordings to tell the examples from; label more with "
            "--embeddings, or import verdicts of no"
        )


def _figures(
    examples: Examples, k: int, line: Platt | None, full: ClassMeasures, half: ClassMeasures
) -> FittedClass:
    labels, recordings = examples.labels[:, k], examples.recordings
    n_patches, n_recordings = _counts(labels == 1, recordings)
    n_other_patches, n_other_recordings = _counts(labels == 0, recordings)
    return FittedClass(
        full.mid, n_recordings, n_patches, n_other_recordings, n_other_patches,
        full.ap, full.ap_interval, half.ap if n_recordings >= 2 * LEAST_RECORDINGS else None, line,
    )  # fmt: skip


def _counts(which: npt.NDArray[np.bool_], recordings: Numbers) -> tuple[int, int]:
    return int(which.sum()), len(np.unique(recordings[which]))
