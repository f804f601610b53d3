"""Clips by what a set of thresholds found in them: its thresholds decide, not one least score.

As `db.queries`, with the set's intervals in place of clip scores: a clip counts if the set has an
interval of any class in the subtree; source-ambiguous classes count in company only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Engine, Row, and_, exists, func, or_, select

from db.ambiguity import ambiguous_below
from db.engine import reading
from db.hits import first_source
from db.results import Hit
from db.selection import model_ids, speaks
from db.subtrees import node_id
from db.tables import (
    clips,
    closure,
    derivations,
    intervals,
    labellings,
    models,
    nodes,
    parameter_sets,
    sources,
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
        best_first = (intervals.c.peak.desc(), intervals.c.start_patch, intervals.c.node_id)
        ranked = (
            select(
                intervals,
                labellings.c.clip_id,
                labellings.c.model_id,
                labellings.c.parameter_set_id,
                func.row_number()
                .over(partition_by=intervals.c.labelling_id, order_by=best_first)
                .label("rank"),
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
            .subquery("ranked")
        )
        best = select(ranked).where(ranked.c.rank == 1).subquery("best")
        query = _with_details(best).limit(limit)
        return [_hit(row) for row in conn.execute(query)]


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


def _with_details(best: Any) -> Any:
    """Add the class, the recording and its first source."""
    own = sources.c.clip_id == best.c.clip_id
    first = sources.alias("first_source")
    copies = select(func.count()).select_from(sources).where(own, sources.c.status != "missing")
    return (
        select(
            best,
            clips.c.sha256,
            clips.c.duration_s,
            nodes.c.mid,
            nodes.c.name,
            first.c.path,
            first.c.path_text,
            (first.c.status == "missing").label("is_missing"),
            copies.scalar_subquery().label("copies"),
            parameter_sets.c.patch_hop_s,
            models.c.window_s,
        )
        .select_from(best)
        .join(clips, clips.c.id == best.c.clip_id)
        .join(nodes, nodes.c.id == best.c.node_id)
        .join(models, models.c.id == best.c.model_id)
        .join(parameter_sets, parameter_sets.c.id == best.c.parameter_set_id)
        .outerjoin(first, first.c.id == first_source(best.c.clip_id).scalar_subquery())
        .order_by(best.c.peak.desc(), clips.c.sha256)
    )


def _hit(row: Row[Any]) -> Hit:
    return Hit(
        clip=row.sha256,
        path=row.path,
        path_text=row.path_text,
        n_sources=row.copies,
        is_missing=bool(row.is_missing),
        mid=row.mid,
        name=row.name,
        score=row.peak,
        start_s=row.start_patch * row.patch_hop_s,
        end_s=min(row.duration_s, row.end_patch * row.patch_hop_s + row.window_s),
        peak_s=row.peak_patch * row.patch_hop_s,
        duration_s=row.duration_s,
    )
