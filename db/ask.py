"""Clips and intervals that answer a question, best first or in another order.

Exact best k without reading the subtree: where some category has k clips that reach a score, so has
the subtree; nothing below the highest of the categories' k-th peaks can be among its best k. Read
from the index alone, without a look at which clips count, that peak is only a guess: where k rows
that count reach it, they are the best k; else it is tried further down, and then exactly.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    Integer,
    Select,
    and_,
    cast,
    exists,
    func,
    null,
    select,
)

from db.engine import reading
from db.errors import DatabaseUserError
from db.hits import first_source, hit_of, with_details
from db.results import Hit
from db.selection import floor, model_ids, speaks
from db.spans import Span, at_paths, end_s, in_span, start_s
from db.subtrees import Subtree, counts, heard_in, predicted_below, reaches, subtree
from db.tables import (
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
_UNKNOWN = cast(null(), Integer)

Order = Literal["score", "time", "duration", "path"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is asked for. MIDs; scores in [0, 1], 0 for all that is stored.

    A sound below any of `under`, in clips where each of `all_of` and none of `not_under` is heard.
    `min_duration_s` and `span` are about the sound, `paths` (globs) about the file. `model` asks
    its newest labelling, not the current one. `with_ambiguous` lets source-ambiguous classes (Hiss,
    Tick, ...) count on their own.
    """

    under: tuple[str, ...]
    all_of: tuple[str, ...] = ()
    not_under: tuple[str, ...] = ()
    min_score: float = 0.0
    min_duration_s: float = 0.0
    span: Span | None = None
    paths: tuple[str, ...] = ()
    model: str | None = None
    order: Order = "score"
    limit: int | None = 100
    with_ambiguous: bool = False


def find_clips(engine: Engine, question: Question) -> list[Hit]:
    """Clips with their best category and its best interval, each clip once.

    Equal scores are in order of clip id. Where the sound has to last or to lie in a span, the score
    is the best of such intervals.

    Raises:
        DatabaseUserError: unknown MID or model, nothing below can be predicted, or `min_score` is
            below what is stored.
    """
    needs_intervals = question.min_duration_s > 0 or question.span is not None
    return _find(engine, question, by_interval=needs_intervals, once=True)


def find_intervals(engine: Engine, question: Question) -> list[Hit]:
    """Every interval in which a category of the subtree is heard.

    Raises:
        DatabaseUserError: as `find_clips`.
    """
    return _find(engine, question, by_interval=True, once=False)


def kth_peak_query(
    tree: Subtree, min_score: float, place: int, allowed: ColumnElement[bool] | None
) -> Select[Any]:
    """The highest of what the subtree's categories' clips in that place reach.

    Ambiguous ones are left aside: not all of their clips count, so theirs is no bound. Without
    `allowed` all labellings count, and the index alone answers.
    """
    its_scores = select(clip_scores.c.peak).where(
        clip_scores.c.node_id == nodes.c.id, reaches(clip_scores, min_score)
    )
    if allowed is not None:
        joined = labellings.c.id == clip_scores.c.labelling_id
        its_scores = its_scores.join(labellings, joined).where(allowed)
    best_first = its_scores.order_by(clip_scores.c.peak.desc())
    kth = best_first.limit(1).offset(place - 1).correlate(nodes).scalar_subquery()
    return select(func.max(kth)).where(nodes.c.id.in_(tree.plain))


def found_query(tree: Subtree, at_least: float, allowed: ColumnElement[bool]) -> Select[Any]:
    """The scores of clips that reach `at_least`; their interval is left to be looked up."""
    return (
        select(
            clip_scores.c.labelling_id,
            clip_scores.c.node_id,
            clip_scores.c.peak,
            labellings.c.clip_id,
            _UNKNOWN.label("start_patch"),
            _UNKNOWN.label("source_id"),
        )
        .select_from(clip_scores)
        .join(labellings, labellings.c.id == clip_scores.c.labelling_id)
        .where(reaches(clip_scores, at_least), counts(clip_scores, tree), allowed)
    )


def intervals_query(
    tree: Subtree, at_least: float, allowed: ColumnElement[bool], question: Question
) -> Select[Any]:
    """The intervals that reach `at_least`, are long enough and lie in the span."""
    begins, ends = start_s(detections), end_s(detections)
    conditions = [reaches(detections, at_least)]
    if question.min_duration_s > 0:
        conditions.append(ends - begins >= question.min_duration_s)
    source_id: ColumnElement[Any] = _UNKNOWN
    if question.span is not None:
        in_time = in_span(question.span, sources, begins, ends)
        first = first_source(labellings.c.clip_id, question.paths, in_time)
        source_id = first.correlate(labellings, detections, clips, models, parameter_sets)
        source_id = source_id.scalar_subquery()
    own = and_(detections.c.labelling_id == clip_scores.c.labelling_id,
               detections.c.node_id == clip_scores.c.node_id)  # fmt: skip
    return (
        select(
            detections.c.labelling_id,
            detections.c.node_id,
            detections.c.peak,
            labellings.c.clip_id,
            detections.c.start_patch,
            source_id.label("source_id"),
            begins.label("start_s"),
            ends.label("end_s"),
        )
        .select_from(clip_scores)
        .join(labellings, labellings.c.id == clip_scores.c.labelling_id)
        .join(clips, clips.c.id == labellings.c.clip_id)
        .join(models, models.c.id == labellings.c.model_id)
        .join(parameter_sets, parameter_sets.c.id == labellings.c.parameter_set_id)
        .join(detections, own)
        .where(reaches(clip_scores, at_least), counts(clip_scores, tree), allowed, *conditions)
    )


