"""Which labelling speaks for a clip: the current one, or the newest of a model that is named."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, exists, or_, select

from db.errors import DatabaseUserError
from db.tables import labellings, models


def model_ids(conn: Connection, model: str | None) -> list[int] | None:
    """Ids of all versions of a model, newest first; None for None.

    Raises:
        DatabaseUserError: no model has that name.
    """
    if model is None:
        return None
    query = select(models.c.id).where(models.c.name == model)
    newest_first = query.order_by(models.c.registered_at.desc(), models.c.id.desc())
    ids = list(conn.execute(newest_first).scalars())
    if not ids:
        known = sorted(set(conn.execute(select(models.c.name)).scalars()))
        names = ", ".join(known) or "none yet"
        raise DatabaseUserError(f"no labels by a model called {model!r}; known models: {names}")
    return ids


def speaks(ids: Sequence[int] | None, table: Any = labellings) -> ColumnElement[bool]:
    """The condition that a row of labellings is the one that speaks for its clip."""
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
    )
    return and_(row.model_id.in_(ids), row.status == "done", ~superseded)
