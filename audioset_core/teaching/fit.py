"""Heads from examples: logistic regression on embeddings of length one, measured and calibrated.

What a head does to recordings that it has not seen is measured with folds that no recording is
divided by. The logits of those folds also calibrate the head (Platt scaling). One scale for all
numbers, the head and its calibration are folded into one affine map of an embedding of length one.

Source: https://scikit-learn.org/stable/modules/linear_model.html#logistic-regression
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from audioset_core.arrays import F32, F64, unit_rows
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

_STRENGTH = 0.01
"""scikit-learn's C, for embeddings of which there are more numbers than examples.

Measured on 40 recordings of ESC-10 (`docs/teaching.md`): from 0.003 to 0.03 the mean AP varies by
0.01. One scale for all numbers of an embedding, since with a scale for each the rarest ones, which
are zero but for a few patches, weigh most: mean AP 0.86 in place of 0.92.
"""
_FOLDS = 5
_MOST_STEPS = 1000
_RESAMPLES = 1000
_CURVE = (1, 2, 5, 10, 20, 50, 100, 200, 500)
"""Of how many positive recordings the learning curve has an AP, as far as there are so many."""
_DRAWS = 2
"""Times that the curve draws these for each fold."""

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

    `curve`: (n, AP where each head learned from n positive recordings and all others), by n.
    `line` None: too few examples to calibrate, or they do not agree with the head.
    """

    name: str
    n_recordings: int
    n_patches: int
    n_other_recordings: int
    n_other_patches: int
    ap: float | None
    ap_interval: tuple[float, float] | None
    curve: tuple[tuple[int, float], ...]
    line: Platt | None


@dataclass(frozen=True, slots=True)
class Fitted:
    """The map of unit-length embeddings for all classes, its figures, and the mean AP.

    Shape:
        weight: [n_classes, dim] float32; bias: [n_classes] float32
    """

    weight: F32
    bias: F32
    classes: tuple[FittedClass, ...]
    mean_ap: float | None
    mean_ap_interval: tuple[float, float] | None


