"""How far two people agree beyond what chance would give: Cohen's kappa.

    kappa = (p_o - p_e) / (1 - p_e)

p_o is the share of things of which both say the same, p_e the share expected if each gave his own
answers at random, as often as he gives them. Where both give one and the same answer throughout,
p_e is 1: then there is nothing to agree on beyond chance, and kappa is not defined.

Source: Cohen, Educational and Psychological Measurement 20 (1960) 37,
https://doi.org/10.1177/001316446002000104
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations


@dataclass(frozen=True, slots=True)
class Agreement:
    """Of two people: how many things both judged, of how many they say the same, and kappa."""

    first: str
    second: str
    n_both: int
    n_same: int
    kappa: float | None
    """None: nobody can say, since there is nothing, or both give one answer throughout."""


def cohen_kappa(pairs: Sequence[tuple[Hashable, Hashable]]) -> float | None:
    """Kappa of (answer of the one, answer of the other) for each thing; None: not defined.

    >>> f"{cohen_kappa([(1, 1)] * 20 + [(1, 0)] * 5 + [(0, 1)] * 10 + [(0, 0)] * 15):.2f}"
    '0.40'
    >>> cohen_kappa([(1, 1), (1, 1)]) is None
    True
    """
    n = len(pairs)
    if n == 0:
        return None
    ones, others = Counter(one for one, _ in pairs), Counter(other for _, other in pairs)
    # In whole numbers, so that "by chance, all" is recognised exactly: n^2 p_e and n^2 p_o.
    by_chance = sum(ones[answer] * others[answer] for answer in ones)
    if by_chance == n * n:
        return None
    same = n * sum(one == other for one, other in pairs)
    return (same - by_chance) / (n * n - by_chance)


def agreements(answers: Mapping[str, Mapping[str, bool]]) -> list[Agreement]:
    """Every pair of people who both judged something; `answers` by person and thing."""
    found = []
    for first, second in combinations(answers, 2):
        both = answers[first].keys() & answers[second].keys()
        pairs = [(answers[first][thing], answers[second][thing]) for thing in both]
        if pairs:
            n_same = sum(one == other for one, other in pairs)
            found.append(Agreement(first, second, len(pairs), n_same, cohen_kappa(pairs)))
    return found
