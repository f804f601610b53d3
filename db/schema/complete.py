"""The whole schema, for migrations: the tables, and indexes over some of a table's rows.

These are not in `db.schema.tables`: to state their conditions SQLAlchemy loads both dialects,
which takes as long as to ask a question.
"""

from __future__ import annotations

from sqlalchemy import Column, Index, text

from db.schema.base import metadata
from db.schema.tables import labellings, models, sources


def _partial(
    name: str, of: Column[int], sqlite: str, postgresql: str, *, unique: bool = False
) -> Index:
    return Index(
        name, of, unique=unique, sqlite_where=text(sqlite), postgresql_where=text(postgresql)
    )


_PARTIAL_INDEXES = (
    _partial(
        "uq_models_promoted",
        models.c.is_promoted,
        "is_promoted = 1",
        "is_promoted",
        unique=True,
    ),
    _partial("ix_sources_untimed", sources.c.id, "recorded_by IS NULL", "recorded_by IS NULL"),
    _partial(
        "uq_labellings_current",
        labellings.c.clip_id,
        "is_current = 1",
        "is_current",
        unique=True,
    ),
)

schema = metadata
"""Every table with every index: these joined their tables when they were made."""
