"""What every table has in common."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Column, MetaData

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