def with_source(found: Select[Any]) -> Select[Any]:
    """The rows of an `intervals_query` with a span for which a source fits."""
    part = found.subquery("found")
    return select(part).where(part.c.source_id.is_not(None))


def best_of_clips(found: Select[Any]) -> Any:
    """The best row of each clip: highest peak, then ontology order, then earliest."""
    part = found.subquery("of_clips")
    best_first = (part.c.peak.desc(), part.c.node_id, part.c.start_patch)
    rank = func.row_number().over(partition_by=part.c.labelling_id, order_by=best_first)
    ranked = select(part, rank.label("place")).subquery("ranked")
    return select(ranked).where(ranked.c.place == 1).subquery("chosen")


def prepared(
    conn: Connection, question: Question, *, by_interval: bool
) -> tuple[Subtree, ColumnElement[bool]]:
    """The nodes that a question is about, and what must hold of a row of labellings.

    Raises:
        DatabaseUserError: as `find_clips`.
    """
    _check(question)
    ids = model_ids(conn, question.model)
    tree = _tree(conn, question, ids)
    stored = "detection_threshold" if by_interval else "score_floor"
    _check_floor(question.min_score, floor(conn, ids, stored), by_interval)
    return tree, and_(speaks(ids), *_conditions(conn, question))


def _find(engine: Engine, question: Question, *, by_interval: bool, once: bool) -> list[Hit]:
    with reading(engine) as conn:
        tree, allowed = prepared(conn, question, by_interval=by_interval)
        rows: Sequence[Any] = []
        for at_least in _lower_bounds(conn, tree, question, allowed, is_exact=not by_interval):
            if by_interval:
                found = intervals_query(tree, at_least, allowed, question)
            else:
                found = found_query(tree, at_least, allowed)
            if question.span is not None:
                found = with_source(found)
            chosen = best_of_clips(found) if once else found.subquery("chosen")
            query = with_details(chosen, question.paths, question.order, question.limit)
            rows = conn.execute(query).all()
            if len(rows) == question.limit:
                break
    return [hit_of(row) for row in rows]


def _check(question: Question) -> None:
    if not question.under:
        raise DatabaseUserError("nothing is asked for: name a class or category")
    if not 0.0 <= question.min_score <= 1.0:
        raise DatabaseUserError(f"the minimum score {question.min_score} is not in [0, 1]")
    if question.limit is not None and question.limit < 1:
        raise DatabaseUserError(f"the limit {question.limit} is not at least 1")


def _tree(conn: Connection, question: Question, ids: Sequence[int] | None) -> Subtree:
    tree = subtree(conn, question.under, with_ambiguous=question.with_ambiguous)
    for mid in (*question.under, *question.all_of):
        if not predicted_below(conn, mid, ids):
            raise DatabaseUserError(f"no model here predicts {mid} or anything below it")
    return tree


def _check_floor(min_score: float, stored_from: float, by_interval: bool) -> None:
    if 0.0 < min_score < stored_from:
        what, missed = ("intervals", "some") if by_interval else ("scores", "clips")
        message = (
            f"{what} below {stored_from:g} are not stored, so {min_score:g} would miss {missed}"
        )
        raise DatabaseUserError(f"{message}; ask for at least {stored_from:g}, or for no minimum")


def _conditions(conn: Connection, question: Question) -> list[ColumnElement[bool]]:
    """What must hold of a row of labellings."""
    least, lone = question.min_score, question.with_ambiguous
    all_of = [subtree(conn, [mid], with_ambiguous=lone) for mid in question.all_of]
    wanted = [heard_in(tree, least) for tree in all_of]
    if question.not_under:
        wanted.append(~heard_in(subtree(conn, question.not_under, with_ambiguous=True), least))
    if question.paths:
        own = sources.c.clip_id == labellings.c.clip_id
        wanted.append(exists().where(own, at_paths(question.paths, sources)).correlate(labellings))
    return wanted


def _lower_bounds(
    conn: Connection,
    tree: Subtree,
    question: Question,
    allowed: ColumnElement[bool],
    *,
    is_exact: bool,
) -> Iterator[float]:
    """Scores from which on to look for the best; the last is sure to be low enough."""
    least, limit = question.min_score, question.limit
    if limit is not None and question.order == "score" and tree.plain:
        for place in (limit, 4 * limit):
            guess = conn.execute(kth_peak_query(tree, least, place, None)).scalar()
            if guess is None:
                break
            yield max(least, guess)
        if is_exact:
            kth = conn.execute(kth_peak_query(tree, least, limit, allowed)).scalar()
            yield max(least, kth or 0.0)
            return
    yield least
