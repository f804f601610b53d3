"""Classes of one's own: nodes below those of the ontology, with MIDs such as `x:wood-saw`.

Loading the ontology leaves them as they are (`db.catalog.ontology`): all that is known of them is
their rows of `nodes` and their edges, from which their part of the closure follows.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Connection, Engine, delete, func, insert, select, text, update

from db.engine import reading, writing
from db.errors import DatabaseUserError
from db.schema.alert_tables import alerts
from db.schema.tables import categories, clip_scores, closure, edges, labellings, nodes
from db.schema.threshold_tables import thresholds
from db.schema.verdict_tables import review_items, review_strata, reviews, verdicts
from db.totals.keeping import keeping_ontology

OWN_PREFIX = "x:"
"""With what the MID of a class of one's own begins; no MID of AudioSet does."""

REFERENCES = {
    "outputs of models": categories,
    "verdicts": verdicts,
    "alerts": alerts,
    "thresholds": thresholds,
    "reviews": reviews,
    "strata of reviews": review_strata,
    "clips of reviews": review_items,
}
"""Tables whose rows keep a class from being removed; scores are there only of a model's outputs."""

Pairs = dict[tuple[int, int], int]
"""A number (a depth, a position) by (node id above, node id below)."""


@dataclass(frozen=True, slots=True)
class OwnClass:
    """A class of one's own, and the MIDs of the nodes that it stands directly below."""

    mid: str
    name: str
    parent_mids: tuple[str, ...]
    description: str | None = None


def own_mid(name: str) -> str:
    """The MID that a class of this name has.

    >>> own_mid("Wood saw (hand)")
    'x:wood-saw-hand'

    Raises:
        DatabaseUserError: the name has neither letters nor digits.
    """
    folded = unicodedata.normalize("NFKC", name).casefold()
    # Letters with their marks, and numbers.
    kept = (c if unicodedata.category(c)[0] in "LMN" else " " for c in folded)
    words = "".join(kept).split()
    if not words:
        raise DatabaseUserError(f"the name {name!r} needs a letter or a digit")
    return OWN_PREFIX + "-".join(words)


def own_classes(database: Engine | Connection) -> list[OwnClass]:
    """Every class of one's own, the oldest first."""
    if isinstance(database, Engine):
        with reading(database) as conn:
            return own_classes(conn)
    above = nodes.alias("above")
    query = (
        select(nodes.c.mid, nodes.c.name, nodes.c.description, above.c.mid.label("parent"))
        .outerjoin(edges, edges.c.child_id == nodes.c.id)
        .outerjoin(above, above.c.id == edges.c.parent_id)
        .where(_is_own())
        .order_by(nodes.c.id, edges.c.position)
    )
    found: dict[str, OwnClass] = {}
    for row in database.execute(query):
        parents = found[row.mid].parent_mids if row.mid in found else ()
        parents += (row.parent,) if row.parent else ()
        found[row.mid] = OwnClass(row.mid, row.name, parents, row.description)
    return list(found.values())


def add_own_class(engine: Engine, wanted: OwnClass) -> bool:
    """Store a class; False if an equal one is there already.

    Raises:
        DatabaseUserError: its MID is taken by another class, or a parent is not in the database.
    """
    with writing(engine) as conn:
        lock_ontology(conn)
        known = next((each for each in own_classes(conn) if each.mid == wanted.mid), None)
        if known is not None:
            _refuse_other(conn, known, wanted)
            return False
        last = conn.execute(select(func.coalesce(func.max(nodes.c.position), -1))).scalar_one()
        conn.execute(
            insert(nodes).values(
                mid=wanted.mid, name=wanted.name, position=last + 1, is_abstract=False,
                is_blacklisted=False, description=wanted.description,
            )
        )  # fmt: skip
        _put_below(conn, wanted)
        return True


def change_own_class(
    engine: Engine, mid: str, parent_mids: Sequence[str] = (), description: str | None = None
) -> bool:
    """Put a class below other parents, describe it anew, or both; False if it is like that.

    Raises:
        DatabaseUserError: there is no such class, a parent is not in the database, or is the class
            itself or below it.
    """
    with writing(engine) as conn:
        lock_ontology(conn)
        known = _known(conn, mid)
        wanted = OwnClass(
            mid, known.name, tuple(parent_mids) or known.parent_mids,
            known.description if description is None else description,
        )  # fmt: skip
        if wanted == known:
            return False
        conn.execute(update(nodes).where(nodes.c.mid == mid).values(description=wanted.description))
        _put_below(conn, wanted)
        return True


def remove_own_class(engine: Engine, mid: str) -> None:
    """Delete a class to which nothing refers.

    Raises:
        DatabaseUserError: there is no such class, or something refers to it; the line says what.
    """
    with writing(engine) as conn:
        lock_ontology(conn)
        known = _known(conn, mid)
        # Who stores something of the class meanwhile on PostgreSQL waits, and is then refused.
        one = select(nodes.c.id).where(nodes.c.mid == mid).with_for_update()
        node_id = conn.execute(one).scalar_one()
        refers = {
            **{what: table.c.node_id for what, table in REFERENCES.items()},
            "classes below it": edges.c.parent_id,
        }
        counts = {"labelled clips": _labelled_clips(conn).get(mid, 0)} | {
            what: conn.execute(select(func.count()).where(column == node_id)).scalar_one()
            for what, column in refers.items()
        }
        if any(counts.values()):
            held = ", ".join(f"{what}: {n:,}" for what, n in counts.items() if n)
            raise DatabaseUserError(f"{known.name!r} ({mid}) stays, since it is in use ({held})")
        conn.execute(delete(nodes).where(nodes.c.id == node_id))


