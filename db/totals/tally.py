"""What one labelling adds to the counts of each node."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from db.types import STEPS_PER_PERCENT

Sound = tuple[int, int, int, int]
"""Node id, peak (in steps of a stored score), first and last microsecond."""

Heard = list[tuple[int, int]]
"""(hundredth of the score, microseconds that no higher one covers), the highest first."""


@dataclass(frozen=True, slots=True)
class Ontology:
    """The nodes at or above each, and which are source-ambiguous."""

    above: Mapping[int, Sequence[int]]
    ambiguous: frozenset[int]

    def counting(self, classes: Iterable[int], scored: Iterable[int]) -> dict[int, list[int]]:
        """For each node the classes of a clip that count below it; `scored` are company.

        As `db.query.ambiguous_classes.counting_pairs`.
        """
        plain = set(scored) - self.ambiguous
        in_company = {node for each in plain for node in self.above.get(each, ())}
        found: dict[int, list[int]] = defaultdict(list)
        for each in classes:
            for node in self.above.get(each, ()):
                if each not in self.ambiguous or node in self.ambiguous or node in in_company:
                    found[node].append(each)
        return found


def tally(
    peaks: Mapping[int, int], sounds: Iterable[Sound], ontology: Ontology
) -> dict[tuple[int, int], list[int]]:
    """By (node id, hundredth of the score): clips, clips heard, microseconds heard, own of both.

    A clip counts at its best score. A moment counts at the best score of the detections around it,
    so that the sum from a hundredth up is the length of the union of the detections from there up.
    "Own": of the class itself, without those below it.
    """
    of_class: dict[int, list[Sound]] = defaultdict(list)
    for sound in sounds:
        of_class[sound[0]].append(sound)
    below = ontology.counting({**peaks, **of_class}, peaks)
    # Nodes of one branch mostly have the same classes of a clip.
    groups = {*map(tuple, below.values()), *((each,) for each in of_class)}
    heard = {group: _heard(group, of_class) for group in groups}
    found: dict[tuple[int, int], list[int]] = defaultdict(lambda: [0] * 5)
    for node, classes in below.items():
        scored = [peaks[each] for each in classes if each in peaks]
        if scored:
            found[node, max(scored) // STEPS_PER_PERCENT][0] += 1
        _add(found, node, heard[tuple(classes)], 1)
    for node in of_class:
        _add(found, node, heard[(node,)], 3)
    return dict(found)


def _add(found: dict[tuple[int, int], list[int]], node: int, heard: Heard, at: int) -> None:
    for place, (percent, lasts_us) in enumerate(heard):
        row = found[node, percent]
        row[at] += place == 0
        row[at + 1] += lasts_us


def _heard(classes: Iterable[int], of_class: Mapping[int, list[Sound]]) -> Heard:
    best_first = sorted(
        ((peak // STEPS_PER_PERCENT, start, end)
        for each in classes for _, peak, start, end in of_class.get(each, ())),
        reverse=True,
    )  # fmt: skip
    covered: dict[int, int] = {}
    # What is covered so far: apart from each other, in order.
    starts: list[int] = []
    ends: list[int] = []
    for percent, start, end in best_first:
        first, last = bisect_left(ends, start), bisect_right(starts, end)
        new = end - start
        if first < last:
            touched = zip(starts[first:last], ends[first:last], strict=True)
            new -= sum(min(end, e) - max(start, s) for s, e in touched)
            start, end = min(start, starts[first]), max(end, ends[last - 1])
        covered[percent] = covered.get(percent, 0) + new
        starts[first:last], ends[first:last] = [start], [end]
    return list(covered.items())
