"""The labels of a labelling as rows: class scores and detections."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields
from itertools import islice
from operator import attrgetter
from typing import Any

from sqlalchemy import Connection, Table, delete, insert, select

from audioset_core.records import ClassScore, Detection
from db.errors import InvalidValueError
from db.schema.tables import categories, clip_scores, detections

_ROWS_AT_ONCE = 5_000

Row = dict[str, Any]
"""Values by the name of the column; scores in [0, 1]."""


def category_nodes(conn: Connection, model_id: int) -> dict[int, int]:
    """Node id by index of the model's output."""
    query = select(categories.c.idx, categories.c.node_id).where(categories.c.model_id == model_id)
    return {row.idx: row.node_id for row in conn.execute(query)}


def label_rows(
    found: Iterable[ClassScore] | Iterable[Detection], node_of: Mapping[int, int], **key: int
) -> Iterable[Row]:
    """A row for each, with the `key` columns; `node_of` is what `category_nodes` gives.

    Raises:
        InvalidValueError: the model has no such category.
    """
    for each in found:
        if each.category_index not in node_of:
            message = f"the model has no category {each.category_index} (it has {len(node_of)})"
            raise InvalidValueError(message)
        names, values = _MEASURES[type(each)]
        own = dict(zip(names, values(each), strict=True))
        yield {**key, "node_id": node_of[each.category_index], **own}


def insert_rows(conn: Connection, table: Table, rows: Iterable[Row]) -> None:
    """Insert rows some at a time.

    A recording of ten hours may have 100,000 detections: as rows all at once they are 80 MB.
    """
    left = iter(rows)
    while some := list(islice(left, _ROWS_AT_ONCE)):
        conn.execute(insert(table), some)


def delete_labels(conn: Connection, labelling_id: int) -> None:
    """Delete a labelling's class scores and detections."""
    for table in (clip_scores, detections):
        conn.execute(delete(table).where(table.c.labelling_id == labelling_id))


def _measures(kind: type[ClassScore] | type[Detection]) -> tuple[list[str], Any]:
    names = [field.name for field in fields(kind) if field.name != "category_index"]
    return names, attrgetter(*names)


_MEASURES = {kind: _measures(kind) for kind in (ClassScore, Detection)}
