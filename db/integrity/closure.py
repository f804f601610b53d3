"""The closure against the edges that it is derived from."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import Connection, Engine, delete, insert, select

from db.catalog.own_classes import lock_ontology
from db.engine import reading, writing
from db.schema.tables import closure, edges, nodes
from db.totals.keeping import keeping_ontology

_Depths = dict[tuple[int, int], int]


@dataclass(frozen=True, slots=True)
class ClosureDifference:
    """A pair of MIDs and its depth, as stored and by the edges; None where there is no such row."""

    ancestor: str
    descendant: str
    stored: int | None
    right: int | None


def closure_differences(engine: Engine) -> list[ClosureDifference]:
    """Where the closure is not what the edges make it."""
    with reading(engine) as conn:
        stored, right = _stored(conn), _right(conn)
        mids = {row.id: row.mid for row in conn.execute(select(nodes.c.id, nodes.c.mid))}
    return [
        ClosureDifference(mids[pair[0]], mids[pair[1]], stored.get(pair), right.get(pair))
        for pair in _wrong(stored, right)
    ]


def rebuild_closure(engine: Engine) -> int:
    """Make the closure what the edges say; returns how many pairs were wrong."""
    with writing(engine) as conn:
        lock_ontology(conn)  # a run that loads the ontology waits, and then finds nothing to do
        stored, right = _stored(conn), _right(conn)
        wrong = _wrong(stored, right)
        with keeping_ontology(conn):
            for ancestor_id, descendant_id in wrong:
                above, below = closure.c.ancestor_id, closure.c.descendant_id
                is_it = (above == ancestor_id) & (below == descendant_id)
                conn.execute(delete(closure).where(is_it))
            missing = [
                {"ancestor_id": pair[0], "descendant_id": pair[1], "depth": right[pair]}
                for pair in wrong
                if pair in right
            ]
            if missing:
                conn.execute(insert(closure), missing)
        return len(wrong)


def _wrong(stored: _Depths, right: _Depths) -> list[tuple[int, int]]:
    return sorted({pair for pair, _ in stored.items() ^ right.items()})


def _stored(conn: Connection) -> _Depths:
    rows = conn.execute(select(closure))
    return {(row.ancestor_id, row.descendant_id): row.depth for row in rows}


def _right(conn: Connection) -> _Depths:
    """Every node is its own descendant, also one that no edge leads to."""
    children: dict[int, list[int]] = {}
    for row in conn.execute(select(edges.c.parent_id, edges.c.child_id)):
        children.setdefault(row.parent_id, []).append(row.child_id)
    return {
        (ancestor, descendant): depth
        for ancestor in conn.execute(select(nodes.c.id)).scalars()
        for descendant, depth in _below(ancestor, children).items()
    }


def _below(ancestor: int, children: Mapping[int, list[int]]) -> dict[int, int]:
    """Shortest depth by descendant, the node itself included; ends on any graph."""
    depths = {ancestor: 0}
    queue = deque([ancestor])
    while queue:
        node = queue.popleft()
        for child in children.get(node, ()):
            if child not in depths:
                depths[child] = depths[node] + 1
                queue.append(child)
    return depths
