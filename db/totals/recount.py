"""The kept counts against what they count: filled, checked and put right."""

from __future__ import annotations

from collections import Counter

from sqlalchemy import Connection, Engine, select

from db.engine import reading, writing
from db.schema.tables import labellings, node_totals, nodes
from db.totals.keeping import (
    MOVED,
    Totals,
    add_totals,
    difference,
    hold_alone,
    stored_totals,
    totals_of,
)


def missing_totals(conn: Connection) -> Totals:
    """What has to be added to the stored counts to make them right.

    Read in one moment, it stays right whatever commits add meanwhile.
    """
    ids = conn.execute(select(labellings.c.id).order_by(labellings.c.id)).scalars().all()
    wrong = difference(totals_of(conn, labellings.c.id, ids), stored_totals(conn))
    return {key: counts for key, counts in wrong.items() if any(counts)}


def check_totals(engine: Engine, *, is_repair: bool) -> Counter[str]:
    """How many counts are wrong, by the node's MID; put right on request.

    After a promotion or another repair meanwhile they are counted again.
    """
    is_moved = node_totals.c.part == MOVED
    while True:
        with reading(engine) as conn:
            wrong, moved = missing_totals(conn), stored_totals(conn, is_moved)
            named = select(nodes.c.id, nodes.c.mid)
            mids = {row.id: row.mid for row in conn.execute(named)}
        if not (wrong and is_repair):
            break
        with writing(engine) as conn:
            hold_alone(conn)
            if stored_totals(conn, is_moved) == moved:
                add_totals(conn, wrong, MOVED)
                break
    return Counter(mids[key[0]] for key in wrong)
