"""A sample to judge by ear: equally many clips from each part of the score range."""

from __future__ import annotations

import hashlib
import heapq
from dataclasses import dataclass

from sqlalchemy import Connection, Engine, Select, and_, func, select

from db.engine import reading
from db.selection import speaks
from db.subtrees import Subtree, counts, node_id, subtree
from db.tables import (
    clip_scores,
    clips,
    closure,
    detections,
    labellings,
    models,
    nodes,
    parameter_sets,
)

_PAGE = 10_000

_Drawn = tuple[int, int]
"""(lot, labelling id)."""


@dataclass(frozen=True, slots=True)
class ReviewItem:
    """A clip of the sample: its best class below the node, and that class's best interval.

    The interval is None where no patch reached the detection threshold.
    """

    clip: str
    mid: str
    name: str
    score: float
    start_s: float | None
    end_s: float | None
    peak_s: float | None
    duration_s: float


def review_sample(
    engine: Engine, under: str, size: int, *, n_bins: int, least: float, seed: int
) -> list[ReviewItem]:
    """Clips below a node, spread evenly over `n_bins` equal parts of the scores from `least` to 1.

    What a part lacks the others give. The same seed on the same labels gives the same sample in
    the same (mixed) order on any database; memory holds `size` clips per part.

    Raises:
        DatabaseUserError: unknown MID.
    """
    with reading(engine) as conn:
        root = node_id(conn, under)
        bins: list[list[_Drawn]] = [[] for _ in range(n_bins)]
        query = _best_scores(subtree(conn, [under]), least)
        with conn.execution_options(yield_per=_PAGE).execute(query) as rows:
            for clip, labelling_id, score in rows:
                drawn = (_lot(seed, clip), labelling_id)
                _keep(bins[score_bin(score, least, n_bins)], drawn, size)
        chosen = _dealt([sorted(kept, reverse=True) for kept in bins], size)
        return [_item(conn, root, labelling_id) for _, labelling_id in sorted(chosen, reverse=True)]


def score_bin(score: float, least: float, n_bins: int) -> int:
    """Which of `n_bins` equal parts of [least, 1] a score lies in; 1 lies in the last."""
    span = max(1.0 - least, 1e-9)
    return min(n_bins - 1, max(0, int((score - least) / span * n_bins + 1e-9)))


def _lot(seed: int, clip: str) -> int:
    """A number drawn for a clip: what decides depends on neither the database nor its order.

    Negative, so that a heap, which gives its least, gives up the clip that was drawn last.
    """
    digest = hashlib.blake2b(f"{seed} {clip}".encode(), digest_size=8).digest()
    return -int.from_bytes(digest, "big")


def _keep(heap: list[_Drawn], drawn: _Drawn, size: int) -> None:
    if len(heap) < size:
        heapq.heappush(heap, drawn)
    else:
        heapq.heappushpop(heap, drawn)


def _dealt(bins: list[list[_Drawn]], size: int) -> list[_Drawn]:
    """One of each part in turn, until there are enough or none is left."""
    longest = max(map(len, bins))
    turns = (kept[turn] for turn in range(longest) for kept in reversed(bins) if turn < len(kept))
    return [drawn for _, drawn in zip(range(size), turns, strict=False)]


def _best_scores(tree: Subtree, least: float) -> Select[tuple[str, int, float]]:
    return (
        select(clips.c.sha256, labellings.c.id, func.max(clip_scores.c.peak))
        .select_from(clip_scores)
        .join(labellings, labellings.c.id == clip_scores.c.labelling_id)
        .join(clips, clips.c.id == labellings.c.clip_id)
        .where(counts(clip_scores, tree), clip_scores.c.peak >= least, speaks(None))
        .group_by(clips.c.sha256, labellings.c.id)
    )


def _item(conn: Connection, root: int, labelling_id: int) -> ReviewItem:
    best = conn.execute(
        select(nodes.c.id, nodes.c.mid, nodes.c.name, clip_scores.c.peak)
        .select_from(clip_scores)
        .join(closure, closure.c.descendant_id == clip_scores.c.node_id)
        .join(nodes, nodes.c.id == clip_scores.c.node_id)
        .where(clip_scores.c.labelling_id == labelling_id, closure.c.ancestor_id == root)
        .order_by(clip_scores.c.peak.desc(), nodes.c.id)
        .limit(1)
    ).one()
    interval = and_(detections.c.labelling_id == labellings.c.id, detections.c.node_id == best.id)
    row = conn.execute(
        select(clips.c.sha256, clips.c.duration_s, parameter_sets.c.patch_hop_s, models.c.window_s,
               detections.c.start_patch, detections.c.end_patch, detections.c.peak_patch)
        .select_from(labellings)
        .join(clips, clips.c.id == labellings.c.clip_id)
        .join(models, models.c.id == labellings.c.model_id)
        .join(parameter_sets, parameter_sets.c.id == labellings.c.parameter_set_id)
        .outerjoin(detections, interval)
        .where(labellings.c.id == labelling_id)
        .order_by(detections.c.peak.desc(), detections.c.start_patch)
        .limit(1)
    ).one()  # fmt: skip
    start_s = end_s = peak_s = None
    if row.start_patch is not None:
        start_s = row.start_patch * row.patch_hop_s
        end_s = min(row.duration_s, row.end_patch * row.patch_hop_s + row.window_s)
        peak_s = row.peak_patch * row.patch_hop_s
    return ReviewItem(
        row.sha256, best.mid, best.name, best.peak, start_s, end_s, peak_s, row.duration_s
    )
