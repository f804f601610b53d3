"""The best, or random, sounds of each class, however many there are: memory holds the chosen ones.

A sound is what event lists have: detections of a class that touch or overlap are one.
"""

from __future__ import annotations

import hashlib
import heapq
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any, Literal, NamedTuple

from sqlalchemy import Connection, Row, Select, select

from db.answer_records import HeardSound, track_of
from db.paging import rows_where_in
from db.query.current_labelling import with_facts
from db.query.question import Question
from db.query.statements import with_source
from db.schema.tables import clips, labellings, models, nodes, parameter_sets

Choice = Literal["score", "random"]

_PAGE = 10_000
_TOUCH_S = 1e-6
"""Times are products that differ in the last digit."""


class _Chosen(NamedTuple):
    """A sound with what orders it; the least one is the first to be dropped."""

    rank: tuple[float, int]
    labelling_id: int
    node_id: int
    score: float
    start_s: float
    end_s: float


def sounds_of_each_class(
    conn: Connection, found: Select[Any], question: Question, most: int, choice: Choice, seed: int
) -> list[HeardSound]:
    """At most so many sounds of each class, by class, clip and start.

    `found` has the rows of `db.query.statements.fitting_intervals`. The seed decides between equal
    scores, too: by content, so that any database gives the same sounds.
    """
    part = (with_source(found) if question.is_timed else found).subquery("timed")
    query = (
        select(
            part.c.labelling_id, part.c.node_id, part.c.peak, part.c.start_s, part.c.end_s,
            clips.c.sha256,
        )
        .join(clips, clips.c.id == part.c.clip_id)
        .order_by(part.c.clip_id, part.c.node_id, part.c.start_s, part.c.labelling_id)
    )  # fmt: skip
    kept: dict[int, list[_Chosen]] = defaultdict(list)
    with conn.execution_options(yield_per=_PAGE).execute(query) as rows:
        for labelling_id, node_id, score, start_s, end_s, sha256 in _touching_as_one(rows):
            rank = score if choice == "score" else 0.0, random_rank(seed, f"{sha256} {start_s}")
            chosen = _Chosen(rank, labelling_id, node_id, score, start_s, end_s)
            heap = kept[node_id]
            (heapq.heappush if len(heap) < most else heapq.heappushpop)(heap, chosen)
    return _described(conn, [chosen for heap in kept.values() for chosen in heap])


def random_rank(seed: int, what: str) -> int:
    """A random number for a clip or place, by seed and name alone: the same on every database.

    Negative, so that a heap, which removes its least value, removes what has the last rank.
    """
    digest = hashlib.blake2b(f"{seed} {what}".encode(), digest_size=8).digest()
    return -int.from_bytes(digest, "big")


def _touching_as_one(rows: Iterable[Row[Any]]) -> Iterator[tuple[Any, ...]]:
    """Rows by clip, class and start; those of one class that touch are one, by best score."""
    held: tuple[Any, ...] | None = None
    for row in rows:
        labelling_id, node_id, score, start_s, end_s, sha256 = row
        if (
            held is not None
            and (held[5], held[1]) == (sha256, node_id)
            and start_s <= (held[4] + _TOUCH_S)
        ):
            best, best_id = max((held[2], -held[0]), (score, -labelling_id))
            held = (-best_id, node_id, best, held[3], max(held[4], end_s), sha256)
            continue
        if held is not None:
            yield held
        held = tuple(row)
    if held is not None:
        yield held


def _described(conn: Connection, chosen: list[_Chosen]) -> list[HeardSound]:
    ids = sorted({each.labelling_id for each in chosen})
    facts = with_facts(
        select(
            labellings.c.id, clips.c.sha256, clips.c.n_samples, clips.c.sample_rate_hz,
            clips.c.n_channels, clips.c.format, models.c.name.label("model"),
            models.c.version, labellings.c.is_partial, parameter_sets.c.parameters,
        ).select_from(labellings)
    )  # fmt: skip
    by_id = {row.id: row for row in rows_where_in(conn, facts, labellings.c.id, ids)}
    named = select(nodes.c.id, nodes.c.mid, nodes.c.name, nodes.c.position)
    node_ids = sorted({each.node_id for each in chosen})
    by_node = {row.id: row for row in rows_where_in(conn, named, nodes.c.id, node_ids)}
    sounds = []
    for each in chosen:
        own, node = by_id[each.labelling_id], by_node[each.node_id]
        sounds.append(
            HeardSound(
                own.sha256, node.mid, node.name, each.score, each.start_s, each.end_s,
                own.n_samples, own.sample_rate_hz, own.n_channels, own.format,
                own.model, own.version, own.is_partial, track_of(own.parameters),
            )
        )  # fmt: skip
    return sorted(sounds, key=lambda sound: (sound.mid, sound.clip, sound.start_s))
