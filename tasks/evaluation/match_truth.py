"""Which recording an item of a truth file means: by clip id, id, path, or file name."""

from __future__ import annotations

import os
import posixpath
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from audioset_core.evaluation.truth_files import Item

# How sure a name is, the surest first.
_CLIP, _ID, _PATH, _FILE, _STEM = range(5)
_N_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Matched:
    """Items with their labelling's id; what could not be matched is counted, with examples."""

    pairs: tuple[tuple[Item, int], ...]
    n_unmatched: int
    n_ambiguous: int
    examples: tuple[str, ...]


def match_items(
    items: Sequence[Item], named: Iterable[tuple[int, str, bytes, str | None]]
) -> Matched:
    """Find each item's recording; `named` are the (labelling, clip, path, id) there are.

    A key may be a path's end of any length. Where it means several recordings, the surest kind of
    name decides; if several are left, the item is ambiguous and not used.
    """
    pairs: list[tuple[Item, int]] = []
    counts = Counter[str]()
    examples: list[str] = []
    chosen_by_keys = match_keys([item.keys for item in items], named)
    for item in items:
        chosen = chosen_by_keys[item.keys]
        if len(chosen) == 1:
            pairs.append((item, chosen[0]))
            continue
        counts["ambiguous" if chosen else "unmatched"] += 1
        if len(examples) < _N_SHOWN:
            examples.append(item.keys[0])
    return Matched(tuple(pairs), counts["unmatched"], counts["ambiguous"], tuple(examples))


def match_keys(
    wanted: Iterable[tuple[str, ...]], named: Iterable[tuple[int, str, bytes, str | None]]
) -> dict[tuple[str, ...], list[int]]:
    """What each of some names means; `named` are the (number, clip, path, id) there are.

    Of several keys the first that means anything decides, and of that the surest kind of name. Two
    numbers or more: it means them all alike.
    """
    every = set(wanted)
    looked_for = {_normal(key) for keys in every for key in keys}
    found: dict[str, dict[int, int]] = {}
    for number, clip, path, user_id in named:
        for rank, key in _names(clip, path, user_id):
            if key in looked_for:
                own = found.setdefault(key, {})
                own[number] = min(rank, own.get(number, rank))
    chosen: dict[tuple[str, ...], list[int]] = {}
    for keys in every:
        candidates = next((found[k] for k in map(_normal, keys) if k in found), {})
        surest = min(candidates.values(), default=None)
        chosen[keys] = [each for each, rank in candidates.items() if rank == surest]
    return chosen


def _normal(key: str) -> str:
    return posixpath.normpath(key.replace("\\", "/")) if "/" in key or "\\" in key else key


def _names(clip: str, path: bytes, user_id: str | None) -> Iterator[tuple[int, str]]:
    yield _CLIP, clip
    if user_id:
        yield _ID, _normal(user_id)
    text = os.fsdecode(path)
    yield _PATH, text
    parts = PurePosixPath(text).parts
    for n in range(2, len(parts)):
        yield _PATH, "/".join(parts[-n:])
    if parts:
        yield _FILE, parts[-1]
        yield _STEM, PurePosixPath(parts[-1]).stem
