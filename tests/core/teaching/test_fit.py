"""Fitting heads: folds by recording, figures, calibration, refusals."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audioset_core.arrays import unit_rows
from audioset_core.errors import UserError
from audioset_core.scores.pooling import sigmoid
from audioset_core.teaching.fit import Examples, Fitted, fit_heads, fold_of

N_PATCHES = 4


def examples(n_positive: int = 8, n_other: int = 20, shift: float = 3.0, seed: int = 0) -> Examples:
    """Recordings of four patches; those of class 0 lie apart in one of six numbers."""
    rng = np.random.default_rng(seed)
    n = (n_positive + n_other) * N_PATCHES
    rows = rng.standard_normal((n, 6)).astype(np.float32)
    labels = np.zeros((n, 1), dtype=np.int8)
    labels[: n_positive * N_PATCHES] = 1
    rows[labels[:, 0] == 1, 2] += shift
    return Examples(rows, labels, np.repeat(np.arange(n_positive + n_other), N_PATCHES))


def logits(fitted: Fitted, rows: np.ndarray) -> np.ndarray:
    return unit_rows(rows) @ fitted.weight[0] + fitted.bias[0]


def test_a_class_that_lies_apart_is_learned_and_calibrated() -> None:
    fitted = fit_heads(examples(), ["Saw"])
    (own,) = fitted.classes
    assert (own.name, own.n_recordings, own.n_patches) == ("Saw", 8, 32)
    assert (own.n_other_recordings, own.n_other_patches) == (20, 80)
    assert own.ap is not None
    assert own.ap > 0.9
    assert own.ap_interval is not None
    assert own.ap_interval[0] <= own.ap <= own.ap_interval[1]
    assert own.curve == ()
    fresh = examples(50, 125, seed=1)
    scores = sigmoid(logits(fitted, fresh.embeddings))
    # Calibrated: of patches with scores about p, p have the sound.
    for low, high in ((0.0, 0.2), (0.8, 1.0)):
        which = (scores >= low) & (scores <= high)
        share = (fresh.labels[which, 0] == 1).mean()
        assert abs(share - scores[which].mean()) < 0.1, (low, high)


def test_the_curve_rises_to_what_all_examples_give() -> None:
    made = examples(12, 40, shift=1.0)
    (own,) = fit_heads(made, ["Saw"], with_curve=True).classes
    (again,) = fit_heads(made, ["Saw"], with_curve=True).classes
    assert own == again
    sizes, aps = zip(*own.curve, strict=True)
    assert sizes == (1, 2, 5), "a fold's head learns from nine recordings at least"
    assert own.ap is not None
    assert aps[0] < aps[2] <= own.ap + 0.05
    (few,) = fit_heads(examples(2, 9), ["Saw"], with_curve=True).classes
    assert few.curve == ()


def test_noise_is_not_learned() -> None:
    (own,) = fit_heads(examples(10, 10, shift=0.0), ["Noise"]).classes
    assert own.ap is not None
    assert own.ap < 0.85


def test_the_same_examples_give_the_same_heads_and_loudness_does_not_matter() -> None:
    first, again = fit_heads(examples(), ["Saw"]), fit_heads(examples(), ["Saw"])
    np.testing.assert_array_equal(first.weight, again.weight)
    assert first.classes == again.classes
    moved = examples()
    loudness = np.random.default_rng(3).uniform(0.1, 50, (len(moved.labels), 1))
    moved = replace(moved, embeddings=(moved.embeddings * loudness).astype(np.float32))
    other = fit_heads(moved, ["Saw"])
    np.testing.assert_allclose(
        logits(other, moved.embeddings), logits(first, examples().embeddings), atol=0.01
    )


@settings(max_examples=50, deadline=None)
@given(st.integers(2, 9), st.integers(2, 30), st.integers(0, 1000))
def test_no_recording_is_divided_and_each_fold_has_both(
    n_positive: int, n_other: int, seed: int
) -> None:
    made = examples(n_positive, n_other)
    labels = made.labels[:, 0]
    folds = fold_of(labels, made.recordings, seed)
    n_folds = min(5, n_positive)
    assert set(folds) == set(range(n_folds))
    for fold in range(n_folds):
        assert set(labels[folds != fold]) == {0, 1}
        assert (labels[folds == fold] == 1).any()
    for recording in set(made.recordings):
        assert len(set(folds[made.recordings == recording])) == 1


def test_unknown_patches_count_for_nothing() -> None:
    made = examples()
    labels = made.labels.copy()
    labels[-10 * N_PATCHES :] = -1
    spoilt = made.embeddings.copy()
    spoilt[-10 * N_PATCHES :] = 1e3
    fitted = fit_heads(replace(made, labels=labels, embeddings=spoilt), ["Saw"])
    kept = slice(0, -10 * N_PATCHES)
    alone = Examples(made.embeddings[kept], made.labels[kept], made.recordings[kept])
    np.testing.assert_array_equal(fitted.weight, fit_heads(alone, ["Saw"]).weight)


def test_four_recordings_with_few_patches_are_not_calibrated_but_taught() -> None:
    made = examples(4, 20)
    is_kept = np.ones(len(made.labels), dtype=bool)
    is_kept[:16] = np.arange(16) % 4 < 2  # eight positive patches
    few = Examples(made.embeddings[is_kept], made.labels[is_kept], made.recordings[is_kept])
    (own,) = fit_heads(few, ["Saw"]).classes
    assert (own.n_patches, own.line) == (8, None)


@pytest.mark.parametrize(
    ("n_positive", "n_other", "said"),
    [
        (0, 9, "Saw: 0 patches of 0 recordings are examples; teaching needs at least 5 patches"),
        (1, 9, "Saw: 4 patches of 1 recordings are examples"),
        (4, 0, "Saw: there are no other recordings to tell the examples from"),
    ],
)
def test_too_little_is_refused(n_positive: int, n_other: int, said: str) -> None:
    with pytest.raises(UserError, match=said):
        fit_heads(examples(n_positive, n_other), ["Saw"])