def fit_heads(
    examples: Examples, names: Sequence[str], seed: int = 0, *, with_curve: bool = False
) -> Fitted:
    """Fit one head for each class; the same examples and seed give the same heads.

    The learning curve takes about ten times as long as the rest.

    Raises:
        UserError: too few examples of a class, or nothing to tell them from; or scikit-learn is
            not installed.
    """
    need_sklearn()
    for k, name in enumerate(names):
        _check_examples(examples.labels[:, k], examples.recordings, name)
    examples = replace(examples, embeddings=unit_rows(examples.embeddings).astype(np.float32))
    shape = (int(examples.recordings.max()) + 1, len(names))
    best = np.full(shape, -np.inf, dtype=np.float32)
    truth = np.full(shape, UNKNOWN, dtype=np.int8)
    heads = []
    lines: list[Platt | None] = []
    curves = []
    # One thread: faster for so few rows, and its sums are the same on any number of cores.
    with threadpool_limits(1, user_api="blas"):
        for k in range(len(names)):
            own = _known(examples, k, seed)
            unseen = _unseen(own)
            head, line = _calibrated(own, unseen)
            heads.append(head)
            lines.append(line)
            best[:, k], truth[:, k] = _by_recording(own, unseen, len(best))
            curves.append(tuple(_curve(own, len(best), seed)) if with_curve else ())
    measured = measure(best, truth, names, n_resamples=_RESAMPLES, seed=seed)
    return Fitted(
        np.array([head[:-1] for head in heads], dtype=np.float32),
        np.array([head[-1] for head in heads], dtype=np.float32),
        tuple(
            _figures(examples, k, line, full, curve)
            for k, (line, full, curve) in enumerate(
                zip(lines, measured.classes, curves, strict=True)
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
        rows = unit_rows(examples.embeddings[is_known]).astype(np.float32)
        return _regression(rows, labels[is_known])


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
    """The patches of which it is known whether they have a class, and their folds."""

    rows: F32
    labels: Labels
    recordings: Numbers
    folds: Numbers


def _known(examples: Examples, k: int, seed: int) -> _Class:
    is_known = examples.labels[:, k] != UNKNOWN
    labels, recordings = examples.labels[is_known, k], examples.recordings[is_known]
    folds = fold_of(labels, recordings, seed)
    return _Class(examples.embeddings[is_known], labels, recordings, folds)


def _unseen(own: _Class, size: int | None = None, rng: np.random.Generator | None = None) -> F64:
    """The logits of patches by heads that have not seen their fold: learned from all others.

    Where `size` is given, each head learns from that many positive recordings, drawn by `rng`.

    Shape:
        [n]
    """
    unseen = np.zeros(len(own.rows))
    for fold in range(int(own.folds.max()) + 1):
        is_learned, is_own = own.folds != fold, own.folds == fold
        if size is not None and rng is not None:
            is_present = own.labels == 1
            there = rng.permutation(np.unique(own.recordings[is_learned & is_present]))
            is_learned &= ~is_present | np.isin(own.recordings, there[:size])
        head = _regression(own.rows[is_learned], own.labels[is_learned])
        unseen[is_own] = own.rows[is_own].astype(np.float64) @ head[:-1] + head[-1]
    return unseen


def _calibrated(own: _Class, unseen: F64) -> tuple[F64, Platt | None]:
    """The head `[dim + 1]`, learned from all patches, and the line that is folded into it."""
    head = _regression(own.rows, own.labels)
    if min((own.labels == 1).sum(), (own.labels == 0).sum()) < LEAST_OF_EACH:
        return head, None
    try:
        line = fit_platt(unseen, own.labels == 1)
    except UserError:  # worse than a guess; the AP says so
        return head, None
    head = head * line.scale
    head[-1] += line.shift
    return head, line


def _by_recording(own: _Class, unseen: F64, n_recordings: int) -> tuple[F32, Labels]:
    """The best logit of each recording, and whether it has the class.

    Shape:
        [n_recordings] each
    """
    best = np.full(n_recordings, -np.inf, dtype=np.float32)
    truth = np.full(n_recordings, UNKNOWN, dtype=np.int8)
    np.maximum.at(best, own.recordings, unseen.astype(np.float32))
    np.maximum.at(truth, own.recordings, own.labels)
    return best, truth


def _curve(own: _Class, n_recordings: int, seed: int) -> Iterator[tuple[int, float]]:
    """(n, mean AP of the draws) for each size that every fold's head can learn from."""
    is_present = own.labels == 1
    in_fold = [
        len(np.unique(own.recordings[is_present & (own.folds == fold)]))
        for fold in range(int(own.folds.max()) + 1)
    ]
    for size in _CURVE:
        if size >= sum(in_fold) - max(in_fold):
            return
        rng = np.random.default_rng((seed, size))
        drawn = [_by_recording(own, _unseen(own, size, rng), n_recordings) for _ in range(_DRAWS)]
        best, truth = (np.stack(each, axis=1) for each in zip(*drawn, strict=True))
        ap = measure(best, truth, ("",) * _DRAWS).mean_ap
        if ap is not None:
            yield size, ap


def _regression(rows: F32, labels: Labels) -> F64:
    """Weights for the rows as they are, and the bias. Shape: [n, dim], [n] -> [dim + 1]."""
    from sklearn.linear_model import LogisticRegression

    centre = rows.mean(axis=0, dtype=np.float64)
    spread = float(np.sqrt(rows.var(axis=0, dtype=np.float64).mean())) or 1.0
    model = LogisticRegression(C=_STRENGTH, class_weight="balanced", max_iter=_MOST_STEPS)
    model.fit((rows - centre) / spread, labels)
    weight = model.coef_[0] / spread
    return np.append(weight, model.intercept_[0] - weight @ centre)


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
    examples: Examples,
    k: int,
    line: Platt | None,
    full: ClassMeasures,
    curve: tuple[tuple[int, float], ...],
) -> FittedClass:
    labels, recordings = examples.labels[:, k], examples.recordings
    n_patches, n_recordings = _counts(labels == 1, recordings)
    n_other_patches, n_other_recordings = _counts(labels == 0, recordings)
    return FittedClass(
        full.mid, n_recordings, n_patches, n_other_recordings, n_other_patches,
        full.ap, full.ap_interval, curve, line,
    )  # fmt: skip


def _counts(which: npt.NDArray[np.bool_], recordings: Numbers) -> tuple[int, int]:
    return int(which.sum()), len(np.unique(recordings[which]))
