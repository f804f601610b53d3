"""The checks of roundings notice what is none."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from audioset_core.features.config import VGGISH, YAMNET
from audioset_core.features.log_mel import log_mel
from tests.bounds import (
    LIMIT,
    U32,
    assert_possible,
    assert_rounding,
    assert_within,
    log_mel_sigma,
    sum_bound,
)

pytestmark = pytest.mark.numeric

MANY = np.ones(2_000)


@pytest.mark.parametrize("check", [assert_rounding, assert_within, assert_possible])
@pytest.mark.parametrize(
    ("found", "message"),
    [
        (MANY[1:], "shapes"),
        (np.where(np.arange(2_000) == 7, np.nan, MANY), r"sound: 1 of 2000 .*the worst, \(7,\)"),
        (np.where(np.arange(2_000) == 7, 1 + 17 * U32, MANY), "1 of 2000"),
    ],
)
def test_a_wrong_value_is_noticed(check: Any, found: Any, message: str) -> None:
    allowed = U32 if check is assert_rounding else LIMIT * U32
    with pytest.raises(AssertionError, match=message):
        check(found, MANY, allowed, "sound")


def test_where_nothing_is_allowed_nothing_may_differ() -> None:
    assert_within(MANY, MANY, 0.0)
    with pytest.raises(AssertionError, match="2000 of 2000"):
        assert_within(MANY + 1e-15, MANY, 0.0)


def test_many_small_differences_are_no_roundings() -> None:
    assert_rounding(MANY[:99] + 2 * U32, MANY[:99], U32)
    with pytest.raises(AssertionError, match="mean difference is 2 standard deviations"):
        assert_rounding(MANY + 2 * U32, MANY, U32)


def test_a_sum_in_float32_stays_within_its_bound(rng: np.random.Generator) -> None:
    terms = rng.standard_normal((50, 3_000)).astype(np.float32)
    one_by_one = np.cumsum(terms, axis=1, dtype=np.float32)[:, -1]
    assert_possible(one_by_one, terms.sum(axis=1, dtype=np.float64), sum_bound(terms, 1))


@pytest.mark.parametrize("config", [YAMNET, VGGISH])
def test_roundings_of_the_front_end_have_the_stated_size(config: Any) -> None:
    """Not a tenth of it, or the check would see nothing; float64's are those of the output."""
    noise = (0.1 * np.random.default_rng(3).standard_normal(40_000)).astype(np.float32)
    exact, sigma = log_mel_sigma(noise, config)
    found = np.abs(log_mel(noise, config) - exact) / sigma
    assert 0.03 < found.mean() < 0.5
