"""The ontology as nodes, edges and a materialised closure; loading twice changes nothing.

Ids are stable by MID and nothing is deleted from `nodes`, since scores refer to them. Classes of
one's own (`db.catalog.own_classes`) stay where they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Engine, Table, bindparam, delete, insert, select, update

from audioset_core.records import Node
from db.catalog.own_classes import depths_above, lock_ontology, own_pairs
from db.engine import reading, writing
from db.errors import DatabaseUserError
from db.schema.tables import closure, edges, node_examples, nodes
from db.totals.keeping import keeping_ontology

_ALWAYS = ("name", "position", "is_abstract", "is_blacklisted")
_WHEN_GIVEN = ("description", "citation_uri")


def load_ontology(
    engine: Engine,
    new_nodes: Sequence[Node],
    new_edges: Sequence[tuple[str, str]],
    new_closure: Sequence[tuple[str, str, int]],
) -> bool:
    """Store nodes, (parent, child) edges and (ancestor, descendant, depth); True if it changed.

    Descriptions, citations and examples are overwritten only by ones that are given.

    Raises:
        DatabaseUserError: an edge or closure row names a MID that is not among the nodes.
    """
    _check_mids(new_nodes, new_edges, new_closure)
    with reading(engine) as conn:
        if not _sync(conn, new_nodes, new_edges, new_closure, is_writing=False):
            return False
    with writing(engine) as conn:
        lock_ontology(conn)
        with keeping_ontology(conn):
            return _sync(conn, new_nodes, new_edges, new_closure, is_writing=True)


def node_ids(conn: Connection) -> dict[str, int]:
    """Node id by MID."""
    return {row.mid: row.id for row in conn.execute(select(nodes.c.mid, nodes.c.id))}


def _check_mids(
    new_nodes: Sequence[Node],
    new_edges: Sequence[tuple[str, str]],
    new_closure: Sequence[tuple[str, str, int]],
) -> None:
    mids = {node.mid for node in new_nodes}
    if len(mids) < len(new_nodes):
        raise DatabaseUserError("the ontology lists a MID twice")
    named = {mid for edge in new_edges for mid in edge}
    named.update(mid for ancestor, descendant, _ in new_closure for mid in (ancestor, descendant))
    if unknown := sorted(named - mids):
        raise DatabaseUserError(f"the ontology refers to unknown MIDs: {', '.join(unknown[:5])}")


def _sync(
    conn: Connection,
    new_nodes: Sequence[Node],
    new_edges: Sequence[tuple[str, str]],
    new_closure: Sequence[tuple[str, str, int]],
    *,
    is_writing: bool,
) -> bool:
    """Bring every table in line, or (not writing) say whether any is not."""
    changed = _sync_nodes(conn, new_nodes, is_writing)
    if changed and not is_writing:
        return True
    ids = node_ids(conn)
    edge_rows: dict[tuple[int, ...], dict[str, int]] = {}
    for position, (parent, child) in enumerate(new_edges):
        edge_rows.setdefault((ids[parent], ids[child]), {"position": position})
    own, own_edges = own_pairs(conn)
    edge_rows |= {pair: {"position": position} for pair, position in own_edges.items()}
    # A node that the new ontology no longer has keeps its row, and itself as descendant.
    closure_rows: dict[tuple[int, ...], dict[str, int]] = {
        (node_id, node_id): {"depth": 0} for node_id in ids.values()
    }
    for ancestor, descendant, depth in new_closure:
        closure_rows.setdefault((ids[ancestor], ids[descendant]), {"depth": depth})
    closure_rows |= {pair: {"depth": depth} for pair, depth in depths_above(own, edge_rows).items()}
    example_rows: dict[tuple[int, ...], dict[str, str]] = {
        (ids[node.mid], position): {"uri": uri}
        for node in new_nodes
        for position, uri in enumerate(node.examples)
    }
    with_examples = {ids[node.mid] for node in new_nodes if node.examples}
    kept: dict[tuple[int, ...], dict[str, str]] = {
        (row.node_id, row.position): {"uri": row.uri}
        for row in conn.execute(select(node_examples))
        if row.node_id not in with_examples
    }
    results = (
        _replace(conn, edges, ("parent_id", "child_id"), edge_rows, is_writing),
        _replace(conn, closure, ("ancestor_id", "descendant_id"), closure_rows, is_writing),
        _replace(conn, node_examples, ("node_id", "position"), kept | example_rows, is_writing),
    )
    return changed or any(results)


def _sync_nodes(conn: Connection, new_nodes: Sequence[Node], is_writing: bool) -> bool:
    stored = {row["mid"]: row for row in conn.execute(select(nodes)).mappings()}
    added, altered = [], []
    for position, node in enumerate(new_nodes):
        values: dict[str, Any] = {
            "position": position,
            **{name: getattr(node, name) for name in ("name", "is_abstract", "is_blacklisted")},
            **{name: getattr(node, name) for name in _WHEN_GIVEN},
        }
        old = stored.get(node.mid)
        if old is None:
            added.append({"mid": node.mid, **values})
            continue
        for name in _WHEN_GIVEN:
            values[name] = old[name] if values[name] is None else values[name]
        if any(old[name] != values[name] for name in (*_ALWAYS, *_WHEN_GIVEN)):
            altered.append({"key": node.mid, **values})
    if is_writing and altered:
        conn.execute(update(nodes).where(nodes.c.mid == bindparam("key")), altered)
    if is_writing and added:
        conn.execute(insert(nodes), added)
    return bool(added or altered)


def _replace(
    conn: Connection,
    table: Table,
    key: tuple[str, str],
    rows: Mapping[tuple[int, ...], Mapping[str, Any]],
    is_writing: bool,
) -> bool:
    """Make a small table hold exactly `rows`; True if it did not."""
    stored = {
        tuple(row[name] for name in key): {
            name: value for name, value in row.items() if name not in key
        }
        for row in conn.execute(select(table)).mappings()
    }
    if stored == rows:
        return False
    if is_writing:
        conn.execute(delete(table))
        if rows:
            conn.execute(
                insert(table),
                [dict(zip(key, ids, strict=True)) | dict(row) for ids, row in rows.items()],
            )
    return True


def node_texts(engine: Engine, mid: str) -> tuple[str | None, str | None, tuple[str, ...]] | None:
    """(description, citation URI, examples) of a node; None if the database has no such node."""
    with reading(engine) as conn:
        row = conn.execute(
            select(nodes.c.id, nodes.c.description, nodes.c.citation_uri).where(nodes.c.mid == mid)
        ).one_or_none()
        if row is None:
            return None
        query = select(node_examples.c.uri).where(node_examples.c.node_id == row.id)
        examples = conn.execute(query.order_by(node_examples.c.position)).scalars()
        return row.description, row.citation_uri, tuple(examples)
