"""Examples of classes among stored embeddings: what people said, and random patches beside it."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from sqlalchemy import Engine

from audioset_core.arrays import F32
from audioset_core.errors import AudioError, UserError
from audioset_core.evaluation.metrics import UNKNOWN, Labels
from audioset_core.evaluation.truth_files import Truth
from audioset_core.teaching.fit import Examples
from db.score_files.labelled import ScoredClip
from db.score_files.teachable import (
    EmbeddedModel,
    clips_at,
    embedded_clips,
    embedded_labellings,
    iter_clips,
    members,
)
from tasks.evaluation.derive_intervals import checked_scores
from tasks.evaluation.verdict_truth import truth_of_verdicts
from tasks.teaching.lacking import without_embeddings

MOST_RANDOM_PATCHES = 2000
MOST_RANDOM_CLIPS = 500
"""Of recordings that nobody said anything about, taken as examples of none of the classes."""
MOST_PATCHES = 200
"""Of one recording and class, evenly spread: ten hours of rain are one example of rain."""
MOST_EXAMPLES = 20_000
LEAST_PATCHES = 4
"""Of very many recordings fewer patches of each, so that memory stays small; no fewer than four."""

Span = tuple[float, float] | None


@dataclass(frozen=True, slots=True)
class Mark:
    """A class (by its number) is there, or not, in a span of a clip in seconds; None: all of it."""

    k: int
    is_present: bool
    span_s: Span


@dataclass(slots=True)
class Gathered:
    """Examples, digests of what they are, and what was left out: counts, and files with reasons."""

    examples: Examples
    examples_sha256: str
    embeddings_sha256: str
    left_out: Counter[str] = field(default_factory=Counter)
    failures: list[tuple[str, str, str]] = field(default_factory=list)


def gather(
    engine: Engine,
    home: Path,
    base: EmbeddedModel,
    mids: Sequence[str],
    folders: Mapping[str, Sequence[str]],
    seed: int,
) -> Gathered:
    """Patches of the base with what is known of the classes.

    A class is present where a verdict says so of it, or of one below it, and in all recordings of
    its `folders`. It is absent where a verdict says so of it, or of one above it, in the examples
    of unrelated classes, and in random recordings that nobody said anything about.

    Raises:
        UserError: there is no example at all, or a folder has no known recording.
        DatabaseUserError: unknown MID.
    """
    below = [members(engine, mid) for mid in mids]
    left_out = Counter[str]()
    marks = _marks(engine, mids, below, folders, left_out)
    rows: list[F32] = []
    labels: list[Labels] = []
    used: list[ScoredClip] = []
    failures: list[tuple[str, str, str]] = []

    def add(clip: ScoredClip, which: npt.NDArray[np.intp], said: Labels) -> None:
        try:
            stored = checked_scores(home, clip, "embeddings")
        except AudioError as error:
            failures.append((clip.clip_sha256, clip.embeddings_path or "", error.detail))
            return
        if stored is not None and len(which):
            used.append(clip)
            rows.append(np.asarray(stored[which], dtype=np.float32))
            labels.append(said[which])

    most = min(MOST_PATCHES, max(LEAST_PATCHES, MOST_EXAMPLES // max(1, len(marks))))
    for clip in embedded_clips(engine, base.model_id, list(marks)):
        said = thinned(labels_of(marks[clip.clip_sha256], clip, below, mids), most)
        add(clip, np.flatnonzero((said != UNKNOWN).any(axis=1)), said)
    if n_without := len(marks) - len(used) - len(failures):
        left_out[f"judged recordings have no embeddings of {base.title}"] = n_without
    if not used and marks and (lacking := without_embeddings(engine, base.title)):
        raise UserError(f"none of the {len(marks):,} examples has embeddings; there are {lacking}")
    if not used:
        raise UserError(
            "there are no examples with embeddings: import verdicts (audioset verdicts import), "
            "or give --examples CLASS=FOLDER"
        )
    rng = np.random.default_rng(seed)
    for clip, which in _random_patches(engine, base, set(marks), rng):
        add(clip, which, np.zeros((clip.n_patches or 0, len(mids)), dtype=np.int8))
    told = sorted(
        (sha256, mids[mark.k], mark.is_present, mark.span_s or ())
        for sha256, own in marks.items()
        for mark in own
    )
    sources = sorted(f"{clip.clip_sha256} {clip.embeddings_sha256}" for clip in used)
    return Gathered(
        Examples(
            np.concatenate(rows),
            np.concatenate(labels),
            np.repeat(np.arange(len(rows)), [len(each) for each in rows]),
        ),
        hashlib.sha256(repr(told).encode()).hexdigest(),
        hashlib.sha256("\n".join(sources).encode()).hexdigest(),
        left_out=left_out,
        failures=failures,
    )


def labels_of(
    marks: Sequence[Mark], clip: ScoredClip, below: Sequence[frozenset[str]], mids: Sequence[str]
) -> Labels:
    """What the marks say of each patch.

    A mark is of the patches whose centre lies in it, or of the nearest one. What is an example of
    one class is none of another, unless one is below the other, or the recording has both.

    Shape:
        [n_patches, n_classes] int8; 1 present, 0 absent, -1 unknown
    """
    n_patches = clip.n_patches or 0
    labels = np.full((n_patches, len(mids)), UNKNOWN, dtype=np.int8)
    for mark in sorted(marks, key=lambda mark: mark.is_present):  # a yes has the last word
        labels[_patches(mark.span_s, clip), mark.k] = mark.is_present
    is_heard = (labels == 1).any(axis=0)
    heard, others = (np.flatnonzero(which).tolist() for which in (is_heard, ~is_heard))
    for k in heard:
        for other in others:
            if mids[k] not in below[other] and mids[other] not in below[k]:
                own = (labels[:, k] == 1) & (labels[:, other] == UNKNOWN)
                labels[own, other] = 0
    return labels


def _patches(span_s: Span, clip: ScoredClip) -> npt.NDArray[np.intp]:
    every = np.arange(clip.n_patches or 0)
    if span_s is None:
        return every
    centres_s = every * clip.patch_hop_s + clip.window_s / 2
    inside = every[(centres_s >= span_s[0]) & (centres_s < span_s[1])]
    if len(inside):
        return inside
    return np.array([np.abs(centres_s - sum(span_s) / 2).argmin()])


def _marks(
    engine: Engine,
    mids: Sequence[str],
    below: Sequence[frozenset[str]],
    folders: Mapping[str, Sequence[str]],
    left_out: Counter[str],
) -> Mapping[str, list[Mark]]:
    """By the clip's SHA-256."""
    found: dict[str, list[Mark]] = defaultdict(list)
    truth = Truth("csv", ())
    with suppress(UserError):  # there are no verdicts: the folders may do
        truth, _ = truth_of_verdicts(engine)
    said_absent = {mid for item in truth.items for mid in item.negatives or ()}
    below_absent = {mid: members(engine, mid) for mid in said_absent}
    for item in truth.items:
        for k, own in enumerate(below):
            is_present = not own.isdisjoint(item.positives)
            if is_present or any(mids[k] in below_absent[mid] for mid in item.negatives or ()):
                found[item.keys[0]].append(Mark(k, is_present, item.span_s))
    left_out.update(truth.left_out)
    for mid, given in folders.items():
        for folder in given:
            clips = clips_at(engine, str(Path(folder).absolute()))
            if not clips:
                raise UserError(
                    f"--examples {folder}: no labelled recording is there; first run "
                    f"audioset label --embeddings {folder}"
                )
            for sha256 in clips:
                found[sha256].append(Mark(mids.index(mid), True, None))
    return found


