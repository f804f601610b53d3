"""Labellings that no rule for alerts was asked about yet."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import Connection, select

from db.engine import upsert
from db.schema.alert_tables import alert_rules, unasked_labellings


def leave_unasked(conn: Connection, labelling_ids: Iterable[int]) -> None:
    """Have the rules asked about these labellings, if there are any rules."""
    if conn.execute(select(alert_rules.c.id).limit(1)).first() is not None:
        new = upsert(conn, unasked_labellings).on_conflict_do_nothing()
        conn.execute(new, [{"labelling_id": each} for each in labelling_ids])
