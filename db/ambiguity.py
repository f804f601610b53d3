"""Classes that AudioSet itself calls source-ambiguous, and when they speak for a source.

Fifteen classes stand both below a source and below 'Source-ambiguous sounds': Hiss is below
Cat, Snake and Steam, Tick below Clock, Chirp below Bird. Such a sound alone says nothing of its
source: a chainsaw's hiss would be found among the cats. So in a question about a source it
counts only in clips where an unambiguous class of the same subtree is heard as well.
"""

from __future__ import annotations

from sqlalchemy import Connection, select

from db.tables import closure, nodes

SOURCE_AMBIGUOUS_MID = "/t/dd00098"


def ambiguous_below(conn: Connection, root: int) -> list[int]:
    """Node ids below `root` that are source-ambiguous; none if `root` itself is."""
    by_nature = (
        select(closure.c.descendant_id)
        .join(nodes, nodes.c.id == closure.c.ancestor_id)
        .where(nodes.c.mid == SOURCE_AMBIGUOUS_MID)
    )
    query = select(closure.c.descendant_id).where(
        closure.c.ancestor_id == root, closure.c.descendant_id.in_(by_nature)
    )
    found = list(conn.execute(query.order_by(closure.c.descendant_id)).scalars())
    return [] if root in found else found
