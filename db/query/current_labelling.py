"""Which labellings speak for a clip.

One represents it: the current one, or the newest of a model that is named. Beside the current one
counts the newest by each taught model that is not retired, which knows other classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Select, and_, exists, func, or_, select, true

from db.errors import DatabaseUserError
from db.schema.tables import clips, labellings, models, parameter_sets


def with_facts(query: Select[Any]) -> Select[Any]:
    """A query over labellings, joined with their clips, models and sets of parameters."""
    return (
        query.join(clips, clips.c.id == labellings.c.clip_id)
        .join(models, models.c.id == labellings.c.model_id)
        .join(parameter_sets, parameter_sets.c.id == labellings.c.parameter_set_id)
    )


def model_ids(conn: Connection, model: str | None) -> list[int] | None:
    """Ids of a model's versions (NAME), or of one (NAME@VERSION), newest first; None for None.

    Raises:
        DatabaseUserError: no model has that name.
    """
    return None if model is None else [row.id for row in _versions(conn, model)]


def newest_version(conn: Connection, model: str) -> Row[Any]:
    """(id, name, version) of NAME's newest version, or of NAME@VERSION.

    Raises:
        DatabaseUserError: no model has that name.
    """
    return _versions(conn, model)[0]


def _versions(conn: Connection, model: str) -> Sequence[Row[Any]]:
    name, _, version = model.partition("@")
    query = select(models.c.id, models.c.name, models.c.version).where(models.c.name == name)
    if version:
        query = query.where(models.c.version == version)
    newest_first = query.order_by(models.c.registered_at.desc(), models.c.id.desc())
    found = conn.execute(newest_first).all()
    if not found:
        every = select(models.c.name, models.c.version).order_by(models.c.name, models.c.id)
        known = ", ".join(f"{row.name}@{row.version}" for row in conn.execute(every))
        message = f"no labels by a model called {model!r}; known models: {known or 'none yet'}"
        raise DatabaseUserError(message)
    return found


def floor(conn: Connection, ids: Sequence[int] | None, stored: str = "score_floor") -> float:
    """From which score on everything is stored: the highest such floor in use.

    `stored` is "score_floor" for clips, "detection_threshold" for intervals. An index answers
    whether a set of parameters is in use.
    """
    in_use = select(labellings.c.id).where(
        labellings.c.parameter_set_id == parameter_sets.c.id,
        labellings.c.model_id == models.c.id,
    )
    in_use = in_use.correlate(parameter_sets, models)
    which = in_use.where(or_(labellings.c.is_current, is_beside()))
    query = select(func.max(parameter_sets.c[stored]))
    query = query.join_from(parameter_sets, models, true())
    if ids is not None:
        which = in_use.where(labellings.c.status == "done", models.c.id.in_(ids))
    return float(conn.execute(query.where(has_row(which))).scalar() or 0.0)


def has_row(query: Select[Any]) -> ColumnElement[bool]:
    """EXISTS, looked up row by row: PostgreSQL may read all that EXISTS could find into a hash."""
    return query.limit(1).scalar_subquery().is_not(None)


def represents_clip(
    ids: Sequence[int] | None, table: Any = labellings, *, with_embeddings: bool = False
) -> ColumnElement[bool]:
    """The condition that a row of labellings is the one that represents its clip.

    `with_embeddings`: of a named model's, the newest that has embeddings.
    """
    row = table.c
    if ids is None:
        return and_(row.is_current)
    later = labellings.alias("later")
    is_later = or_(
        later.c.labelled_at > row.labelled_at,
        and_(later.c.labelled_at == row.labelled_at, later.c.id > row.id),
    )
    superseded = exists().where(
        later.c.clip_id == row.clip_id,
        later.c.model_id.in_(ids),
        later.c.status == "done",
        is_later,
        *([has_embeddings(later)] if with_embeddings else []),
    )
    own = [has_embeddings(table)] if with_embeddings else []
    return and_(row.model_id.in_(ids), row.status == "done", ~superseded, *own)


def taught_models(conn: Connection) -> list[list[int]]:
    """The ids of the versions of each taught model that counts beside the current labellings."""
    query = select(models.c.name, models.c.id).where(is_beside()).order_by(models.c.id)
    found: dict[str, list[int]] = {}
    for name, model_id in conn.execute(query):
        found.setdefault(name, []).append(model_id)
    return list(found.values())


def is_beside(of: Any = models) -> ColumnElement[bool]:
    """The condition that a model's labellings count beside the current ones."""
    return and_(of.c.is_taught, ~of.c.is_retired)


def speaks_for_clip(
    conn: Connection, ids: Sequence[int] | None, table: Any = labellings
) -> ColumnElement[bool]:
    """The condition that a row of labellings is one of those that are asked about its clip.

    Without a named model, a clip may have several: count clips, not labellings.
    """
    beside = taught_models(conn) if ids is None else []
    return or_(represents_clip(ids, table), *(represents_clip(own, table) for own in beside))


def has_embeddings(table: Any = labellings) -> ColumnElement[bool]:
    """The condition that a labelling has embeddings of all its patches, be there any or not."""
    return or_(table.c.embeddings_path.is_not(None), table.c.n_patches == 0)
