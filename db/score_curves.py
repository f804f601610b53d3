"""How often a sound reaches which score over the collection: the sorted score curve, as counts.

Scores are stored in steps of 1/10,000, so a curve over any number of clips is at most 10,000 rows
and exact.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, Engine, Select, case, func, select

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


@dataclass(frozen=True, slots=True)
class ScoreCurve:
    """How many clips have which best score, highest first.

    `hours` is the length of the detections (each to the end of its last patch) whose peak reaches
    the least score asked for; None for a whole subtree, whose classes overlap.
    """

    mid: str
    name: str
    scores: tuple[float, ...]
    n_clips: tuple[int, ...]
    hours: float | None

    def clips_at_least(self, score: float) -> int:
        """How many clips reach a score."""
        return sum(n for s, n in zip(self.scores, self.n_clips, strict=True) if s >= score)


def score_curves(engine: Engine, under: str, min_score: float) -> list[ScoreCurve]:
    """The curve of a node's whole subtree, then one per class below it that is heard, best first.

    The subtree's counts clips as `queries.top_clips`: a source-ambiguous class in company only.

    Raises:
        DatabaseUserError: unknown MID.
    """
    with reading(engine) as conn:
        row = conn.execute(select(nodes).where(nodes.c.id == node_id(conn, under))).one()
        whole = conn.execute(_subtree_counts(subtree(conn, [under]))).all()
        curves = [_curve(row.mid, row.name, [(r[0], r[1]) for r in whole], None)]
        hours = {r[0]: float(r[1]) for r in conn.execute(_hours(row.id, min_score))}
        classes = _class_curves(conn, row.id, hours)
    rank = sorted(classes, key=lambda c: (-(c.hours or 0.0), -c.clips_at_least(min_score), c.mid))
    return curves + rank


def _class_curves(conn: Connection, root: int, hours: dict[int, float]) -> list[ScoreCurve]:
    found: dict[int, list[tuple[float, int]]] = {}
    for node, peak, n in conn.execute(_class_counts(root)):
        found.setdefault(node, []).append((peak, n))
    named = {}
    query = select(nodes.c.id, nodes.c.mid, nodes.c.name)
    for row in conn.execute(
        query.join(closure, closure.c.descendant_id == nodes.c.id).where(
            closure.c.ancestor_id == root
        )
    ):
        named[row.id] = (row.mid, row.name)
    return [_curve(*named[node], rows, hours.get(node, 0.0)) for node, rows in found.items()]


def _curve(mid: str, name: str, rows: list[tuple[float, int]], hours: float | None) -> ScoreCurve:
    return ScoreCurve(mid, name, tuple(r[0] for r in rows), tuple(r[1] for r in rows), hours)


def _subtree_counts(tree: Subtree) -> Select[tuple[float, int]]:
    best = (
        select(func.max(clip_scores.c.peak).label("peak"))
        .join(labellings, labellings.c.id == clip_scores.c.labelling_id)
        .where(counts(clip_scores, tree), speaks(None))
        .group_by(clip_scores.c.labelling_id)
        .subquery("best")
    )
    return select(best.c.peak, func.count()).group_by(best.c.peak).order_by(best.c.peak.desc())


def _class_counts(root: int) -> Select[tuple[int, float, int]]:
    return (
        select(clip_scores.c.node_id, clip_scores.c.peak, func.count())
        .select_from(closure)
        .join(clip_scores, clip_scores.c.node_id == closure.c.descendant_id)
        .join(labellings, labellings.c.id == clip_scores.c.labelling_id)
        .where(closure.c.ancestor_id == root, speaks(None))
        .group_by(clip_scores.c.node_id, clip_scores.c.peak)
        .order_by(clip_scores.c.node_id, clip_scores.c.peak.desc())
    )


def _hours(root: int, min_score: float) -> Select[tuple[int, float]]:
    last_s = detections.c.end_patch * parameter_sets.c.patch_hop_s + models.c.window_s
    end_s = case((clips.c.duration_s < last_s, clips.c.duration_s), else_=last_s)
    start_s = detections.c.start_patch * parameter_sets.c.patch_hop_s
    return (
        select(detections.c.node_id, func.sum(end_s - start_s) / 3600)
        .select_from(closure)
        .join(detections, detections.c.node_id == closure.c.descendant_id)
        .join(labellings, labellings.c.id == detections.c.labelling_id)
        .join(clips, clips.c.id == labellings.c.clip_id)
        .join(models, models.c.id == labellings.c.model_id)
        .join(parameter_sets, parameter_sets.c.id == labellings.c.parameter_set_id)
        .where(closure.c.ancestor_id == root, speaks(None), detections.c.peak >= min_score)
        .group_by(detections.c.node_id)
    )
