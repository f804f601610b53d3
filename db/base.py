"""What every table has in common."""

from __future__ import annotations

from datetime import datetime
from typing import cast

from sqlalchemy import LargeBinary, MetaData, Table
from sqlalchemy.orm import DeclarativeBase

from db.types import CleanText, FiniteFloat, UtcDateTime


class Base(DeclarativeBase):
    """Common metadata: every constraint has a name, so that migrations can reach it."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy reads it as a class attribute
        str: CleanText,
        float: FiniteFloat,
        datetime: UtcDateTime,
        bytes: LargeBinary,
    }


def table_of(row: type[Base]) -> Table:
    """The `Table` of a row's class."""
    return cast(Table, row.__table__)
