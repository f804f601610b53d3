"""The kept counts (`node_totals`): changed in the transaction that changes what they count.

What changes labels, or what they count for, does so inside `keeping_clips` or `keeping_ontology`:
the labellings are counted before and after, and the difference is added. Workers add to parts of
their own on PostgreSQL, so that they rarely wait for each other, and in the order of the key: no
deadlocks. A count is the sum over the parts.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import groupby
from operator import itemgetter
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Integer,
    Table,
    bindparam,
    func,
    select,
    text,
    type_coerce,
)

from db.engine import Prepared, upsert
from db.paging import batches, rows_where_in
from db.query.ambiguous_classes import ambiguous_nodes
from db.query.time_spans import timed
from db.schema.tables import clip_scores, closure, detections, labellings, node_totals
from db.totals.tally import Ontology, Sound, tally

Key = tuple[int, int, int, bool, int]
"""Node id, model id, parameter set id, whether it is the current labelling, hundredth of score."""

Totals = dict[Key, list[int]]
"""Clips, clips heard, microseconds heard, own of both."""

KEY = ("node_id", "model_id", "parameter_set_id", "is_current", "percent")
COUNTS = ("n_clips", "n_heard", "heard_us", "n_heard_own", "heard_own_us")
MOVED = 8
"""The part of promotions and repairs, which go by what is stored; each other is of a commit."""
_MICROSECONDS = 1_000_000


@contextmanager
def keeping_clips(conn: Connection, clip_ids: Iterable[int]) -> Iterator[None]:
    """Keep the counts right while the labellings of these clips, which are locked, change."""
    ids = sorted(set(clip_ids))
    hold_labels(conn)
    before = totals_of(conn, labellings.c.clip_id, ids)
    yield
    add_totals(conn, difference(totals_of(conn, labellings.c.clip_id, ids), before))


@contextmanager
def keeping_ontology(conn: Connection) -> Iterator[None]:
    """Keep the counts right while the closure, which is locked, changes."""
    before = stored_ontology(conn)
    yield
    after = stored_ontology(conn)
    moved = [
        node
        for node, above in after.above.items()
        if set(above) != set(before.above.get(node, ()))
        or (node in before.ambiguous) != (node in after.ambiguous)
    ]
    query = select(clip_scores.c.labelling_id).distinct()
    rows = rows_where_in(conn, query, clip_scores.c.node_id, moved)
    ids = sorted({row.labelling_id for row in rows})
    new = totals_of(conn, labellings.c.id, ids, after)
    add_totals(conn, difference(new, totals_of(conn, labellings.c.id, ids, before)))


@contextmanager
def keeping_variants(conn: Connection) -> Iterator[None]:
    """Keep the counts right while other labellings become current, of however many clips.

    What a labelling counts stays the same, and moves to the other side. Where all labellings of a
    variant do so, its stored counts are moved; else those that do are counted.
    """
    hold_alone(conn)
    row = labellings.c
    was_current = set(conn.execute(select(row.id).where(row.is_current)).scalars())
    before = _sides(conn)
    yield
    moved: Totals = {}
    for variant, (side, *others) in _sides(conn).items():
        if not others and before[variant] == {not side}:
            stored = stored_totals(conn, *_is_of(variant, node_totals))
            moved |= {(*k[:3], side, k[4]): n for k, n in stored.items() if k[3] != side}
        elif others or before[variant] != {side}:
            query = select(row.id, row.is_current).where(row.status == "done")
            rows = conn.execute(query.where(*_is_of(variant, labellings)))
            ids = [key for key, is_current in rows if is_current != (key in was_current)]
            moved |= totals_of(conn, row.id, ids)
    change: Totals = defaultdict(lambda: [0] * len(COUNTS))
    for key, counts in moved.items():
        _add(change[key], counts)
        _add(change[*key[:3], not key[3], key[4]], [-n for n in counts])
    add_totals(conn, change, MOVED)


def totals_of(
    conn: Connection,
    column: ColumnElement[int],
    wanted: Sequence[int],
    ontology: Ontology | None = None,
) -> Totals:
    """The counts of the finished labellings whose column (id or clip_id) has one of the values.

    `ontology`: another than the stored one.
    """
    found: Totals = defaultdict(lambda: [0] * len(COUNTS))
    own = select(*(labellings.c[name] for name in ("id", *KEY[1:4])))
    for batch in batches(wanted):
        rows = conn.execute(own.where(column.in_(batch), labellings.c.status == "done"))
        variants = {row[0]: tuple(row[1:]) for row in rows}
        if variants:
            _count(conn, variants, ontology, found)
    return dict(found)


def add_totals(
    conn: Connection, change: Mapping[Key, Sequence[int]], part: int | None = None
) -> None:
    """Add to the stored counts, in the order of the key."""
    if part is None:
        part = 0 if conn.dialect.name == "sqlite" else random.randrange(MOVED)  # noqa: S311
    rows = [
        dict(zip((*KEY, "part", *COUNTS), (*key, part, *counts), strict=True))
        for key, counts in sorted(change.items())
        if any(counts)
    ]
    for batch in batches(rows, 5_000):
        _ADD.execute(conn, batch)


def hold_labels(conn: Connection) -> None:
    """Let no promotion and no change of the ontology come between (SQLite's lock does already)."""
    if conn.dialect.name == "postgresql":
        conn.execute(text("LOCK TABLE labellings, closure IN ROW EXCLUSIVE MODE"))


def hold_alone(conn: Connection) -> None:
    """Let nobody else change what is counted until the transaction ends."""
    if conn.dialect.name == "postgresql":
        conn.execute(text("LOCK TABLE labellings IN SHARE ROW EXCLUSIVE MODE"))
    hold_labels(conn)


def stored_totals(conn: Connection, *conditions: ColumnElement[bool]) -> Totals:
    """The stored counts, or those of some rows; parts are added up."""
    row = node_totals.c
    key = [row[name] for name in KEY]
    query = select(*key, *(func.sum(row[name]) for name in COUNTS)).group_by(*key)
    rows = conn.execute(query.where(*conditions))
    return {(*r[: len(KEY)],): [int(n) for n in r[len(KEY) :]] for r in rows}


def difference(to: Mapping[Key, Sequence[int]], of: Mapping[Key, Sequence[int]]) -> Totals:
    """What has to be added to the second to make it the first."""
    none = [0] * len(COUNTS)
    pairs = ((key, to.get(key, none), of.get(key, none)) for key in {*to, *of})
    return {key: [a - b for a, b in zip(new, old, strict=True)] for key, new, old in pairs}


def stored_ontology(conn: Connection, nodes: Collection[int] | None = None) -> Ontology:
    """The ontology above some nodes, or above all."""
    query = select(closure.c.descendant_id, closure.c.ancestor_id)
    if nodes is not None:
        query = query.where(closure.c.descendant_id.in_(nodes))
    above: dict[int, list[int]] = defaultdict(list)
    for node, its_ancestor in conn.execute(query):
        above[node].append(its_ancestor)
    return Ontology(above, frozenset(ambiguous_nodes(conn)))


def _count(
    conn: Connection,
    variants: Mapping[int, tuple[Any, ...]],
    ontology: Ontology | None,
    found: Totals,
) -> None:
    """Add what these labellings count; `variants` has the middle of the key by their id.

    Detections are read one labelling after the other: a long recording has very many.
    """
    ids = {"ids": list(variants)}
    peaks: dict[int, dict[int, int]] = defaultdict(dict)
    for labelling_id, node, peak in conn.execute(_PEAKS, ids):
        peaks[labelling_id][node] = peak
    if ontology is None:
        detected = conn.execute(_DETECTED_NODES, ids).scalars()
        ontology = stored_ontology(conn, set(detected).union(*peaks.values()))

    def add(labelling_id: int, sounds: Iterable[Sound]) -> None:
        own = tally(peaks.pop(labelling_id, {}), sounds, ontology)
        for (node, percent), counts in own.items():
            _add(found[node, *variants[labelling_id], percent], counts)

    with conn.execute(_SOUNDS, ids) as sounds:  # closed also where a run is stopped amid them
        for labelling_id, rows in groupby(sounds, itemgetter(0)):
            add(
                labelling_id,
                (
                    (node, peak, round(start_s * _MICROSECONDS), round(end_s * _MICROSECONDS))
                    for _, node, peak, start_s, end_s in rows
                ),
            )
    for labelling_id in list(peaks):
        add(labelling_id, ())


def _add(total: list[int], counts: Sequence[int]) -> None:
    for at, count in enumerate(counts):
        total[at] += count


def _sides(conn: Connection) -> dict[tuple[int, int], set[bool]]:
    """By (model id, parameter set id): whether finished labellings are current, or are not."""
    row = labellings.c
    query = select(row.model_id, row.parameter_set_id, row.is_current).distinct()
    found: dict[tuple[int, int], set[bool]] = defaultdict(set)
    for model_id, parameter_set_id, is_current in conn.execute(query.where(row.status == "done")):
        found[model_id, parameter_set_id].add(is_current)
    return found


def _is_of(variant: tuple[int, int], table: Table) -> tuple[ColumnElement[bool], ...]:
    return table.c.model_id == variant[0], table.c.parameter_set_id == variant[1]


def _steps(table: Table) -> ColumnElement[int]:
    return type_coerce(table.c.peak, Integer)


_IDS: Any = bindparam("ids", expanding=True)
_PEAKS = select(clip_scores.c.labelling_id, clip_scores.c.node_id, _steps(clip_scores)).where(
    clip_scores.c.labelling_id.in_(_IDS)
)
_SOUNDS = (
    timed(detections.c.labelling_id, detections.c.node_id, _steps(detections))
    .where(detections.c.labelling_id.in_(_IDS))
    .order_by(detections.c.labelling_id)
    .execution_options(yield_per=5_000)
)
_DETECTED_NODES = select(detections.c.node_id).where(detections.c.labelling_id.in_(_IDS)).distinct()


def _adding(conn: Connection) -> Any:
    names = (*KEY, "part", *COUNTS)
    statement = upsert(conn, node_totals).values({name: bindparam(name) for name in names})
    return statement.on_conflict_do_update(
        index_elements=[*KEY, "part"],
        set_={name: node_totals.c[name] + statement.excluded[name] for name in COUNTS},
    )


_ADD = Prepared(_adding)
