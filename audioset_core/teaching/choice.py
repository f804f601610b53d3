"""Which patches to ask a person about next: the surest, the most doubtful, or the most varied.

Source: B. Settles, Active Learning Literature Survey, 2009 (uncertainty sampling); T. F. Gonzalez,
Clustering to minimize the maximum intercluster distance, 1985 (the farthest point first).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from audioset_core.arrays import F32, F64

Order = Literal["best", "uncertain", "diverse"]
ORDERS: tuple[Order, ...] = get_args(Order)

_LOOKED_AT = 4000
"""So many of the first patches of an order are looked at one by one."""
_VARIED = 500
"""Among so many of the best ones, of different recordings, the most varied are chosen."""
_MOST_EXAMPLES = 32
"""So many examples stand for all, where patches are compared with them."""

Numbers = npt.NDArray[np.intp]
Chosen = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Places:
    """Which recording (by number) a patch is of, which of its patches it is, and what is near.

    `reach`: patches of one recording whose numbers differ by less sound at the same time.

    Shape:
        recordings, patches, reach: [n]
    """

    recordings: Numbers
    patches: Numbers
    reach: Numbers


def logits_of(head: F64, rows: F32, lengths: F32) -> F32:
    """What a head, which is for rows of length one, says of each patch.

    Shape:
        head: [dim + 1]; rows: [n, dim]; lengths: [n], of the rows -> [n]
    """
    said: F32 = rows @ head[:-1].astype(np.float32)
    said = (said / np.where(lengths > 0, lengths, 1)).astype(np.float32, copy=False)
    return said + np.float32(head[-1])


def likeness(rows: F32, lengths: F32, examples: F32) -> F32:
    """The cosine of each patch with the example that it is most like; of many examples some count.

    Shape:
        rows: [n, dim]; lengths: [n], of the rows; examples: [n_examples, dim] -> [n]
    """
    cosines: F32 = (rows @ _unit(_some(examples)).T).max(axis=1)
    return (cosines / np.where(lengths > 0, lengths, 1)).astype(np.float32, copy=False)


def choose(
    order: Order, said: F32, is_open: Chosen, places: Places, n: int, rows: F32, examples: F32
) -> Numbers:
    """The numbers of at most `n` patches to ask about, in this order, of those that are open.

    First one of each recording, then further ones that do not overlap. "uncertain" is nearest to a
    logit of 0; "diverse" is, of the best, always the one that is least like all examples and like
    what was chosen before.

    Shape:
        said, is_open: [n_patches]; rows: [n_patches, dim]; examples: [n_examples, dim]
    """
    wanted = -np.abs(said) if order == "uncertain" else said
    open_ones = np.flatnonzero(is_open)
    if len(open_ones) > _LOOKED_AT:
        first = np.argpartition(-wanted[open_ones], _LOOKED_AT)[:_LOOKED_AT]
        open_ones = open_ones[first]
    ranked = open_ones[np.argsort(-wanted[open_ones], kind="stable")]
    if order != "diverse":
        return _spread(ranked, places, n)
    return _farthest(_spread(ranked, places, max(n, _VARIED)), n, rows, examples)


def _spread(ranked: Iterable[int], places: Places, n: int) -> Numbers:
    """The first of each recording, then the second, ...; none that overlaps with a better one."""
    of_recording: Counter[int] = Counter()
    taken: set[tuple[int, int]] = set()
    found: list[tuple[int, int]] = []  # how many of its recording are better, and the patch
    for each in ranked:
        recording, patch = int(places.recordings[each]), int(places.patches[each])
        if (recording, patch) in taken:
            continue
        reach = int(places.reach[each])
        taken.update((recording, patch + by) for by in range(1 - reach, reach))
        found.append((of_recording[recording], int(each)))
        of_recording[recording] += 1
    found.sort(key=lambda pair: pair[0])  # stable: the order stays within
    return np.array([each for _, each in found[:n]], dtype=np.intp)


def _farthest(pool: Numbers, n: int, rows: F32, examples: F32) -> Numbers:
    unit = _unit(rows[pool])
    nearest = np.full(len(pool), -1.0, dtype=np.float32)
    if len(examples):
        nearest = (unit @ _unit(_some(examples)).T).max(axis=1).astype(np.float32)
    chosen: list[int] = []
    for _ in range(min(n, len(pool))):
        best = int(nearest.argmin())
        chosen.append(best)
        nearest = np.maximum(nearest, unit @ unit[best])
        nearest[chosen] = np.inf
    return pool[chosen]


def _some(examples: F32) -> F32:
    if len(examples) <= _MOST_EXAMPLES:
        return examples
    return examples[np.linspace(0, len(examples) - 1, _MOST_EXAMPLES).round().astype(np.intp)]


def _unit(rows: F32) -> F32:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return (rows / np.where(lengths > 0, lengths, 1)).astype(np.float32, copy=False)
