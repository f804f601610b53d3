"""The best windows of many clips, reading only the clips that can hold one.

Exact: clips come with a bound that none of their scores exceeds, highest first; once the bound is
below the k-th score found, nothing that follows can be among the best k.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, Protocol, TypeVar

import numpy as np

from audioset_core.arrays import Floats
from audioset_core.scores.pooling import sliding_scores, window_spans


class Rankable(Protocol):
    """What the database knows of a clip, before its scores are read."""

    @property
    def clip(self) -> str:
        """Its id, by which equal scores are ordered."""

    @property
    def bound(self) -> float:
        """An upper limit: no score of the clip is higher."""

    @property
    def patch_hop_s(self) -> float:
        """Seconds from one patch to the next."""


T = TypeVar("T", bound=Rankable)


@dataclass(frozen=True, slots=True)
class Window(Generic[T]):
    """A window of consecutive patches (both inclusive) and the category that is best in it."""

    of: T
    score: float
    category_index: int
    first_patch: int
    last_patch: int


@dataclass(frozen=True, slots=True)
class Ranking(Generic[T]):
    """The best windows, best first, and how many clips had to be read for them."""

    windows: tuple[Window[T], ...]
    n_read: int


def patches_in(seconds: float, *, hop_s: float, window_s: float) -> int:
    """How many consecutive patches fit into so many seconds; at least one.

    >>> patches_in(10.0, hop_s=0.48, window_s=0.96)
    19
    """
    return max(1, 1 + int((seconds - window_s) / hop_s + 1e-9))


def best_windows(
    clips: Iterable[T],
    read: Callable[[T], tuple[Floats, Sequence[int]]],
    size: Callable[[T], tuple[int, int]],
    *,
    top: int,
    min_score: float = 0.0,
    mode: Literal["max", "mean"] = "max",
) -> Ranking[T]:
    """The `top` windows of at least `min_score`; among equals by clip id, then by time.

    A clip may come several times, with the scores of several models: a window counts once.

    `read` gives a clip's logits and the categories that count; `size` a window's length and stride
    in patches. Memory holds one clip's columns and the best windows.

    Shape:
        logits: [n_patches, n_classes]
    """
    best: list[Window[T]] = []
    n_read = 0
    for clip in clips:
        at_least = best[-1].score if len(best) == top else min_score
        if clip.bound < at_least:
            break
        logits, indices = read(clip)
        n_read += 1
        found = _windows(clip, logits, indices, size(clip), mode, at_least, top)
        best = _each_once(sorted([*best, *found], key=_order))[:top]
    return Ranking(tuple(best), n_read)


def _windows(
    clip: T,
    logits: Floats,
    indices: Sequence[int],
    size: tuple[int, int],
    mode: Literal["max", "mean"],
    at_least: float,
    top: int,
) -> Iterator[Window[T]]:
    """The clip's own best windows, as many as can be among the best of all."""
    if not len(logits) or not len(indices):
        return
    length, stride = size
    scores = sliding_scores(logits[:, list(indices)], window=length, stride=stride, mode=mode)
    which = scores.argmax(axis=1)
    best = scores[np.arange(len(scores)), which]
    spans = window_spans(len(logits), window=length, stride=stride)
    order = np.argsort(-best, kind="stable")[:top]
    for place in order[best[order] >= np.float32(at_least)].tolist():
        first, last = spans[place].tolist()
        yield Window(clip, float(best[place]), indices[which[place]], first, last)


def _each_once(best_first: list[Window[T]]) -> list[Window[T]]:
    found: dict[tuple[Any, ...], Window[T]] = {}
    for one in best_first:
        found.setdefault((one.of.clip, one.of.patch_hop_s, one.first_patch, one.last_patch), one)
    return list(found.values())


def _order(window: Window[Any]) -> tuple[float, str, int]:
    return -window.score, window.of.clip, window.first_patch