def count_labelled_clips(engine: Engine) -> dict[str, int]:
    """How many clips have a stored score of a class of one's own, by MID; 0 is left out."""
    with reading(engine) as conn:
        return _labelled_clips(conn)


def own_pairs(conn: Connection) -> tuple[list[int], Pairs]:
    """Node ids of classes of one's own, and the position of each edge that leads to one."""
    ids = list(conn.execute(select(nodes.c.id).where(_is_own())).scalars())
    rows = conn.execute(select(edges).where(edges.c.child_id.in_(ids)))
    return ids, {(row.parent_id, row.child_id): row.position for row in rows}


def depths_above(ids: Iterable[int], pairs: Iterable[tuple[int, ...]]) -> Pairs:
    """The closure's rows of these descendants, themselves included, by edges (parent, child).

    >>> depths_above([3], [(1, 2), (2, 3), (1, 3)])
    {(3, 3): 0, (2, 3): 1, (1, 3): 1}
    """
    parents: dict[int, list[int]] = {}
    for parent, child in pairs:
        parents.setdefault(child, []).append(parent)
    found: Pairs = {}
    for start in ids:
        level, depth = [start], 0
        while level:
            new = [node for node in dict.fromkeys(level) if (node, start) not in found]
            found |= {(node, start): depth for node in new}
            level, depth = [above for node in new for above in parents.get(node, ())], depth + 1
    return found


def lock_ontology(conn: Connection) -> None:
    """Hold nodes, edges and closure until the transaction ends, against others who change them.

    SQLite's write lock does already.
    """
    if conn.dialect.name == "postgresql":
        conn.execute(text("LOCK TABLE closure IN SHARE ROW EXCLUSIVE MODE"))


def _is_own() -> ColumnElement[bool]:
    return func.substr(nodes.c.mid, 1, len(OWN_PREFIX)) == OWN_PREFIX  # LIKE ignores case in SQLite


def _known(conn: Connection, mid: str) -> OwnClass:
    known = {each.mid: each for each in own_classes(conn)}
    if mid not in known:
        raise DatabaseUserError(f"{mid!r} is no class of your own: see audioset classes list")
    return known[mid]


def _refuse_other(conn: Connection, known: OwnClass, wanted: OwnClass) -> None:
    """Raises: DatabaseUserError: the class that has the MID is another one than is wanted."""
    title = f"{known.name!r} ({known.mid})"
    if known.name.casefold() != wanted.name.casefold():
        raise DatabaseUserError(
            f"{wanted.name!r} would have the MID of {title}: choose another name"
        )
    other = []
    if set(known.parent_mids) != set(wanted.parent_mids):
        other.append(f"below {_names(conn, known.parent_mids)}")
    if wanted.description not in (None, known.description):
        other.append("with another description")
    if other:
        raise DatabaseUserError(
            f"{title} is there already, {' and '.join(other)}: audioset classes change alters that"
        )


def _names(conn: Connection, mids: Sequence[str]) -> str:
    query = select(nodes.c.mid, nodes.c.name).where(nodes.c.mid.in_(mids))
    found = {row.mid: row.name for row in conn.execute(query)}
    return ", ".join(found[mid] for mid in mids)


def _put_below(conn: Connection, wanted: OwnClass) -> None:
    """Make the edges that lead to the class what is wanted, and the closure what they say."""
    mids = (wanted.mid, *wanted.parent_mids)
    rows = conn.execute(select(nodes.c.mid, nodes.c.id).where(nodes.c.mid.in_(mids)))
    ids = {row.mid: row.id for row in rows}
    if missing := [mid for mid in wanted.parent_mids if mid not in ids]:
        raise DatabaseUserError(f"the ontology in the database has no node {missing[0]!r}")
    own = ids[wanted.mid]
    parents = list(dict.fromkeys(ids[mid] for mid in wanted.parent_mids))
    below = select(closure.c.descendant_id).where(closure.c.ancestor_id == own)
    if inside := set(parents).intersection([own, *conn.execute(below).scalars()]):
        names = _names(conn, [mid for mid in wanted.parent_mids if ids[mid] in inside])
        raise DatabaseUserError(
            f"{wanted.name!r} can stand neither below itself nor below what is below it: {names}"
        )
    conn.execute(delete(edges).where(edges.c.child_id == own))
    last = conn.execute(select(func.coalesce(func.max(edges.c.position), -1))).scalar_one()
    conn.execute(
        insert(edges),
        [
            {"parent_id": parent, "child_id": own, "position": last + i}
            for i, parent in enumerate(parents, 1)
        ],
    )
    _write_closure(conn)


def _write_closure(conn: Connection) -> None:
    """Replace the closure's rows of every class of one's own: one may stand below another."""
    ids, _ = own_pairs(conn)
    every = [(row.parent_id, row.child_id) for row in conn.execute(select(edges))]
    with keeping_ontology(conn):
        conn.execute(delete(closure).where(closure.c.descendant_id.in_(ids)))
        conn.execute(
            insert(closure),
            [
                {"ancestor_id": above, "descendant_id": below, "depth": depth}
                for (above, below), depth in depths_above(ids, every).items()
            ],
        )


def _labelled_clips(conn: Connection) -> dict[str, int]:
    query = (
        select(nodes.c.mid, func.count(labellings.c.clip_id.distinct()))
        .join(clip_scores, clip_scores.c.node_id == nodes.c.id)
        .join(labellings, labellings.c.id == clip_scores.c.labelling_id)
        .where(_is_own())
        .group_by(nodes.c.mid)
    )
    return {row[0]: row[1] for row in conn.execute(query)}
