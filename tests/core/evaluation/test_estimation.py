"""Estimates from a stratified sample: exact cases, and coverage over simulated collections."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from audioset_core.evaluation.estimation import Judged, Share, by_clip, true_share, wilson


def _judged(low: float, n_clips: int, *verdicts: bool) -> Judged:
    return Judged(low, n_clips, n_clips, n_clips, tuple((v, 1.0) for v in verdicts))


def test_strata_count_by_their_size_and_not_by_what_was_drawn() -> None:
    share = true_share([_judged(0.1, 900, False, False, True), _judged(0.7, 100, True, True, True)])
    assert share is not None
    assert share.value == pytest.approx(0.9 / 3 + 0.1)
    assert share.n_judged == 6
    assert 0 < share.low < share.value < share.high < 1


def test_what_was_judged_to_the_last_clip_has_no_interval() -> None:
    assert true_share([_judged(0.1, 3, True, False, True)]) == Share(2 / 3, 2 / 3, 2 / 3, 3)


def test_all_true_or_all_false_is_not_sure() -> None:
    """Ten of 1,000 say as much as Wilson's interval of ten, and a little less than certain."""
    for verdict, value in ((True, 1.0), (False, 0.0)):
        share = true_share([_judged(0.1, 1_000, *[verdict] * 10)])
        assert share is not None
        assert share.value == value
        assert 0.15 < share.high - share.low < 0.35
    assert wilson(0.5, 10) == pytest.approx((0.2366, 0.7634), abs=1e-4)  # Wilson 1927


def test_hours_are_those_of_the_true_clips() -> None:
    whole = Judged(
        0.1, 4, 100.0, 3000.0, ((True, 40.0), (False, 10.0), (True, 20.0), (False, 30.0))
    )
    share = true_share([whole])
    assert share == Share(0.6, 0.6, 0.6, 4)
    assert true_share(by_clip([whole])) == Share(0.5, 0.5, 0.5, 4)


def test_nothing_judged_or_nothing_to_count() -> None:
    assert true_share([]) is None
    assert true_share([_judged(0.1, 10)]) is None
    assert true_share([Judged(0.1, 10, 0.0, 0.0, ((True, 0.0),))]) is None


def test_a_stratum_without_verdicts_makes_the_interval_wider() -> None:
    half = (True, False) * 5
    known = true_share([_judged(0.1, 100, *half), _judged(0.5, 100, *half)])
    guessed = true_share([_judged(0.1, 100, *half), _judged(0.5, 100)])
    assert known is not None
    assert guessed is not None
    assert guessed.high - guessed.low > 1.3 * (known.high - known.low)


@given(
    st.lists(
        st.tuples(
            st.sampled_from([0.1, 0.4, 0.7]),
            st.integers(0, 50),
            st.lists(st.tuples(st.booleans(), st.floats(0.5, 100)), max_size=6),
        ),
        max_size=8,
    )
)
def test_a_share_is_in_its_interval(
    drawn: list[tuple[float, int, list[tuple[bool, float]]]],
) -> None:
    strata = []
    for low, n_more, judged in drawn:
        sizes = [size for _, size in judged] + [1.0] * n_more
        square = sum(size**2 for size in sizes)
        if sizes:
            strata.append(Judged(low, len(sizes), sum(sizes), square, tuple(judged)))
    for share in (true_share(strata), true_share(by_clip(strata))):
        if share is not None:
            assert 0 <= share.low <= share.value <= share.high <= 1
            assert share.n_judged == sum(len(s.judged) for s in strata)


N_BINS = 5
# (classes, mean of the logits, how they differ between classes, clips of a stratum, judged)
REGIMES = {
    "one class": (1, -1.5, 1.5, 55, 4),
    "five classes": (5, -1.5, 1.5, 55, 4),
    "two of each stratum": (5, -1.5, 1.5, 55, 2),
    "rare": (5, -4.0, 1.5, 55, 4),
    "common": (4, 1.5, 1.5, 55, 4),
    "small": (5, -1.5, 1.5, 8, 4),
    "unlike each other": (5, -1.5, 2.5, 55, 2),
}


