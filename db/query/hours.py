"""How long something is heard, by class, branch, day or file.

What is summed is the union of intervals per clip: patches overlap, and so do neighbouring intervals
and the classes of a branch; no moment counts twice in one row.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import date, timedelta
from typing import Any, Literal

from sqlalchemy import (
    BigInteger,
    Connection,
    Engine,
    Integer,
    Select,
    and_,
    cast,
    func,
    literal,
    select,
)

from db.engine import reading
from db.paging import rows_where_in
from db.query.current_labelling import model_ids
from db.query.find import few_clips, prepared
from db.query.occasions import occasions
from db.query.paths import first_source
from db.query.question import Question, file_conditions, moment_conditions
from db.query.statements import intervals_query, with_source
from db.query.subtrees import Subtree, predicted_below
from db.query.sun import phase_at
from db.query.time_spans import DAY_MS, covered_seconds
from db.query.totals import has_totals, node_total, totals
from db.schema.tables import categories, edges, nodes, sources

Grouping = Literal["second-level", "class", "day", "sun", "source"]

_EPOCH = date(1970, 1, 1)


@dataclass(frozen=True, slots=True)
class HeardFor:
    """How long something is heard: a class or branch (with its MID), a day, or a file."""

    what: str
    mid: str | None
    n_clips: int
    hours: float


def hours_heard(engine: Engine, question: Question, by: Grouping) -> list[HeardFor]:
    """Hours in which something of the question's subtree is heard, most first (days in order).

    By second level the rows are the children of the nodes in question. By class, every concrete
    (not abstract) one that a model predicts has a row, also without an hour. By day, a sound counts
    for the day on which it begins by the recorder's clock; of a clip that was recorded at two
    times, for both; by sun likewise, for the phase in which it begins.

    Raises:
        DatabaseUserError: as `db.query.find.find_intervals`.
    """
    with reading(engine) as conn:
        tree, _ = prepared(conn, question, by_interval=True)
        if by == "second-level":
            heard = _branches(conn, question)
        else:
            rows = _rows(conn, question, by, tree)
            named = _NAMED[by](conn, [row[0] for row in rows])
            heard = [
                HeardFor(name, mid, n_clips, hours)
                for (_, n_clips, hours), (name, mid) in zip(rows, named, strict=True)
            ]
        if by == "class":
            heard += _unheard(conn, question, tree, {row.mid for row in heard})
    if by == "day":
        return sorted(heard, key=lambda row: row.what)
    return sorted(heard, key=lambda row: (-row.hours, row.what))


def _rows(
    conn: Connection, question: Question, by: str, tree: Subtree
) -> list[tuple[Any, int, float]]:
    """(what, clips, hours): of classes by the kept counts, as far as those tell."""
    rows, left = [], tree
    if by == "class" and has_totals(question):
        kept = totals(conn, question.min_score, under=tree.plain, model=question.model)
        unclear = tuple(node for node, total in kept.items() if total.is_least)
        rows = [
            (node, total.n_heard_own, total.own_hours)
            for node, total in kept.items()
            if total.n_heard_own and not total.is_least
        ]
        left = replace(tree, plain=unclear)
    if left.ids:
        found = conn.execute(_query(conn, question, by, left)).all()
        rows += [(row[0], row.n_clips, row.seconds / 3600) for row in found]
    return rows


def _query(conn: Connection, question: Question, by: str, tree: Subtree) -> Select[Any]:
    """Seconds covered and clips, by what the intervals of a question are grouped by."""
    _, allowed = prepared(conn, question, by_interval=True)
    found = intervals_query(tree, question.min_score, allowed, question, few_clips(conn, question))
    if question.is_timed:
        found = with_source(found)
    part = found.subquery("found")
    its = occasions(*file_conditions(question)).subquery("its") if by in ("day", "sun") else None
    what = _what(part, by, question, its)
    grouped = select(part.c.clip_id, part.c.start_s, part.c.end_s, what.label("what"))
    if its is not None:
        is_its = its.c.clip_id == part.c.clip_id
        if question.is_timed:
            is_heard = moment_conditions(question, its, part.c.start_s, part.c.end_s)
            is_its = and_(is_its, *is_heard)
        grouped = grouped.join_from(part, its, is_its, isouter=not question.is_timed)
    return covered_seconds(grouped, "what")


def _what(part: Any, by: str, question: Question, its: Any) -> Any:
    """What an interval is grouped by; `its` are the occasions of its clip, if that needs them."""
    if by == "class":
        return part.c.node_id
    if by == "source":
        first = first_source(part.c.clip_id, *file_conditions(question))
        first_id = first.correlate(part).scalar_subquery()
        return func.coalesce(part.c.source_id, first_id)
    if by == "day":
        local_ms = its.c.recorded_unix_ms + its.c.recorded_utc_offset_s * 1_000
        began_ms = local_ms + cast(func.round(part.c.start_s * 1_000.0), BigInteger)
        # Without a remainder, so that both databases divide alike.
        return cast((began_ms - began_ms % DAY_MS) / DAY_MS, Integer)
    if by == "sun":
        return phase_at(its, part.c.start_s)
    return literal(0, Integer)


def _branches(conn: Connection, question: Question) -> list[HeardFor]:
    """A question for each child: ambiguous classes count by the company of their own branch."""
    parents = nodes.alias("parents")
    query = (
        select(nodes.c.mid, nodes.c.name)
        .join(edges, edges.c.child_id == nodes.c.id)
        .join(parents, parents.c.id == edges.c.parent_id)
        .where(parents.c.mid.in_(question.under))
        .order_by(nodes.c.position, nodes.c.id)
    )
    ids = model_ids(conn, question.model)
    heard = []
    for mid, name in {row.mid: row.name for row in conn.execute(query)}.items():
        if predicted_below(conn, mid, ids):
            own = replace(question, under=(mid,))
            total = node_total(conn, own)
            n_clips, hours = total.n_heard, total.hours
            if total.is_least:
                tree, _ = prepared(conn, own, by_interval=True)
                _, n_clips, hours = next(iter(_rows(conn, own, "all", tree)), (0, 0, 0.0))
            heard.append(HeardFor(name, mid, n_clips, hours))
    return heard


def _unheard(
    conn: Connection, question: Question, tree: Subtree, heard: set[str | None]
) -> list[HeardFor]:
    predicted = select(categories.c.node_id)
    ids = model_ids(conn, question.model)
    if ids is not None:
        predicted = predicted.where(categories.c.model_id.in_(ids))
    query = select(nodes.c.name, nodes.c.mid).where(
        nodes.c.id.in_(tree.ids), nodes.c.id.in_(predicted), ~nodes.c.is_abstract
    )
    rows = conn.execute(query)
    return [HeardFor(row.name, row.mid, 0, 0.0) for row in rows if row.mid not in heard]


Names = list[tuple[str, str | None]]
"""(name, MID) of each key of a row."""


def _class_names(conn: Connection, keys: list[Any]) -> Names:
    found = rows_where_in(conn, select(nodes.c.id, nodes.c.name, nodes.c.mid), nodes.c.id, keys)
    named = {row.id: (row.name, row.mid) for row in found}
    return [named[key] for key in keys]


def _paths(conn: Connection, keys: list[Any]) -> Names:
    found = rows_where_in(conn, select(sources.c.id, sources.c.path_text), sources.c.id, keys)
    named = {row.id: row.path_text for row in found}
    return [(named.get(key, "(no longer anywhere)"), None) for key in keys]


def _days(_conn: Connection, keys: list[Any]) -> Names:
    return [("unknown" if k is None else str(_EPOCH + timedelta(days=k)), None) for k in keys]


def _phases(_conn: Connection, keys: list[Any]) -> Names:
    return [(key or "unknown", None) for key in keys]


_NAMED: dict[str, Any] = {
    "class": _class_names, "source": _paths, "day": _days, "sun": _phases,
}  # fmt: skip
