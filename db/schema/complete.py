"""The whole schema, for migrations: the tables, and indexes over some of a table's rows.

These are not in `db.schema.tables`: to state their conditions SQLAlchemy loads both dialects,
which takes as long as to ask a question.
"""

from __future__ import annotations

from sqlalchemy import Index, text

from db.schema import alert_tables, tables, threshold_tables, verdict_tables
from db.schema.base import metadata

_MODULES = (alert_tables, tables, threshold_tables, verdict_tables)
"""Loaded so that `schema` has their tables."""

schema = metadata
"""Every table with every index."""

Index(
    "uq_models_promoted",
    tables.models.c.is_promoted,
    unique=True,
    sqlite_where=text("is_promoted = 1"),
    postgresql_where=text("is_promoted"),
)
Index(
    "ix_sources_untimed",
    tables.sources.c.id,
    sqlite_where=text("recorded_by IS NULL"),
    postgresql_where=text("recorded_by IS NULL"),
)
Index(
    "ix_clips_placed",
    tables.clips.c.latitude_deg,
    sqlite_where=text("latitude_deg IS NOT NULL"),
    postgresql_where=text("latitude_deg IS NOT NULL"),
)
Index(
    "uq_labellings_current",
    tables.labellings.c.clip_id,
    unique=True,
    sqlite_where=text("is_current = 1"),
    postgresql_where=text("is_current"),
)
