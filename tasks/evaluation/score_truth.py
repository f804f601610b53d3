"""Scores of the recordings that a truth file names, beside what it says of them.

Scores come from the stored `.npy` files: all classes, not only what SQL keeps above a floor.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from sqlalchemy import Engine

from audioset_core.arrays import Floats
from audioset_core.errors import AudioError, UserError
from audioset_core.evaluation.metrics import UNKNOWN, Labels, Scores
from audioset_core.evaluation.truth_files import Item, Truth
from audioset_core.ontology.graph import Ontology
from audioset_core.scores.coverage import end_s
from audioset_core.scores.pooling import pool
from db.catalog.ontology import node_ids
from db.engine import reading
from db.ledger.label_rows import category_nodes
from db.score_files.labelled import ScoredClip, iter_named, iter_scored
from tasks.evaluation.derive_intervals import checked_scores
from tasks.evaluation.match_truth import match_items

Pooling = Literal["mean", "peak"]
Reach = Literal["class", "subtree"]

# A span's edge may be rounded; a recording may be a little longer than its segment.
_SLACK_S = 0.005
_SEGMENT_SLACK_S = 1.0


@dataclass(slots=True)
class Scored:
    """Scores and truth as tables of the same shape, and what had to be left out."""

    mids: tuple[str, ...]
    scores: Scores
    labels: Labels
    clips: list[str]
    items: list[Item]
    n_items: int = 0
    """In the truth file."""
    n_unmatched: int = 0
    n_ambiguous: int = 0
    n_unscored: int = 0
    """No patch in the span, or in the recording."""
    n_beyond: int = 0
    """Scored by one patch that reaches beyond the span."""
    n_not_in_truth: int = 0
    """Labelled recordings that no item means."""
    unpredictable: tuple[str, ...] = ()
    examples: tuple[str, ...] = ()
    failures: list[tuple[str, str, str]] = field(default_factory=list)


def score_truth(
    engine: Engine,
    home: Path,
    truth: Truth,
    ontology: Ontology,
    *,
    model: str,
    pooling: Pooling,
    reach: Reach,
) -> Scored:
    """Pool the scores of every item that is a labelled recording, or a span of one.

    `reach`: a class is its own output, or the best in its subtree. Classes that the model has no
    output for are left out and named.

    Raises:
        UserError: no class of the truth can be predicted, or no item is a labelled recording.
        DatabaseUserError: no model has that name.
    """
    matched = match_items(truth.items, iter_named(engine, model))
    by_labelling: dict[int, list[Item]] = {}
    for item, labelling_id in matched.pairs:
        by_labelling.setdefault(labelling_id, []).append(item)
    members = _Members(engine, ontology, truth, reach)
    rows: list[Scores] = []
    found = Scored((), np.empty((0, 0), np.float32), np.empty((0, 0), np.int8), [], [])
    for clip in iter_scored(engine, model):
        items = by_labelling.get(clip.labelling_id)
        if items is None:
            found.n_not_in_truth += 1
            continue
        try:
            logits = checked_scores(home, clip)
        except AudioError as error:
            found.failures.append((clip.clip_sha256, clip.scores_path or "", error.detail))
            continue
        for item in items:
            if logits is None:
                found.n_unscored += 1
                continue
            part, is_within = _part(logits, clip, item)
            if not len(part):
                found.n_unscored += 1
                continue
            found.n_beyond += not is_within
            rows.append(members.scores(clip.model_id, _pooled(part, pooling)))
            found.items.append(item)
            found.clips.append(clip.clip_sha256)
    if not rows and not found.failures:
        raise UserError(
            f"none of the {len(truth.items):,} recordings of the truth is labelled by {model}, "
            f"such as {', '.join(map(repr, matched.examples[:3]))}: are they named by file name, "
            "path, id or clip id?"
        )
    found.mids, found.unpredictable = members.mids, members.unpredictable
    found.scores = np.array(rows, dtype=np.float32).reshape(len(rows), len(found.mids))
    found.labels = _labels(found.items, found.mids)
    found.n_items = len(truth.items)
    found.n_unmatched, found.n_ambiguous = matched.n_unmatched, matched.n_ambiguous
    found.examples = matched.examples
    return found


def patches_of(clip: ScoredClip, n_patches: int, span_s: tuple[float, float]) -> tuple[slice, bool]:
    """The patches that lie within a span and True, or the one nearest to its middle and False."""
    start_s = np.arange(n_patches) * clip.patch_hop_s
    ends_s = end_s(
        np.arange(n_patches),
        hop_s=clip.patch_hop_s, window_s=clip.window_s, duration_s=clip.duration_s,
    )  # fmt: skip
    inside = np.flatnonzero((start_s >= span_s[0] - _SLACK_S) & (ends_s <= span_s[1] + _SLACK_S))
    if len(inside):
        return slice(int(inside[0]), int(inside[-1]) + 1), True
    if not n_patches or span_s[0] >= clip.duration_s:
        return slice(0, 0), True
    nearest = int(np.argmin(np.abs((start_s + ends_s) / 2 - sum(span_s) / 2)))
    return slice(nearest, nearest + 1), False


def _part(logits: Floats, clip: ScoredClip, item: Item) -> tuple[Floats, bool]:
    """The rows of the item: of its span, of its segment in a longer recording, or all.

    And whether they lie within.
    """
    span_s = item.span_s
    if item.segment_s is not None:
        begin_s, end_s = item.segment_s
        # In the segment's own file times count from its start, which may be a little longer.
        if clip.duration_s > end_s - begin_s + _SEGMENT_SLACK_S:
            first_s, last_s = span_s or (0.0, end_s - begin_s)
            span_s = (begin_s + first_s, begin_s + last_s)
    if span_s is None:
        return logits, True
    rows, is_within = patches_of(clip, len(logits), span_s)
    return logits[rows], is_within


def _pooled(logits: Floats, pooling: Pooling) -> Scores:
    """By category index."""
    found = pool(logits, floor=0.0, threshold=2.0).class_scores
    return np.array([getattr(each, pooling) for each in found], dtype=np.float32)


def _labels(items: Sequence[Item], mids: Sequence[str]) -> Labels:
    labels = np.zeros((len(items), len(mids)), dtype=np.int8)
    column = {mid: k for k, mid in enumerate(mids)}
    for row, item in zip(labels, items, strict=True):
        if item.negatives is not None:
            row[:] = UNKNOWN
            row[[column[mid] for mid in item.negatives if mid in column]] = 0
        row[[column[mid] for mid in item.positives if mid in column]] = 1
    return labels


class _Members:
    """Which outputs of each version of the model make up a class of the truth."""

    def __init__(self, engine: Engine, ontology: Ontology, truth: Truth, reach: Reach) -> None:
        self._engine = engine
        with reading(engine) as conn:
            mid_of = {node_id: mid for mid, node_id in node_ids(conn).items()}
        self._mid_of = mid_of
        self._nodes = {mid: _nodes_of(mid, ontology, truth, reach) for mid in truth.mids}
        self._columns: dict[int, Mapping[str, npt.NDArray[np.intp]]] = {}
        self.mids: tuple[str, ...] = ()
        self.unpredictable: tuple[str, ...] = ()

    def scores(self, model_id: int, pooled: Scores) -> Scores:
        """One item's row."""
        if model_id not in self._columns:
            self._columns[model_id] = self._of(model_id)
        columns = self._columns[model_id]
        return np.array([pooled[columns[mid]].max() for mid in self.mids], dtype=np.float32)

    def _of(self, model_id: int) -> Mapping[str, npt.NDArray[np.intp]]:
        with reading(self._engine) as conn:
            index_of = {
                self._mid_of[node]: index for index, node in category_nodes(conn, model_id).items()
            }
        columns = {
            mid: np.array([index_of[each] for each in below if each in index_of], dtype=np.intp)
            for mid, below in self._nodes.items()
        }
        mids = tuple(mid for mid, own in columns.items() if len(own))
        if not mids:
            raise UserError("the model can predict none of the classes of the truth")
        if self.mids and mids != self.mids:
            raise UserError(
                "versions of the model differ in their classes: name one, --model NAME@VERSION"
            )
        self.mids = mids
        self.unpredictable = tuple(mid for mid, own in columns.items() if not len(own))
        return columns


def _nodes_of(mid: str, ontology: Ontology, truth: Truth, reach: Reach) -> tuple[str, ...]:
    """A class's nodes. Classes that exclude each other leave out what another one is more exactly:
    an engine is then any engine but a chainsaw, if that is a class of its own."""
    if reach == "class":
        return (mid,)
    below = {node.mid for node in ontology.subtree(mid)}
    if truth.is_exclusive:
        for other in below.intersection(truth.mids) - {mid}:
            below -= {node.mid for node in ontology.subtree(other)}
    return tuple(sorted(below))
