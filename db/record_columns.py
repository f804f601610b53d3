"""Which columns a record is made of, so that a field of an answer is named in one place."""

from __future__ import annotations

from dataclasses import MISSING, fields
from typing import Any

from sqlalchemy import ColumnElement, FromClause


def columns_for(
    record: type[Any], *tables: FromClause, **named: ColumnElement[Any]
) -> list[ColumnElement[Any]]:
    """A column for each field of a dataclass that has no default, in the order of the fields.

    It is the one `named` as the field, else the one of that name in the first of the tables that
    has it. ``record(*row)`` makes the record.

    Raises:
        KeyError: no table has it.
    """
    found: list[ColumnElement[Any]] = []
    for field in fields(record):
        if field.default is MISSING and field.default_factory is MISSING:
            column = named.get(field.name)
            if column is None:
                column = next((t.c[field.name] for t in tables if field.name in t.c), None)
            if column is None:
                raise KeyError(f"no column for {record.__name__}.{field.name}")
            found.append(column.label(field.name))
    return found