def _collection(
    rng: np.random.Generator, regime: str
) -> tuple[list[Judged], tuple[float, float, float]]:
    """The strata as a review would have them; the true shares of clips, seconds, the best clips."""
    n_groups, mean, spread, size, n_drawn = REGIMES[regime]
    strata, parts = [], []
    for _ in range(n_groups):
        level = mean + rng.normal(0, spread)
        for place in range(N_BINS):
            n = int(rng.lognormal(np.log(size), 1) / (place + 1))
            if n == 0:
                continue
            is_true = rng.random(n) < 1 / (1 + np.exp(-level - 1.2 * place))
            # True ones are heard longer, which the estimate does not know.
            heard_s = np.minimum(20, np.round(rng.lognormal(1, 1, n) * (1 + is_true), 2) + 0.96)
            drawn = rng.permutation(n)[:n_drawn]
            judged = tuple((bool(is_true[i]), float(heard_s[i])) for i in drawn)
            sums = float(heard_s.sum()), float((heard_s**2).sum())
            strata.append(Judged(place / N_BINS, n, *sums, judged))
            parts.append((place, is_true, heard_s))
    true = np.concatenate([t for _, t, _ in parts])
    seconds = np.concatenate([s for _, _, s in parts])
    best = [t for place, t, _ in parts if place >= 3] or [np.zeros(1)]
    shares = true.mean(), (true * seconds).sum() / seconds.sum(), np.concatenate(best).mean()
    return strata, shares


def _coverage(regime: str, n_collections: int, seed: int) -> tuple[list[float], list[float]]:
    """How often the intervals of clips, hours and precision cover; the mean error of the first."""
    rng = np.random.default_rng(seed)
    covered: list[list[bool]] = [[], [], []]
    errors: list[list[float]] = [[], []]
    for _ in range(n_collections):
        strata, true = _collection(rng, regime)
        best = by_clip([s for s in strata if s.low >= 3 / N_BINS])
        for k, share in enumerate(
            (true_share(by_clip(strata)), true_share(strata), true_share(best))
        ):
            if share is not None:
                covered[k].append(share.low - 1e-9 <= true[k] <= share.high + 1e-9)
                if k < 2:
                    errors[k].append(share.value - true[k])
    return [float(np.mean(c)) for c in covered], [float(np.mean(e)) for e in errors]


def test_intervals_cover_what_they_say() -> None:
    """93 to 97 % over collections of every kind, give or take two standard errors of so few."""
    n_each = 150
    every = [_coverage(regime, n_each, seed)[0] for seed, regime in enumerate(REGIMES)]
    error = (0.95 * 0.05 / (n_each * len(REGIMES))) ** 0.5
    for k in range(3):
        assert 0.93 - 2 * error <= np.mean([covered[k] for covered in every]) <= 0.97 + 2 * error


@pytest.mark.slow
def test_intervals_of_many_collections_of_each_kind() -> None:
    """14,000 collections: 93 to 97 % over all, and no kind that is much worse; no bias."""
    every = [_coverage(regime, 2_000, 99 + n) for n, regime in enumerate(REGIMES)]
    for k in range(3):
        assert 0.93 <= np.mean([covered[k] for covered, _ in every]) <= 0.97
    for covered, errors in every:
        assert min(covered) >= 0.93
        assert max(covered) <= 0.99
        assert max(map(abs, errors)) < 0.012


@pytest.mark.parametrize("n_drawn", [2, 4, 10])
@pytest.mark.parametrize(
    ("n_clips", "shares"),
    [
        ((10_000, 3_000, 800, 300, 100), (0.05, 0.1, 0.2, 0.5, 0.9)),
        ((10_000, 3_000, 800, 300, 100), (0.3, 0.5, 0.7, 0.8, 0.95)),
        ((100_000, 3_000, 800, 300, 100), (0.005, 0.05, 0.2, 0.5, 0.9)),
    ],
)
def test_few_judged_of_a_stratum_with_most_clips(
    n_clips: tuple[int, ...], shares: tuple[float, ...], n_drawn: int
) -> None:
    """Then an interval rests on a handful of clips: it must rather be too wide."""
    rng = np.random.default_rng(0)
    n_covered, n_collections = 0, 500
    for _ in range(n_collections):
        strata, n_all = [], 0
        for place, (n, p) in enumerate(zip(n_clips, shares, strict=True)):
            n_true = rng.binomial(n, p)
            n_all += n_true
            k = int(rng.hypergeometric(n_true, n - n_true, n_drawn))
            strata.append(_judged(place / 5, n, *[True] * k, *[False] * (n_drawn - k)))
        share = true_share(strata)
        assert share is not None
        n_covered += share.low <= n_all / sum(n_clips) <= share.high
    assert n_covered / n_collections >= 0.93
