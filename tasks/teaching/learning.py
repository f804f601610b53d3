"""A class that is being taught: what is known of it by now, and which sounds to ask about next.

The head is that of `tasks.teaching.teach`, from the same examples. Before there are enough, sounds
are compared with the examples that there are.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from sqlalchemy import Engine

from audioset_core.arrays import F32, F64
from audioset_core.errors import UserError
from audioset_core.scores.pooling import sigmoid
from audioset_core.teaching.choice import Chosen, Numbers, Order, choose, likeness, logits_of
from audioset_core.teaching.fit import (
    LEAST_PATCHES,
    LEAST_RECORDINGS,
    Examples,
    FittedClass,
    fit_head,
    fit_heads,
)
from db.judging.verdicts import StoredVerdict
from db.score_files.teachable import EmbeddedModel
from tasks.teaching.examples import gather
from tasks.teaching.patches import Patches

_SLACK_S = 1e-3


@dataclass(frozen=True, slots=True)
class Learned:
    """The examples of one class, and its head; None where there are too few.

    `why` says what is missing then, in a line. `key` is another for other examples.
    """

    key: str
    name: str
    examples: Examples | None
    head: F64 | None
    why: str

    @property
    def counts(self) -> tuple[int, int, int]:
        """Patches and recordings that are examples, and other recordings."""
        if self.examples is None:
            return 0, 0, 0
        labels, recordings = self.examples.labels[:, 0], self.examples.recordings
        present, absent = (np.unique(recordings[labels == value]) for value in (1, 0))
        return int((labels == 1).sum()), len(present), len(absent)

    @property
    def positives(self) -> F32:
        """Embeddings of the examples [n, dim]."""
        if self.examples is None:
            return np.empty((0, 1), dtype=np.float32)
        positives: F32 = self.examples.embeddings[self.examples.labels[:, 0] == 1]
        return positives


@dataclass(frozen=True, slots=True)
class Asked:
    """Patches to ask about, by number, and what is said of each: a score or a likeness (0 to 1)."""

    numbers: Numbers
    values: F32
    is_likeness: bool


@dataclass(slots=True)
class Teacher:
    """Heads and figures of the classes that are being taught, kept while nothing changes."""

    engine: Engine
    home: Path
    _learned: dict[str, Learned] = field(default_factory=dict)
    _figures: dict[str, list[tuple[str, FittedClass]]] = field(default_factory=dict)
    _fitting: threading.Lock = field(default_factory=threading.Lock)
    _measuring: threading.Lock = field(default_factory=threading.Lock)

    def learned(self, base: EmbeddedModel, mid: str, name: str) -> Learned:
        """The class by what is known of it now; what did not change is not fitted again."""
        with self._fitting:
            try:
                gathered = gather(self.engine, self.home, base, [mid], {}, 0)
            except UserError:  # nobody has said anything of it
                return Learned("", name, None, None, _missing(name, 0, 0))
            key = f"{base.title} {gathered.examples_sha256} {gathered.embeddings_sha256}"
            known = self._learned.get(mid)
            if known is None or known.key != key:
                known = self._learned[mid] = _learned(key, name, gathered.examples)
            return known

    def figures(self, mid: str, learned: Learned) -> list[FittedClass]:
        """How good the head is by cross-validation: now (last), and after fewer examples.

        Empty where there is no head. What was measured since the program started is kept.
        """
        if learned.examples is None or learned.head is None:
            return []
        with self._measuring:
            known = self._figures.setdefault(mid, [])
            is_newest = self._learned.get(mid, learned).key == learned.key
            if is_newest and (not known or known[-1][0] != learned.key):
                (found,) = fit_heads(learned.examples, [learned.name]).classes
                known.append((learned.key, found))
            return [each for _, each in known]


def ask(learned: Learned, patches: Patches, order: Order, is_open: Chosen, n: int) -> Asked:
    """At most `n` patches to ask about; none where the class has no example yet.

    Without a head, "uncertain" is the order of likeness.
    """
    if learned.examples is None or not len(learned.positives):
        return Asked(np.empty(0, dtype=np.intp), np.empty(0, dtype=np.float32), True)
    if learned.head is None:
        said = likeness(patches.rows, patches.lengths, learned.positives)
        order = "best" if order == "uncertain" else order
    else:
        said = logits_of(learned.head, patches.rows, patches.lengths)
    numbers = choose(order, said, is_open, patches.places, n, patches.rows, learned.positives)
    is_likeness = learned.head is None
    return Asked(numbers, said[numbers] if is_likeness else sigmoid(said[numbers]), is_likeness)


def still_open(patches: Patches, verdicts: Sequence[StoredVerdict]) -> Chosen:
    """Whether nobody has said anything of a patch, nor of one that overlaps with it."""
    number = {clip.clip_sha256: at for at, clip in enumerate(patches.clips)}
    is_open = np.ones(len(patches.rows), dtype=np.bool_)
    for each in verdicts:
        at = number.get(each.clip)
        if at is None:
            continue
        rows = slice(int(patches.first[at]), int(patches.first[at + 1]))
        if each.start_s is None or each.end_s is None:
            is_open[rows] = False
            continue
        clip = patches.clips[at]
        starts_s = patches.places.patches[rows] * clip.patch_hop_s
        is_before = starts_s + clip.window_s <= each.start_s + _SLACK_S
        is_open[rows] &= is_before | (starts_s >= each.end_s - _SLACK_S)
    return is_open


def _learned(key: str, name: str, examples: Examples) -> Learned:
    bare = Learned(key, name, examples, None, "")
    n_patches, n_recordings, _ = bare.counts
    if n_patches < LEAST_PATCHES or n_recordings < LEAST_RECORDINGS:
        return Learned(key, name, examples, None, _missing(name, n_patches, n_recordings))
    try:
        return Learned(key, name, examples, fit_head(examples, name), "")
    except UserError as error:  # nothing to tell the examples from, or no scikit-learn
        return Learned(key, name, examples, None, str(error))


def _missing(name: str, n_patches: int, n_recordings: int) -> str:
    """What is missing, in a line.

    >>> _missing("Wood saw", 2, 1)
    'It takes 3 more examples and 1 more recording to learn Wood saw.'
    """
    wants = [
        f"{n} more {what}{'s' if n > 1 else ''}"
        for n, what in (
            (LEAST_PATCHES - n_patches, "example"),
            (LEAST_RECORDINGS - n_recordings, "recording"),
        )
        if n > 0
    ]
    return f"It takes {' and '.join(wants)} to learn {name}."
