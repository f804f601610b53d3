"""Agreement of people: published and exact cases, and an independent library."""

from __future__ import annotations

import numpy as np
import pytest

from audioset_core.evaluation.agreement import Agreement, agreements, cohen_kappa

cohen_kappa_score = pytest.importorskip("sklearn.metrics").cohen_kappa_score


@pytest.mark.parametrize(
    ("yes_yes", "yes_no", "no_yes", "no_no", "kappa"),
    [
        (20, 5, 10, 15, 0.4),  # 70 % the same, 50 % by chance
        (45, 15, 25, 15, 0.1304),  # 60 % the same in both; who says yes how often decides
        (25, 35, 5, 35, 0.2593),
        (5, 0, 0, 5, 1.0), (0, 5, 5, 0, -1.0), (1, 1, 1, 1, 0.0),
        (7, 0, 0, 0, None), (0, 0, 0, 3, None), (0, 0, 0, 0, None),
        # One always says yes: whatever the other says, it is what chance would give.
        (4, 3, 0, 0, 0.0), (0, 3, 0, 0, 0.0),
    ],
)  # fmt: skip
def test_kappa_of_two_by_two(
    yes_yes: int, yes_no: int, no_yes: int, no_no: int, kappa: float | None
) -> None:
    pairs = [(True, True)] * yes_yes + [(True, False)] * yes_no
    pairs += [(False, True)] * no_yes + [(False, False)] * no_no
    found = cohen_kappa(pairs)
    assert found == (None if kappa is None else pytest.approx(kappa, abs=5e-5))


def test_kappa_is_that_of_an_independent_library(rng: np.random.Generator) -> None:
    for _ in range(50):
        one, other = rng.integers(0, 3, (2, 30)).tolist()
        expected = pytest.approx(cohen_kappa_score(one, other))
        assert cohen_kappa(list(zip(one, other, strict=True))) == expected


def test_pairs_of_people_count_what_both_judged() -> None:
    answers = {
        "anna": {"a": True, "b": False, "c": True}, "bo": {"a": True, "b": True},
        "cy": {"c": True}, "di": {"x": True},
    }  # fmt: skip
    assert agreements(answers) == [
        Agreement("anna", "bo", 2, 1, 0.0),
        Agreement("anna", "cy", 1, 1, None),
    ]
