"""What every table has in common."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Column, ForeignKey, Integer, MetaData

from db.types import ScoreType

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)
"""Every constraint has a name, so that migrations can reach it."""


def column(name: str, *kind_and_more: Any, nullable: bool = False, **options: Any) -> Column[Any]:
    """A column that is NOT NULL unless it says otherwise."""
    return Column(name, *kind_and_more, nullable=nullable, **options)


def refers_to(table: str, name: str, **options: Any) -> Column[Any]:
    """A column with the id of a row of another table, which cannot be deleted meanwhile."""
    return column(name, Integer, ForeignKey(f"{table}.id"), **options)


def belongs_to(table: str, name: str, **options: Any) -> Column[Any]:
    """A column with the id of a row of another table; the row is deleted together with that."""
    return column(name, Integer, ForeignKey(f"{table}.id", ondelete="CASCADE"), **options)


def interval_columns() -> tuple[Column[Any], ...]:
    """What is known of an interval of one category; `end_patch` is the last patch inside."""
    return (
        refers_to("nodes", "node_id", primary_key=True),
        column("start_patch", Integer, primary_key=True),
        column("end_patch", Integer),
        column("peak", ScoreType),
        column("mean", ScoreType),
        column("peak_patch", Integer),
    )
