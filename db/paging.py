"""Reading many rows in parts: memory stays flat, and no transaction stays open meanwhile."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

from sqlalchemy import BindParameter, ColumnElement, Connection, Engine, Row, Select, bindparam

from db.engine import reading, repeatable

PAGE = 1_000
"""Rows of one page, and values of one IN list, where there is no reason for another size."""

_AFTER: BindParameter[int] = bindparam("after")

T = TypeVar("T")


def page_of(query: Select[Any], key: ColumnElement[Any], size: int = PAGE) -> Select[Any]:
    """The query cut to the first `size` rows behind some value of a unique key, by that key.

    Where other tables are joined, cut first and join the `subquery()`: a database without
    statistics would else sort everything.
    """
    return query.where(key > _AFTER).order_by(key).limit(size)


def pages(
    engine: Engine, query: Select[Any], size: int = PAGE, *, after: int = -1
) -> Iterator[Sequence[Row[Any]]]:
    """Every page that is not empty, in order; each is read in a transaction of its own.

    `query` is cut by `page_of` to the same `size`; its first column is the key of that. The first
    page begins behind the key `after`.
    """
    while rows := _read(engine, query, after):
        yield rows
        if len(rows) < size:
            return
        after = rows[-1][0]


def paged_rows(
    engine: Engine, query: Select[Any], size: int = PAGE, *, key: ColumnElement[Any] | None = None
) -> Iterator[Row[Any]]:
    """The rows of all `pages`; where a `key` is given, the query is cut by it here."""
    for page in pages(engine, query if key is None else page_of(query, key, size), size):
        yield from page


def batches(values: Sequence[T], size: int = PAGE) -> Iterator[Sequence[T]]:
    """The values in order, at most `size` at a time.

    >>> list(batches("abcde", 2))
    ['ab', 'cd', 'e']
    """
    return (values[start : start + size] for start in range(0, len(values), size))


def rows_where_in(
    conn: Connection, query: Select[Any], column: ColumnElement[Any], wanted: Sequence[Any]
) -> Iterator[Row[Any]]:
    """The rows of the query whose `column` has one of the wanted values, however many these are."""
    for batch in batches(wanted):
        yield from conn.execute(query.where(column.in_(batch))).all()


@repeatable
def _read(engine: Engine, query: Select[Any], after: int) -> Sequence[Row[Any]]:
    with reading(engine) as conn:
        return conn.execute(query, {"after": after}).all()
