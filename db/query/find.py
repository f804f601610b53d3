"""Clips and intervals that answer a question, best first or in another order.

Exact best k without reading the subtree: where some category has k clips that reach a score, so has
the subtree; nothing below the highest of the categories' k-th peaks can be among its best k. Read
from the index alone, without a look at which clips count, that peak is only a guess: where k rows
that count reach it, they are the best k; else further down, and then everything is read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Engine, FromClause, Select, and_, func, select

from db.answer_records import HeardSound, Hit
from db.engine import reading
from db.errors import DatabaseUserError
from db.query.answers import hit_of
from db.query.current_labelling import (
    floor,
    model_ids,
    represents_clip,
    speaks_for_clip,
)
from db.query.per_class import Choice, sounds_of_each_class
from db.query.question import Question, clip_conditions, file_conditions, place_conditions
from db.query.statements import answers, found_query, intervals_query, kth_peak_query
from db.query.subtrees import Subtree, predicted_below, subtree
from db.schema.tables import clip_scores, clips, sources

# So many clips are read one by one sooner than a large subtree is searched.
_FEW_CLIPS = 20_000
# Where the best of a class do not fit, so many times as many are looked at, up to so many.
_DEEPER, _DEEPEST_GUESS = 6, 50_000


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


def find_sounds(
    engine: Engine, question: Question, most: int, choice: Choice = "score", seed: int = 0
) -> list[HeardSound]:
    """At most so many sounds of each class that is heard, the best ones or random ones.

    Detections of a class that touch are one sound. The question's order and limit are left aside.

    Raises:
        DatabaseUserError: as `find_clips`.
    """
    with reading(engine) as conn:
        tree, allowed = prepared(conn, question, by_interval=True)
        within = few_clips(conn, question)
        found = intervals_query(tree, question.min_score, allowed, question, within)
        return sounds_of_each_class(conn, found, question, most, choice, seed)


def prepared(
    conn: Connection,
    question: Question,
    *,
    by_interval: bool,
    heard: FromClause = clip_scores,
    is_single: bool = False,
) -> tuple[Subtree, ColumnElement[bool]]:
    """The nodes that a question is about, and what must hold of a row of labellings.

    Other sounds of a clip are looked for in `heard`. `is_single`: as `allowed_clips`.

    Raises:
        DatabaseUserError: as `find_clips`.
    """
    if not question.under:
        raise DatabaseUserError("nothing is asked for: name a class or category")
    tree = _tree(conn, question, model_ids(conn, question.model))
    return tree, allowed_clips(
        conn, question, by_interval=by_interval, heard=heard, is_single=is_single
    )


def allowed_clips(
    conn: Connection,
    question: Question,
    *,
    by_interval: bool,
    heard: FromClause = clip_scores,
    is_single: bool = False,
) -> ColumnElement[bool]:
    """What must hold of a row of labellings, whatever is looked for there.

    `is_single`: only the one that represents its clip.

    Raises:
        DatabaseUserError: as `find_clips`, but for what is below `under`.
    """
    if not 0.0 <= question.min_score <= 1.0:
        raise DatabaseUserError(f"the minimum score {question.min_score} is not in [0, 1]")
    for name, least in (("limit", 1), ("offset", 0), ("among", 1)):
        value = getattr(question, name)
        if value is not None and value < least:
            raise DatabaseUserError(f"the {name} {value} is not at least {least}")
    ids = model_ids(conn, question.model)
    stored = "detection_threshold" if by_interval else "score_floor"
    _check_floor(question.min_score, floor(conn, ids, stored), by_interval)
    speaks = represents_clip(ids) if is_single else speaks_for_clip(conn, ids)
    return and_(speaks, *clip_conditions(conn, question, heard))


def few_clips(conn: Connection, question: Question) -> Select[Any] | None:
    """The ids of the clips that can lie in span and place, if an index shows that they are few."""
    span, conditions = question.span, place_conditions(question)
    if span is not None and not span.is_daily:
        from_ms = span.from_ms - round(_longest_s(conn) * 1_000) - 1
        conditions += [
            sources.c.recorded_unix_ms < span.to_ms, sources.c.recorded_unix_ms >= from_ms
        ]  # fmt: skip
    return _if_few(conn, *conditions) if conditions else None


def _few_clips_at(conn: Connection, question: Question) -> Select[Any] | None:
    """The ids of the clips of the files that are asked about, if they are few; every path is read.

    None where all files are asked about.
    """
    return _if_few(conn, *file_conditions(question)) if question.paths else None


def _if_few(conn: Connection, *conditions: ColumnElement[bool]) -> Select[Any] | None:
    ids = select(sources.c.clip_id).where(sources.c.clip_id.is_not(None), *conditions)
    n_found = select(func.count()).select_from(ids.limit(_FEW_CLIPS + 1).subquery())
    return ids if conn.execute(n_found).scalar_one() <= _FEW_CLIPS else None


def _longest_s(conn: Connection) -> float:
    """How long the longest clip is; a connection remembers, and then asks about new clips only."""
    last_id, longest_s = conn.info.get("longest_clip", (-1, 0.0))
    query = select(func.max(clips.c.id), func.max(clips.c.duration_s)).where(clips.c.id > last_id)
    new_last, new_longest_s = conn.execute(query).one()
    if new_last is not None:
        last_id, longest_s = new_last, max(longest_s, new_longest_s or 0.0)
        conn.info["longest_clip"] = last_id, longest_s
    return float(longest_s)


def _find(engine: Engine, question: Question, *, by_interval: bool, once: bool) -> list[Hit]:
    with reading(engine) as conn:
        tree, allowed = prepared(conn, question, by_interval=by_interval)
        within = few_clips(conn, question)
        bounds = _lower_bounds(conn, tree, question)
        rows: Sequence[Any] = []
        for at_least in bounds if within is None else [None]:
            if at_least is None and within is None:
                within = _few_clips_at(conn, question)
            least = question.min_score if at_least is None else at_least
            if by_interval:
                found = intervals_query(tree, least, allowed, question, within)
            else:
                found = found_query(tree, least, allowed, within)
            rows = conn.execute(answers(found, question, once=once)).all()
            if _is_whole(question, rows):
                break
    return [hit_of(row) for row in rows]


def _n_best(question: Question) -> int | None:
    """So many of the best decide the answer; None: all do."""
    if question.order != "score":
        return question.among
    return None if question.limit is None else question.offset + question.limit


def _is_whole(question: Question, rows: Sequence[Any]) -> bool:
    """Whether lower scores than those that were read would change nothing."""
    if question.order == "score":
        return len(rows) == question.limit
    return bool(rows) and rows[0].n_ordered == question.among


def _tree(conn: Connection, question: Question, ids: Sequence[int] | None) -> Subtree:
    tree = subtree(conn, question.under, with_ambiguous=question.with_ambiguous)
    for wanted in (question.under, *((mid,) for mid in question.all_of)):
        if not any(predicted_below(conn, mid, ids) for mid in wanted):
            named = " or ".join(wanted)
            raise DatabaseUserError(f"no model here predicts {named} or anything below it")
    return tree


def _check_floor(min_score: float, stored_from: float, by_interval: bool) -> None:
    if 0.0 < min_score < stored_from:
        what, missed = ("intervals", "some") if by_interval else ("scores", "clips")
        message = (
            f"{what} below {stored_from:g} are not stored, so {min_score:g} would miss {missed}"
        )
        raise DatabaseUserError(f"{message}; ask for at least {stored_from:g}, or for no minimum")


def _lower_bounds(conn: Connection, tree: Subtree, question: Question) -> Iterator[float | None]:
    """Scores from which on to look for the best; the last, None, is the question's own."""
    least, place = question.min_score, _n_best(question)
    while place is not None and tree.plain and place <= _DEEPEST_GUESS:
        guess = conn.execute(kth_peak_query(tree, least, place)).scalar()
        if guess is None:
            break
        yield max(least, guess)
        place *= _DEEPER
    yield None
