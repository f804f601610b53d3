"""Statements that find scores and intervals; what they share is which rows count."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, FromClause, Integer, Select, and_, cast, func, null, select

from db.query.answers import with_details
from db.query.paths import first_source, is_trusted
from db.query.question import Question, file_conditions, interval_conditions
from db.query.subtrees import Subtree, counts, reaches
from db.query.time_spans import end_s, in_span, start_s, timed
from db.schema.tables import (
    clip_scores,
    clips,
    detections,
    labellings,
    models,
    nodes,
    parameter_sets,
    sources,
)

# With a type, which PostgreSQL wants to know.
UNKNOWN = cast(null(), Integer)
"""Still to be looked up, by `db.query.answers.with_details`."""


def kth_peak_query(tree: Subtree, min_score: float, place: int) -> Select[Any]:
    """The highest of what the subtree's categories' labellings in that place reach.

    Whether they represent their clips is not asked, so the index alone answers. Ambiguous
    categories are left aside: not all of their clips count.
    """
    its_scores = select(clip_scores.c.peak).where(
        clip_scores.c.node_id == nodes.c.id, reaches(clip_scores, min_score)
    )
    best_first = its_scores.order_by(clip_scores.c.peak.desc())
    kth = best_first.limit(1).offset(place - 1).correlate(nodes).scalar_subquery()
    return select(func.max(kth)).where(nodes.c.id.in_(tree.plain))


def found_query(
    tree: Subtree,
    at_least: float,
    allowed: ColumnElement[bool],
    within: Select[Any] | None = None,
) -> Select[Any]:
    """The scores of clips that reach `at_least`; their interval is left to be looked up.

    `within` as in `intervals_query`.
    """
    query = (
        select(
            clip_scores.c.labelling_id,
            clip_scores.c.node_id,
            clip_scores.c.peak,
            labellings.c.clip_id,
            UNKNOWN.label("start_patch"),
            UNKNOWN.label("source_id"),
        )
        .select_from(clip_scores)
        .join(labellings, labellings.c.id == clip_scores.c.labelling_id)
        .where(
            reaches(clip_scores, at_least),
            counts(clip_scores, tree, seek=within is None),
            allowed,
        )
    )
    return query if within is None else query.where(labellings.c.clip_id.in_(within))


def intervals_query(
    tree: Subtree,
    at_least: float,
    allowed: ColumnElement[bool],
    question: Question,
    within: Select[Any] | None = None,
) -> Select[Any]:
    """The intervals that reach `at_least`, are long enough and lie in the span.

    `within`, if given, are the ids of the few clips that can have one: those are read, instead of
    all that the subtree has in the index.
    """
    same = and_(detections.c.labelling_id == clip_scores.c.labelling_id,
               detections.c.node_id == clip_scores.c.node_id)  # fmt: skip
    return (
        fitting_intervals(detections, allowed, question, within)
        .join(clip_scores, same)
        .where(
            reaches(clip_scores, at_least),
            reaches(detections, at_least),
            counts(clip_scores, tree, seek=within is None),
        )
    )


def fitting_intervals(
    intervals: Any,
    allowed: ColumnElement[bool],
    question: Question,
    within: Select[Any] | None = None,
) -> Select[Any]:
    """The rows of `intervals` that are long enough and lie in the span, whatever is heard."""
    begins, ends = start_s(intervals), end_s(intervals)
    conditions = [allowed, *interval_conditions(question, intervals)]
    if within is not None:
        conditions.append(labellings.c.clip_id.in_(within))
    source_id: ColumnElement[Any] = UNKNOWN
    if question.span is not None:
        in_time = and_(is_trusted(), in_span(question.span, sources, begins, ends))
        first = first_source(labellings.c.clip_id, *file_conditions(question), in_time)
        fitting = first.correlate(labellings, intervals, clips, models, parameter_sets)
        source_id = fitting.scalar_subquery()
    columns = (
        intervals.c.labelling_id,
        intervals.c.node_id,
        intervals.c.peak,
        labellings.c.clip_id,
        intervals.c.start_patch,
        source_id.label("source_id"),
    )
    return timed(*columns, of=intervals).where(*conditions)


def answers(
    found: Select[Any], question: Question, *, once: bool, intervals: FromClause = detections
) -> Select[Any]:
    """What a person is told of the rows that were found, of a clip's only the best if `once`."""
    if question.span is not None:
        found = with_source(found)
    chosen = best_of_clips(found) if once else found.subquery("chosen")
    return with_details(chosen, question, intervals)


def with_source(found: Select[Any]) -> Select[Any]:
    """The rows with a span for which a source fits."""
    part = found.subquery("found")
    return select(part).where(part.c.source_id.is_not(None))


def best_of_clips(found: Select[Any], by: str = "clip_id") -> Any:
    """The best row of each clip: highest peak, then ontology order, then earliest.

    `by` "labelling_id": of each labelling that speaks for a clip.
    """
    part = found.subquery("of_clips")
    best_first = (part.c.peak.desc(), part.c.node_id, part.c.labelling_id, part.c.start_patch)
    rank = func.row_number().over(partition_by=part.c[by], order_by=best_first)
    ranked = select(part, rank.label("place")).subquery("ranked")
    return select(ranked).where(ranked.c.place == 1).subquery("chosen")
