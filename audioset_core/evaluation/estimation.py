"""How much of a collection truly contains a sound, from a stratified sample that was judged.

The share that is true is estimated by the combined ratio estimator, weighted by what was drawn from
how many. Its interval is Wilson's, with the effective number of clips in place of their number.
That number comes from a model of the strata, since the variance within a stratum of two to ten
clips, often all true or all false, says nothing: a stratum's share is drawn towards that of all
strata of the same scores, as if two clips more had been judged. It is lowered for the degrees of
freedom, clips less parts of the scores, as Student's t is wider than the normal distribution.

    R = sum_h N_h / n_h sum y t  /  sum_h N_h / n_h sum t
    v = sum_h N_h^2 (1 - n_h / N_h) / n_h  Var_h(t (y - R)) / (sum_h T_h)^2
    n_eff = R (1 - R) / v  (z / t)^2

Source: Cochran, Sampling Techniques (1977), 5.3 and 6.11; Wilson, JASA 22 (1927) 209; Franco,
Little, Louis, Slud, Journal of Survey Statistics and Methodology 7 (2019) 334,
https://pmc.ncbi.nlm.nih.gov/articles/PMC6690503 (Wilson's interval with an effective sample size
from a model); Korn, Graubard, Survey Methodology 24 (1998) 193 (degrees of freedom).
`tests/core/evaluation/test_estimation.py` proves the coverage by simulation.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

_Z = 1.959963984540054  # of a normal distribution's central 95 %
_SMOOTHING = 2.0
"""Clips' worth of the strata of the same scores that a stratum's share is drawn towards."""


@dataclass(frozen=True, slots=True)
class Judged:
    """A stratum: clips with scores from `low` on, their sums, and what was judged of those drawn.

    `size_s` is the sum of the clips' sizes (seconds, or 1 for each), `size_s2` that of the squares.
    `judged`: (whether the sound is truly present, the size of that clip).
    """

    low: float
    n_clips: int
    size_s: float
    size_s2: float
    judged: tuple[tuple[bool, float], ...]


@dataclass(frozen=True, slots=True)
class Share:
    """A share, its 95 % interval, and the number of judged clips behind it."""

    value: float
    low: float
    high: float
    n_judged: int


def by_clip(strata: Sequence[Judged]) -> list[Judged]:
    """The strata with every clip of size 1, to count clips instead of seconds."""
    return [
        Judged(s.low, s.n_clips, s.n_clips, s.n_clips, tuple((true, 1.0) for true, _ in s.judged))
        for s in strata
    ]


def true_share(strata: Sequence[Judged]) -> Share | None:
    """The share of the clips' total size that truly belongs to the sound.

    None if nothing was judged, or if the total size is 0.

    >>> half = Judged(0.1, 100, 100, 100, ((True, 1.0), (False, 1.0)) * 10)
    >>> share = true_share([half])
    >>> f"{share.value:.2f} {share.low:.2f}-{share.high:.2f}"
    '0.50 0.31-0.69'
    """
    total = sum(s.size_s for s in strata)
    raised = [(s, s.n_clips / len(s.judged)) for s in strata if s.judged]
    counted = sum(factor * size for s, factor in raised for _, size in s.judged)
    if total <= 0 or counted <= 0:
        return None
    true = sum(factor * size for s, factor in raised for is_true, size in s.judged if is_true)
    share = min(1.0, true / counted)
    likely = _likely_shares(strata)
    variance = sum(
        _variance(s, p, share) for s, p in zip(strata, likely, strict=True)
    ) / total**2  # fmt: skip
    model = sum(s.size_s * p for s, p in zip(strata, likely, strict=True)) / total
    n_judged = sum(len(s.judged) for s in strata)
    low = high = share
    if variance > 0:
        n_effective = (
            model
            * (1 - model)
            / variance
            * (_Z / _t(n_judged - len({s.low for s, _ in raised}))) ** 2
        )
        low, high = wilson(share, n_effective)
    return Share(share, min(low, share), max(high, share), n_judged)


def wilson(share: float, n: float) -> tuple[float, float]:
    """The 95 % interval of a share among `n`, which need not be whole.

    >>> tuple(round(end, 3) for end in wilson(0.0, 10))
    (0.0, 0.278)
    """
    middle = share + _Z**2 / (2 * n)
    half = _Z * math.sqrt(share * (1 - share) / n + (_Z / (2 * n)) ** 2)
    scale = 1 + _Z**2 / n
    return max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale)


def _t(degrees: int) -> float:
    """Student's t of the central 95 %; at least one degree of freedom."""
    from scipy.special import stdtrit

    return float(stdtrit(max(1, degrees), 0.975))


def _likely_shares(strata: Sequence[Judged]) -> list[float]:
    """The share of true clips by stratum, drawn towards that of all strata of the same scores."""
    of_scores: dict[float, list[Judged]] = defaultdict(list)
    for each in strata:
        of_scores[each.low].append(each)
    middle = {low: _pooled(together) for low, together in of_scores.items()}
    return [
        (_n_true(s) + _SMOOTHING * middle[s.low]) / (len(s.judged) + _SMOOTHING) for s in strata
    ]


def _pooled(strata: Sequence[Judged]) -> float:
    """Their share weighted by clips, as if one true and one false clip more had been judged."""
    judged = [s for s in strata if s.judged]
    n_clips = sum(s.n_clips for s in judged)
    if not n_clips:
        return 0.5
    share = sum(s.n_clips * _n_true(s) / len(s.judged) for s in judged) / n_clips
    n_effective = n_clips**2 / sum(s.n_clips**2 / len(s.judged) for s in judged)
    return (share * n_effective + 1) / (n_effective + 2)


def _n_true(stratum: Judged) -> int:
    return sum(is_true for is_true, _ in stratum.judged)


def _variance(stratum: Judged, p: float, share: float) -> float:
    """The variance of the stratum's part of the total; p: the likely share of its true clips."""
    n_clips, n_judged = stratum.n_clips, len(stratum.judged)
    square, mean = stratum.size_s2 / n_clips, stratum.size_s / n_clips
    of_residuals = square * (p * (1 - p) + (p - share) ** 2) - (mean * (p - share)) ** 2
    left = 1 - n_judged / n_clips
    return n_clips**2 * left / (n_judged or _SMOOTHING) * max(0.0, of_residuals)