def thinned(labels: Labels, most: int) -> Labels:
    """At most so many patches of each class, present and absent; the others are unknown.

    Shape:
        labels: [n_patches, n_classes] -> the same
    """
    kept = labels.copy()
    for k in range(labels.shape[1]):
        for value in (0, 1):
            own = np.flatnonzero(labels[:, k] == value)
            if len(own) > most:
                kept[own, k] = UNKNOWN
                kept[own[_evenly(len(own), most)], k] = value
    return kept


def _random_patches(
    engine: Engine, base: EmbeddedModel, marked: set[str], rng: np.random.Generator
) -> Iterator[tuple[ScoredClip, npt.NDArray[np.intp]]]:
    ids = np.array(embedded_labellings(engine, base.model_id), dtype=np.int64)
    # More than are needed: some are marked.
    drawn = rng.permutation(ids)[: MOST_RANDOM_CLIPS + len(marked)]
    clips = [
        clip
        for clip in iter_clips(engine, [int(key) for key in drawn])
        if clip.clip_sha256 not in marked
    ][:MOST_RANDOM_CLIPS]
    each = -(-MOST_RANDOM_PATCHES // max(1, len(clips)))
    for clip in clips:
        yield clip, np.sort(rng.permutation(clip.n_patches or 0)[:each]).astype(np.intp)


def _evenly(n: int, n_kept: int) -> npt.NDArray[np.intp]:
    return np.linspace(0, n - 1, n_kept).round().astype(np.intp)
