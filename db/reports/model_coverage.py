"""Questions by ontology subtree. A subtree's score is the best of the categories below it.

Source-ambiguous classes count only in company (`db.query.ambiguous_classes`), unless asked for.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Engine, select

from db.answer_records import Hit
from db.engine import reading
from db.query.current_labelling import floor, model_ids
from db.query.find import find_clips, find_intervals
from db.query.question import Question
from db.query.subtrees import predicted_below
from db.reports.clip import clip_by_ref, corpus_summary, failures, models_known, prediction_rows
from db.schema.tables import categories, nodes

__all__ = [
    "Question",
    "categories_of",
    "clip_by_ref",
    "corpus_summary",
    "failures",
    "find_clips",
    "find_intervals",
    "models_known",
    "predictable_members",
    "prediction_rows",
    "score_floor",
    "top_clips",
]


def top_clips(
    engine: Engine,
    under: str,
    not_under: Sequence[str] = (),
    min_score: float = 0.0,
    limit: int | None = 100,
    model: str | None = None,
    *,
    with_ambiguous: bool = False,
) -> list[Hit]:
    """The best clips in the subtree of a MID, best first: `find_clips` for the plainest question.

    Raises:
        DatabaseUserError: unknown MID or model, nothing below can be predicted, or `min_score` is
            below what is stored.
    """
    question = Question(
        under=(under,),
        not_under=tuple(not_under),
        min_score=min_score,
        model=model,
        limit=limit,
        with_ambiguous=with_ambiguous,
    )
    return find_clips(engine, question)


def predictable_members(
    engine: Engine, mid: str, model: str | None = None
) -> list[tuple[str, str]]:
    """(MID, name) of the node and those below it that a model predicts, in ontology order."""
    with reading(engine) as conn:
        return predicted_below(conn, mid, model_ids(conn, model))


def score_floor(engine: Engine, model: str | None = None) -> float:
    """The score from which on everything is stored, for the labellings that would be asked."""
    with reading(engine) as conn:
        return floor(conn, model_ids(conn, model))


def categories_of(engine: Engine, model: str) -> list[tuple[int, str, str]]:
    """(index, MID, name) of the newest version of a model."""
    with reading(engine) as conn:
        ids = model_ids(conn, model)
        assert ids is not None  # noqa: S101 (for mypy: None is for no model)
        query = (
            select(categories.c.idx, nodes.c.mid, categories.c.name)
            .join(nodes, nodes.c.id == categories.c.node_id)
            .where(categories.c.model_id == ids[0])
            .order_by(categories.c.idx)
        )
        return [(row[0], row[1], row[2]) for row in conn.execute(query)]
