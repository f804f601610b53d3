"""Clips by what a set of thresholds found in them: its thresholds decide, not one least score.

As `db.queries`, with the set's intervals in place of clip scores: a clip counts if the set has an
interval of any class in the subtree; source-ambiguous classes count in company only.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import ColumnElement, Engine, and_, exists, or_, select

from db.ambiguity import ambiguous_below
from db.engine import reading
from db.found import UNKNOWN, best_of_clips
from db.hits import hit_of, with_details
from db.results import Hit
from db.selection import model_ids, speaks
from db.subtrees import node_id
from db.tables import (
    closure,
    derivations,
    intervals,
    labellings,
)
from db.threshold_sets import StoredSet


def top_clips_of_set(
    engine: Engine,
    stored: StoredSet,
    under: str,
    not_under: Sequence[str] = (),
    limit: int | None = 100,
    *,
    with_ambiguous: bool = False,
) -> list[Hit]:
    """The clips with an interval in the subtree of a MID, the highest peak first.

    A hit's interval is the one with that peak. Clips with an interval in a subtree of `not_under`
    are left out. Only clips that the set was applied to are seen: `db.scored.count_underived`.

    Raises:
        DatabaseUserError: unknown MID, or no labels by the set's model.
    """
    with reading(engine) as conn:
        ids = model_ids(conn, stored.values.model)
        root = node_id(conn, under)
        excluded = [node_id(conn, mid) for mid in not_under]
        ambiguous = [] if with_ambiguous else ambiguous_below(conn, root)
        found = (
            select(
                intervals.c.labelling_id,
                intervals.c.node_id,
                intervals.c.peak,
                intervals.c.start_patch,
                labellings.c.clip_id,
                UNKNOWN.label("source_id"),
            )
            .join_from(closure, intervals, intervals.c.node_id == closure.c.descendant_id)
            .join(labellings, labellings.c.id == intervals.c.labelling_id)
            .join(
                derivations,
                and_(
                    derivations.c.labelling_id == labellings.c.id,
                    derivations.c.threshold_set_id == stored.set_id,
                    derivations.c.scores_sha256 == labellings.c.scores_sha256,
                ),
            )
            .where(
                closure.c.ancestor_id == root,
                intervals.c.threshold_set_id == stored.set_id,
                speaks(ids),
                *_in_company(stored, root, ambiguous),
                *_without(stored, excluded),
            )
        )
        own = select(intervals).where(intervals.c.threshold_set_id == stored.set_id)
        told = own.subquery("of_set")
        query = with_details(best_of_clips(found), (), "score", limit, told)
        return [hit_of(row) for row in conn.execute(query)]


def _in_company(
    stored: StoredSet, root: int, ambiguous: Sequence[int]
) -> list[ColumnElement[bool]]:
    if not ambiguous:
        return []
    other, below = intervals.alias("unambiguous"), closure.alias("below")
    heard = exists().where(
        other.c.labelling_id == intervals.c.labelling_id,
        other.c.threshold_set_id == stored.set_id,
        other.c.node_id.not_in(ambiguous),
        below.c.ancestor_id == root,
        below.c.descendant_id == other.c.node_id,
    )
    return [or_(intervals.c.node_id.not_in(ambiguous), heard.correlate(intervals))]


def _without(stored: StoredSet, excluded: Sequence[int]) -> list[ColumnElement[bool]]:
    if not excluded:
        return []
    other, below = intervals.alias("other"), closure.alias("excluded")
    found = exists().where(
        other.c.labelling_id == labellings.c.id,
        other.c.threshold_set_id == stored.set_id,
        below.c.ancestor_id.in_(excluded),
        below.c.descendant_id == other.c.node_id,
    )
    return [~found.correlate(labellings)]
