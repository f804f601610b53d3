from __future__ import annotations

import numpy as np
import pytest

from audioset_core.errors import UserError
from audioset_core.evaluation.calibration import Platt, fit_platt


def test_the_line_of_the_data_is_found_again(rng: np.random.Generator) -> None:
    logits = rng.normal(-2, 3, 200_000)
    is_present = rng.random(len(logits)) < 1 / (1 + np.exp(-(0.7 * logits + 1.5)))
    found = fit_platt(logits, is_present)
    assert found.scale == pytest.approx(0.7, abs=0.01)
    assert found.shift == pytest.approx(1.5, abs=0.02)
    assert found.n_present + found.n_absent == len(logits)


@pytest.mark.slow
def test_the_line_is_scikit_learns(rng: np.random.Generator) -> None:
    """An independent logistic regression; soft targets as two weighted rows each."""
    linear_model = pytest.importorskip("sklearn.linear_model")
    logits = rng.normal(0, 2, 60)
    is_present = rng.random(60) < 1 / (1 + np.exp(-logits))
    found = fit_platt(logits, is_present)
    n_present, n_absent = found.n_present, found.n_absent
    targets = np.where(is_present, (n_present + 1) / (n_present + 2), 1 / (n_absent + 2))
    model = linear_model.LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000)
    model.fit(
        np.tile(logits, 2)[:, np.newaxis],
        np.repeat([1, 0], 60),
        sample_weight=np.concatenate([targets, 1 - targets]),
    )
    assert found.scale == pytest.approx(model.coef_[0, 0], abs=1e-4)
    assert found.shift == pytest.approx(model.intercept_[0], abs=1e-4)


def test_truth_without_an_error_gives_a_finite_line() -> None:
    logits = np.array([-3.0] * 10 + [5.0] * 10)
    found = fit_platt(logits, logits > 0)
    # Both targets are met exactly: 11/12 at 5, 1/12 at -3.
    assert found == Platt(round(2 * np.log(11) / 8, 6), round(-np.log(11) / 4, 6), 10, 10)


@pytest.mark.parametrize(
    ("n_present", "n_absent", "said"),
    [(9, 50, "9 present and 50 absent"), (50, 0, "50 present and 0 absent"), (0, 0, "0 present")],
)
def test_few_or_one_sided_truth_is_refused(n_present: int, n_absent: int, said: str) -> None:
    is_present = np.arange(n_present + n_absent) < n_present
    with pytest.raises(UserError, match=said):
        fit_platt(np.linspace(-1, 1, len(is_present)), is_present)


def test_scores_that_fall_with_presence_are_refused() -> None:
    logits = np.linspace(-1, 1, 40)
    with pytest.raises(UserError, match="no higher where the truth has the sound"):
        fit_platt(logits, logits < 0)


def test_logits_of_any_size_converge() -> None:
    logits = np.concatenate([np.linspace(-87, 16, 500), np.linspace(-20, 16.6, 500)])
    is_present = np.arange(1000) >= 500
    found = fit_platt(logits, is_present)
    assert 0 < found.scale < 1
