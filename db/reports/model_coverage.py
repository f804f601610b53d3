"""What models can predict, what they have labelled, and from which score on that is stored."""

from __future__ import annotations

from sqlalchemy import Engine, and_, case, func, or_, select, true

from db.answer_records import ModelReport
from db.engine import reading
from db.query.current_labelling import floor, has_row, is_beside, model_ids
from db.query.subtrees import predicted_below
from db.record_columns import columns_for
from db.schema.tables import (
    categories,
    closure,
    labellings,
    models,
    nodes,
    parameter_sets,
)


def predictable_members(
    engine: Engine, mid: str, model: str | None = None
) -> list[tuple[str, str]]:
    """(MID, name) of the node and those below it that a model predicts, in ontology order."""
    with reading(engine) as conn:
        return predicted_below(conn, mid, model_ids(conn, model))


def sole_speaker(engine: Engine, mid: str) -> str | None:
    """The newest model that predicts a node or one below it, if none that does is asked unnamed.

    As with a retired model, or one that was run beside another and is not the current one.
    """
    below = (
        select(categories.c.idx)
        .join(closure, closure.c.descendant_id == categories.c.node_id)
        .join(nodes, nodes.c.id == closure.c.ancestor_id)
        .where(categories.c.model_id == models.c.id, nodes.c.mid == mid)
        .correlate(models)
    )
    own = select(labellings.c.id).where(
        labellings.c.model_id == models.c.id,
        labellings.c.parameter_set_id == parameter_sets.c.id,
    )
    own = own.correlate(models, parameter_sets)
    is_asked = or_(is_beside(), has_row(own.where(labellings.c.is_current)))
    query = (
        select(models.c.name, is_asked)
        .join_from(models, parameter_sets, true())
        .where(has_row(below), has_row(own))
        .order_by(models.c.registered_at.desc(), models.c.id.desc())
    )
    with reading(engine) as conn:
        rows = conn.execute(query).all()
    return rows[0][0] if rows and not any(row[1] for row in rows) else None


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


def names_of_models(engine: Engine) -> list[str]:
    """The models here that predict classes, by name."""
    is_predicting = has_row(select(categories.c.idx).where(categories.c.model_id == models.c.id))
    query = select(models.c.name).where(is_predicting).distinct().order_by(models.c.name)
    with reading(engine) as conn:
        return list(conn.execute(query).scalars())


def models_known(engine: Engine) -> list[ModelReport]:
    """Registered models, oldest first, with what they labelled."""
    is_done = and_(labellings.c.model_id == models.c.id, labellings.c.status == "done")
    columns = columns_for(
        ModelReport,
        models,
        n_labelled=func.count(labellings.c.id),
        n_current=func.coalesce(func.sum(case((labellings.c.is_current, 1), else_=0)), 0),
    )
    query = (
        select(*columns)
        .select_from(models.outerjoin(labellings, is_done))
        .group_by(models.c.id)
        .order_by(models.c.registered_at, models.c.id)
    )
    with reading(engine) as conn:
        return [ModelReport(*row) for row in conn.execute(query)]
