"""How often a sound reaches which score over the collection: the sorted score curve, as counts.

Scores are stored in steps of 1/10,000, so a curve over any number of clips is at most 10,000 rows
and exact.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Engine, Select, and_, func, select

from db.engine import reading
from db.query.current_labelling import taught_models
from db.query.find import prepared
from db.query.question import Question
from db.query.subtrees import counts, node_id, reaches
from db.query.time_spans import covered_seconds, timed
from db.schema.tables import clip_scores, closure, detections, labellings, nodes


@dataclass(frozen=True, slots=True)
class ScoreCurve:
    """How many clips have which best score, highest first.

    `hours` is how long the detections last whose peak reaches the least score asked for: as
    `db.query.hours.hours_heard` by class. None for the whole subtree.
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

    A source-ambiguous class counts in company only, as in every question
    (`db.query.ambiguous_classes`).

    Raises:
        DatabaseUserError: as `db.query.find.find_intervals`.
    """
    question = Question(under=(under,), min_score=min_score)
    with reading(engine) as conn:
        row = conn.execute(select(nodes).where(nodes.c.id == node_id(conn, under))).one()
        tree, allowed = prepared(conn, question, by_interval=True)
        counting = and_(counts(clip_scores, tree), allowed)
        whole = conn.execute(_subtree_counts(counting)).all()
        curves = [_curve(row.mid, row.name, [(r[0], r[1]) for r in whole], None)]
        query = _heard(and_(counts(detections, tree), allowed), min_score)
        hours = {row.node_id: float(row.seconds) / 3600 for row in conn.execute(query)}
        classes = _class_curves(conn, row.id, counting, hours)
    rank = sorted(classes, key=lambda c: (-(c.hours or 0.0), -c.clips_at_least(min_score), c.mid))
    return curves + rank


def _class_curves(
    conn: Connection, root: int, counting: ColumnElement[bool], hours: dict[int, float]
) -> list[ScoreCurve]:
    found: dict[int, list[tuple[float, int]]] = {}
    per_class = _class_counts(counting, is_single=not taught_models(conn))
    for node, peak, n in conn.execute(per_class):
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


def _subtree_counts(counting: ColumnElement[bool]) -> Select[tuple[float, int]]:
    best = (
        select(func.max(clip_scores.c.peak).label("peak"))
        .join(labellings, labellings.c.id == clip_scores.c.labelling_id)
        .where(counting)
        .group_by(labellings.c.clip_id)
        .subquery("best")
    )
    return select(best.c.peak, func.count()).group_by(best.c.peak).order_by(best.c.peak.desc())


def _class_counts(
    counting: ColumnElement[bool], *, is_single: bool
) -> Select[tuple[int, float, int]]:
    """(node, score, clips). `is_single`: one labelling of a clip counts, as the index has them."""
    own = (
        select(clip_scores.c.node_id, clip_scores.c.peak)
        .join(labellings, labellings.c.id == clip_scores.c.labelling_id)
        .where(counting)
    )
    if not is_single:
        best = func.max(clip_scores.c.peak).label("peak")
        of_clip = own.group_by(clip_scores.c.node_id, labellings.c.clip_id)
        own = of_clip.with_only_columns(clip_scores.c.node_id, best)
    row = own.subquery("own").c
    return (
        select(row.node_id, row.peak, func.count())
        .group_by(row.node_id, row.peak)
        .order_by(row.node_id, row.peak.desc())
    )


def _heard(counting: ColumnElement[bool], min_score: float) -> Select[Any]:
    heard = timed(labellings.c.clip_id, detections.c.node_id)
    return covered_seconds(heard.where(counting, reaches(detections, min_score)), "node_id")
