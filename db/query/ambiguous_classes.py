"""Classes that AudioSet itself calls source-ambiguous, and when they count for a source.

Fifteen classes stand both below a source and below 'Source-ambiguous sounds': Hiss is below
Cat, Snake and Steam, Tick below Clock, Chirp below Bird. Such a sound alone says nothing of its
source: a chainsaw's hiss would be found among the cats. So in a question about a source it
counts only in clips where an unambiguous class of the same subtree is heard as well.
"""

from __future__ import annotations

from sqlalchemy import ColumnElement, Connection, or_, select

from db.schema.tables import clip_scores, closure, labellings, nodes

SOURCE_AMBIGUOUS_MID = "/t/dd00098"


def ambiguous_below(conn: Connection, root: int) -> list[int]:
    """Node ids below `root` that are source-ambiguous; none if `root` itself is."""
    query = select(closure.c.descendant_id).where(closure.c.ancestor_id == root)
    below = set(conn.execute(query).scalars())
    found = below.intersection(ambiguous_nodes(conn))
    return [] if root in found else sorted(found)


def counting_pairs(conn: Connection) -> ColumnElement[bool]:
    """The condition that a row of closure counts, for a row of labellings that has the descendant.

    For all nodes at once what `db.query.subtrees.counts` is for some.
    """
    ids = ambiguous_nodes(conn)
    other, below = clip_scores.alias("other"), closure.alias("below")
    company = (
        select(other.c.node_id)
        .join(below, below.c.descendant_id == other.c.node_id)
        .where(
            other.c.labelling_id == labellings.c.id,
            other.c.node_id.not_in(ids),
            below.c.ancestor_id == closure.c.ancestor_id,
        )
        .correlate(labellings, closure)
    )
    is_plain = closure.c.descendant_id.not_in(ids)
    return or_(is_plain, closure.c.ancestor_id.in_(ids), company.exists())


def ambiguous_nodes(conn: Connection) -> list[int]:
    """The ids of the nodes that are source-ambiguous."""
    query = (
        select(closure.c.descendant_id)
        .join(nodes, nodes.c.id == closure.c.ancestor_id)
        .where(nodes.c.mid == SOURCE_AMBIGUOUS_MID)
    )
    return list(conn.execute(query).scalars())
