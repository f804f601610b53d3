"""Questions by a set of thresholds: its intervals are what is heard, not what reaches one score.

As `db.query.find`, with the set's intervals in place of scores and detections. Only clips that the
set was applied to are seen: `db.score_files.labelled.count_underived`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, Engine, FromClause, Select, exists, select

from db.answer_records import HeardSound, Hit
from db.engine import reading
from db.query.answers import hit_of
from db.query.find import few_clips, prepared
from db.query.per_class import Choice, sounds_of_each_class
from db.query.question import Question
from db.query.statements import answers, fitting_intervals
from db.query.subtrees import counts
from db.schema.tables import labellings
from db.schema.threshold_tables import derivations, intervals
from db.thresholds.sets import StoredSet


def find_clips_of_set(engine: Engine, stored: StoredSet, question: Question) -> list[Hit]:
    """Clips with their best interval of the set, each clip once.

    The question's least score and model are left aside: the set has its own.

    Raises:
        DatabaseUserError: unknown MID, no labels by the set's model, or none that it predicts.
    """
    return _find(engine, stored, question, once=True)


def find_intervals_of_set(engine: Engine, stored: StoredSet, question: Question) -> list[Hit]:
    """Every interval of the set in the subtree; otherwise as `find_clips_of_set`."""
    return _find(engine, stored, question, once=False)


def find_sounds_of_set(
    engine: Engine,
    stored: StoredSet,
    question: Question,
    most: int,
    choice: Choice = "score",
    seed: int = 0,
) -> list[HeardSound]:
    """As `db.query.find.find_sounds`, of the set's intervals."""
    question = replace(question, model=stored.values.model, min_score=0.0)
    with reading(engine) as conn:
        found, _ = _found(conn, stored, question)
        return sounds_of_each_class(conn, found, question, most, choice, seed)


def _find(engine: Engine, stored: StoredSet, question: Question, *, once: bool) -> list[Hit]:
    question = replace(question, model=stored.values.model, min_score=0.0)
    with reading(engine) as conn:
        found, of_set = _found(conn, stored, question)
        query = answers(found, question, once=once, intervals=of_set)
        return [hit_of(row) for row in conn.execute(query)]


def _found(
    conn: Connection, stored: StoredSet, question: Question
) -> tuple[Select[Any], FromClause]:
    """The set's intervals that answer the question, and all of its intervals."""
    own = intervals.c.threshold_set_id == stored.set_id
    of_set = select(intervals).where(own).subquery("of_set")
    # Intervals of scores that have been replaced since do not count.
    is_fresh = exists().where(
        derivations.c.labelling_id == labellings.c.id,
        derivations.c.threshold_set_id == stored.set_id,
        derivations.c.scores_sha256 == labellings.c.scores_sha256,
    )
    tree, allowed = prepared(conn, question, by_interval=True, heard=of_set, is_single=True)
    within = few_clips(conn, question)
    found = fitting_intervals(intervals, allowed, question, within).where(
        own,
        is_fresh.correlate(labellings),
        counts(intervals, tree, seek=within is None, heard=of_set),
    )
    return found, of_set
