"""What the kept counts say at once: how many clips have a sound, and for how long it is heard.

They are kept for each node by itself, by model and set of parameters, in hundredths of the score
(`db.totals`). Questions about parts of the collection, about several nodes together or about
scores between hundredths read labels.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import NamedTuple

from sqlalchemy import Connection, Engine, func, select, true

from db.engine import reading
from db.query.current_labelling import has_row, model_ids, taught_models
from db.query.question import Question, restricts_clips
from db.query.subtrees import node_id
from db.schema.tables import labellings, models, node_totals, nodes, parameter_sets
from db.types import SCORE_SCALE, STEPS_PER_PERCENT


@dataclass(frozen=True, slots=True)
class Total:
    """Of a node: clips with a score, clips with a detection, and how long those last.

    "Own": without the classes below the node. There are more if `is_least`.
    """

    n_clips: int = 0
    n_heard: int = 0
    heard_us: int = 0
    n_heard_own: int = 0
    heard_own_us: int = 0
    is_least: bool = False

    @property
    def hours(self) -> float:
        """How long something at or below the node is heard; overlaps in a clip count once."""
        return self.heard_us / 3.6e9

    @property
    def own_hours(self) -> float:
        """How long the class itself is heard."""
        return self.heard_own_us / 3.6e9


NOTHING, UNKNOWN = Total(), Total(is_least=True)
_COUNTS = [field.name for field in fields(Total) if field.name != "is_least"]


def has_totals(question: Question) -> bool:
    """Whether the question is about all of the collection, and a score that is counted."""
    is_between = round(question.min_score * SCORE_SCALE) % STEPS_PER_PERCENT > 0
    return not (
        is_between
        or restricts_clips(question)
        or question.is_timed
        or question.min_duration_s > 0
        or question.with_ambiguous
    )


def totals(
    conn: Connection,
    min_score: float,
    *,
    under: Collection[int] | None = None,
    model: str | None = None,
) -> dict[int, Total]:
    """By node id, what reaches the score; of the nodes in `under`, or of all; 0 is left out.

    Where the kept counts do not tell (two labellings of a clip may both have heard it, or the score
    lies between two hundredths) it is what is surely reached, marked `is_least`.

    Raises:
        DatabaseUserError: no model has that name.
    """
    steps = round(min_score * SCORE_SCALE)
    row = node_totals.c
    key = (row.node_id, row.model_id, row.parameter_set_id, row.is_current)
    sums = [func.sum(row[name]) for name in _COUNTS]
    query = select(*key, *sums).where(row.percent >= -(-steps // STEPS_PER_PERCENT)).group_by(*key)
    if under is not None:
        query = query.where(row.node_id.in_(under))
    named = model_ids(conn, model)
    if named is not None:
        query = query.where(row.model_id.in_(named))
    # Models of which each asks for its newest labelling of a clip; True: a clip has but one.
    asked = taught_models(conn) if named is None else [named]
    families = {(*ids,): _n_variants(conn, ids) == 1 for ids in asked}
    by_node: dict[int, list[_Part]] = defaultdict(list)
    for node, model_id, set_id, is_current, *counts in conn.execute(query):
        if any(counts):
            part = _Part(model_id, set_id, is_current, tuple(map(int, counts)))
            by_node[node].append(part)
    is_between = steps % STEPS_PER_PERCENT > 0
    found = dict.fromkeys(under or (), UNKNOWN) if is_between else {}
    for node, parts in by_node.items():
        total = _speaking(parts, families, is_current=named is None)
        found[node] = replace(total, is_least=total.is_least or is_between)
    return found


def totals_by_mid(engine: Engine, mids: Collection[str], min_score: float) -> dict[str, Total]:
    """What reaches the score below each node, by MID; those not in the database are left out."""
    with reading(engine) as conn:
        named = select(nodes.c.mid, nodes.c.id).where(nodes.c.mid.in_(mids))
        ids = {row.mid: row.id for row in conn.execute(named)}
        found = totals(conn, min_score, under=ids.values())
        return {mid: found.get(own, NOTHING) for mid, own in ids.items()}


def count_clips(engine: Engine, question: Question) -> int | None:
    """How many clips `db.query.find.find_clips` finds without a limit; None: not counted.

    Raises:
        DatabaseUserError: unknown MID or model.
    """
    with reading(engine) as conn:
        total = node_total(conn, question)
    return None if total.is_least else total.n_clips


def node_total(conn: Connection, question: Question) -> Total:
    """What a question about one node finds, if all of that is counted; else what it surely finds.

    Raises:
        DatabaseUserError: unknown MID or model.
    """
    if not has_totals(question) or len(question.under) > 1:
        return UNKNOWN
    own = node_id(conn, question.under[0])
    found = totals(conn, question.min_score, under=[own], model=question.model)
    return found.get(own, NOTHING)


class _Part(NamedTuple):
    """Counts of a node by the labellings with one model and set of parameters."""

    model_id: int
    parameter_set_id: int
    is_current: bool
    counts: tuple[int, ...]


def _speaking(
    parts: Sequence[_Part], families: Mapping[tuple[int, ...], bool], *, is_current: bool
) -> Total:
    """What the newest labellings by each family count together, and the current ones on request.

    Where the labellings of one family, or the current ones, are all that has something to count,
    no clip counts twice.
    """
    chosen = [{part for part in parts if part.is_current}] if is_current else []
    is_unclear = False
    for ids, is_single in families.items():
        own = {part for part in parts if part.model_id in ids}
        if is_single:
            chosen.append(own)
        else:
            is_unclear |= any(not (is_current and part.is_current) for part in own)
    every = set().union(*chosen)
    sums = (map(sum, zip(*(part.counts for part in own), strict=True)) for own in chosen if own)
    most = dict(zip(_COUNTS, map(max, zip(*sums, strict=True)), strict=False))
    return Total(**most, is_least=is_unclear or every not in chosen)


def _n_variants(conn: Connection, ids: Sequence[int]) -> int:
    """With how many sets of parameters, each for itself, the models have finished labellings."""
    done = select(labellings.c.id).where(
        labellings.c.model_id == models.c.id,
        labellings.c.parameter_set_id == parameter_sets.c.id,
        labellings.c.status == "done",
    )
    pairs = select(func.count()).select_from(models.join(parameter_sets, true()))
    is_used = has_row(done.correlate(models, parameter_sets))
    return int(conn.execute(pairs.where(models.c.id.in_(ids), is_used)).scalar_one())
