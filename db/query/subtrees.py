"""Which rows of scores count for a question about parts of the ontology.

The nodes are looked up once and named in the statement, so that every plan can seek each of them in
the index; source-ambiguous ones count only in company (`db.query.ambiguous_classes`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, FromClause, and_, exists, or_, select

from db.errors import DatabaseUserError
from db.query.ambiguous_classes import ambiguous_below
from db.query.current_labelling import has_row
from db.schema.tables import categories, clip_scores, closure, labellings, nodes


@dataclass(frozen=True, slots=True)
class Subtree:
    """Node ids at or below some nodes.

    Those in `plain` count by themselves; of each pair in `in_company` the first ones count in clips
    where any of the second is heard.
    """

    plain: tuple[int, ...]
    in_company: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...] = ()

    @property
    def ids(self) -> tuple[int, ...]:
        """All of them, each once."""
        ambiguous = {node for group, _ in self.in_company for node in group}
        return tuple(sorted(ambiguous.union(self.plain)))


def subtree(conn: Connection, mids: Sequence[str], *, with_ambiguous: bool = False) -> Subtree:
    """What is at or below any of the nodes.

    Raises:
        DatabaseUserError: unknown MID.
    """
    plain: set[int] = set()
    in_company = []
    for mid in dict.fromkeys(mids):
        root = node_id(conn, mid)
        below = select(closure.c.descendant_id).where(closure.c.ancestor_id == root)
        ids = set(conn.execute(below).scalars())
        ambiguous = set() if with_ambiguous else set(ambiguous_below(conn, root))
        plain |= ids - ambiguous
        if ambiguous:
            in_company.append((ambiguous, tuple(sorted(ids - ambiguous))))
    groups = ((tuple(sorted(some - plain)), others) for some, others in in_company)
    return Subtree(tuple(sorted(plain)), tuple(group for group in groups if group[0]))


def counts(
    scores: Any, tree: Subtree, *, seek: bool = True, heard: FromClause = clip_scores
) -> ColumnElement[bool]:
    """The condition that a row of clip_scores (or detections) counts for the subtree.

    Company is looked for in `heard`. Without `seek` no plan can begin with the index of a class's
    scores.
    """
    node = scores.c.node_id if seek else scores.c.node_id + 0
    is_below: ColumnElement[bool] = node.in_(tree.ids)
    if not tree.in_company:
        return is_below
    ways = [scores.c.node_id.in_(tree.plain)]
    for ambiguous, company in tree.in_company:
        other = heard.alias()
        its_company = select(other.c.node_id).where(
            other.c.labelling_id == scores.c.labelling_id, other.c.node_id.in_(company)
        )
        ways.append(and_(scores.c.node_id.in_(ambiguous), has_row(its_company.correlate(scores))))
    return and_(is_below, or_(*ways))


def reaches(scores: Any, least: float) -> ColumnElement[bool]:
    """The condition that a row of clip_scores or detections is heard."""
    return scores.c.peak >= least  # type: ignore[no-any-return]


def heard_in(
    tree: Subtree,
    least: float,
    heard: FromClause = clip_scores,
    asked: tuple[Any, ColumnElement[bool]] | None = None,
) -> ColumnElement[bool]:
    """The condition that something of the subtree is heard in the clip of a row of labellings.

    `asked`: an alias of labellings, and which of the clip's are asked; None: the row alone.
    """
    other = heard.alias()
    own: Any = labellings
    its: list[ColumnElement[bool]] = []
    if asked is not None:
        own, speaks = asked
        its = [speaks, own.c.clip_id == labellings.c.clip_id]
    found = exists().where(
        other.c.labelling_id == own.c.id,
        reaches(other, least),
        counts(other, tree, heard=heard),
        *its,
    )
    return found.correlate(labellings)


def predicted_below(conn: Connection, mid: str, ids: Sequence[int] | None) -> list[tuple[str, str]]:
    """(MID, name) of the node and those below it that a model predicts, in ontology order.

    Raises:
        DatabaseUserError: unknown MID.
    """
    predicted = exists().where(categories.c.node_id == nodes.c.id)
    if ids is not None:
        predicted = predicted.where(categories.c.model_id.in_(ids))
    query = (
        select(nodes.c.mid, nodes.c.name)
        .join(closure, closure.c.descendant_id == nodes.c.id)
        .where(closure.c.ancestor_id == node_id(conn, mid), predicted)
        .order_by(nodes.c.position, nodes.c.id)
    )
    return [(row.mid, row.name) for row in conn.execute(query)]


def node_id(conn: Connection, mid: str) -> int:
    """The key of a node.

    Raises:
        DatabaseUserError: unknown MID, or no run has stored the ontology yet.
    """
    found = conn.execute(select(nodes.c.id).where(nodes.c.mid == mid)).scalar()
    if found is None:
        if conn.execute(select(nodes.c.id).limit(1)).scalar() is None:
            raise DatabaseUserError("nothing is labelled yet: run audioset label first")
        message = f"the ontology in the database has no node {mid!r}"
        raise DatabaseUserError(f"{message}; MIDs look like '/m/09x0r' (Speech)")
    return int(found)
