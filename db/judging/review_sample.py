"""A sample to judge by ear, drawn at random within strata: a class, and a part of its scores.

As many classes are asked about one by one as can have enough clips each. Clips of all other classes
are asked about the node itself: so every clip can be drawn, and the sample represents all of them.

Source: Cochran, Sampling Techniques (1977), chapter 5 (stratified random sampling).
"""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from sqlalchemy import (
    Connection,
    Double,
    Engine,
    Integer,
    Select,
    and_,
    cast,
    func,
    null,
    select,
    union_all,
)

from db.engine import reading
from db.query.current_labelling import floor, model_ids, with_facts
from db.query.find import prepared
from db.query.per_class import random_rank
from db.query.question import Question
from db.query.statements import best_of_clips, found_query, intervals_query, with_source
from db.query.subtrees import node_id
from db.query.time_spans import covered_seconds, end_s, peak_s, rounded_s, start_s
from db.schema.tables import clips, detections, labellings, models, nodes

MOST_BINS = 5
"""Equal parts of the scores from which a class's clips are drawn."""
_LEAST_PER_BIN = 2
_PAGE = 10_000

_Drawn = tuple[int, int, int, float, float]
"""(rank, labelling id, node id of the best class, its score, seconds of the sound)"""


@dataclass(frozen=True, slots=True)
class ReviewItem:
    """A clip of the sample: the class that is asked about, and the best interval of its best class.

    The interval is None where no patch reached the detection threshold. `heard_s`: how long the
    sound that the review is about is detected in the clip.
    """

    clip: str
    mid: str
    name: str
    score: float
    start_s: float | None
    end_s: float | None
    peak_s: float | None
    window_s: float
    duration_s: float
    stratum: int
    heard_s: float


@dataclass(slots=True)
class Stratum:
    """Clips whose best class is `mid` (None: any other one), with scores from `low` on.

    `heard_s` is how long the sound is detected in them, `heard_s2` the sum of its square by clip.
    """

    mid: str | None
    low: float
    n_clips: int = 0
    heard_s: float = 0.0
    heard_s2: float = 0.0


@dataclass(frozen=True, slots=True)
class ReviewSample:
    """What was drawn, in mixed order, and from what."""

    question: Question
    seed: int
    root: tuple[str, str]
    """(MID, name) of the node that the review is about."""
    items: tuple[ReviewItem, ...]
    strata: tuple[Stratum, ...]
    pooled: tuple[str, ...] = ()
    """Names of the classes that are not asked about one by one, those of most clips first."""

    @property
    def n_asked(self) -> list[tuple[str, int]]:
        """(name of a class that is asked about, clips of it), most first."""
        counted = Counter(item.name for item in self.items)
        return sorted(counted.items(), key=lambda each: (-each[1], each[0]))


def review_sample(
    engine: Engine, question: Question, size: int, *, per_class: int, seed: int
) -> ReviewSample:
    """Draw clips that answer a question about one node, with `per_class` of each class asked about.

    Within a class the parts of the scores get equally many clips; what one lacks others give. The
    same seed on the same labels gives the same sample in the same (mixed) order on any database,
    and a larger sample of as many per class holds the smaller one's clips of each stratum. Memory
    holds `size` clips per class and part.

    Raises:
        DatabaseUserError: as `db.query.find.find_clips`.
    """
    with reading(engine) as conn:
        root = node_id(conn, question.under[0])
        ids = model_ids(conn, question.model)
        pool = _Pool(
            least=question.min_score or floor(conn, ids),
            n_bins=min(MOST_BINS, max(1, min(per_class, size) // _LEAST_PER_BIN)),
            size=size,
        )
        question = replace(question, min_score=pool.least)
        query = _population(conn, question)
        with conn.execution_options(yield_per=_PAGE).execute(query) as rows:
            for sha256, labelling_id, node, peak, heard_s in rows:
                pool.add(
                    (random_rank(seed, sha256), labelling_id, node, peak, round(heard_s or 0.0, 3))
                )
        own, others = _asked_one_by_one(pool.n_of_class(), max(1, size // per_class), per_class)
        groups: list[tuple[int | None, set[int]]] = [(node, {node}) for node in own]
        if others:
            groups.append((None, set(others)))
        named = {row.id: (row.mid, row.name) for row in conn.execute(_names(own, others, root))}
        strata, dealt = pool.strata_and_clips(groups, {node: named[node][0] for node in own})
        items = [
            _item(conn, drawn, named[drawn[2] if drawn[2] in own else root], stratum)
            for stratum, drawn in sorted(dealt, key=lambda each: each[1], reverse=True)
        ]
    return ReviewSample(
        question, seed, named[root], tuple(items), strata, tuple(named[n][1] for n in others)
    )


def score_bin(score: float, least: float, n_bins: int) -> int:
    """Which of `n_bins` equal parts of [least, 1] a score lies in; 1 lies in the last.

    >>> [score_bin(score, least=0.5, n_bins=5) for score in (0.5, 0.59, 0.6, 1.0)]
    [0, 0, 1, 4]
    """
    span = max(1.0 - least, 1e-9)
    return min(n_bins - 1, max(0, int((score - least) / span * n_bins + 1e-9)))


@dataclass(slots=True)
class _Pool:
    """Clips by best class and part of the scores: their number, and those of the first ranks."""

    least: float
    n_bins: int
    size: int
    kept: dict[tuple[int, int], list[_Drawn]] = field(default_factory=lambda: defaultdict(list))
    sums: dict[tuple[int, int], Stratum] = field(default_factory=dict)

    def add(self, drawn: _Drawn) -> None:
        """Count a clip, and keep it if its rank is among the first of its part."""
        _, _, node, score, heard_s = drawn
        key = node, score_bin(score, self.least, self.n_bins)
        sums = self.sums.setdefault(key, Stratum(None, 0.0))
        sums.n_clips += 1
        sums.heard_s += heard_s
        sums.heard_s2 += heard_s**2
        heap = self.kept[key]
        if len(heap) < self.size:
            heapq.heappush(heap, drawn)
        else:
            heapq.heappushpop(heap, drawn)

    def n_of_class(self) -> dict[int, int]:
        """Clips by best class."""
        found = Counter[int]()
        for (node, _), sums in self.sums.items():
            found[node] += sums.n_clips
        return found

    def strata_and_clips(
        self, groups: Sequence[tuple[int | None, set[int]]], mids: dict[int, str]
    ) -> tuple[tuple[Stratum, ...], list[tuple[int, _Drawn]]]:
        """The strata that have clips, and (stratum, clip) of one group after the other in turn."""
        strata: list[Stratum] = []
        by_group: list[list[tuple[int, _Drawn]]] = []
        step = (1.0 - self.least) / self.n_bins
        for own, members in groups:
            parts: list[list[tuple[int, _Drawn]]] = []
            for place in reversed(range(self.n_bins)):
                keys = sorted((node, place) for node in members if (node, place) in self.sums)
                if not keys:
                    continue
                low = round(self.least + place * step, 4)
                whole = Stratum(None if own is None else mids[own], low)
                for sums in map(self.sums.__getitem__, keys):
                    whole.n_clips += sums.n_clips
                    whole.heard_s += sums.heard_s
                    whole.heard_s2 += sums.heard_s2
                first = sorted((d for key in keys for d in self.kept[key]), reverse=True)
                parts.append([(len(strata), drawn) for drawn in first[: self.size]])
                strata.append(whole)
            by_group.append(_in_turn(parts, self.size))
        return tuple(strata), _in_turn(by_group, self.size)


def _asked_one_by_one(
    n_of_class: dict[int, int], most: int, per_class: int
) -> tuple[list[int], list[int]]:
    """(classes with strata of their own, all others), each by number of clips."""
    ordered = sorted(n_of_class, key=lambda node: (-n_of_class[node], node))
    if len(ordered) <= most:
        return ordered, []
    own = [node for node in ordered[: most - 1] if n_of_class[node] >= per_class]
    return own, ordered[len(own) :]


def _in_turn(parts: Sequence[Sequence[Any]], size: int) -> list[Any]:
    """One of each part in turn, until there are enough or none is left."""
    longest = max(map(len, parts), default=0)
    turns = (part[turn] for turn in range(longest) for part in parts if turn < len(part))
    return [each for _, each in zip(range(size), turns, strict=False)]


def _population(conn: Connection, question: Question) -> Select[Any]:
    """Each clip that can be drawn: (clip, labelling, best class, its score, seconds heard)."""
    by_interval = question.is_timed
    tree, allowed = prepared(conn, question, by_interval=by_interval)
    within = intervals_query(tree, question.min_score, allowed, question)
    if question.is_timed:
        within = with_source(within)
    heard = covered_seconds(within, "clip_id").subquery("heard").c
    found = within if by_interval else found_query(tree, question.min_score, allowed)
    best = best_of_clips(found).c
    # SQLite would compare each clip of one with each of the other, if they were joined.
    no_number, no_id = cast(null(), Double), cast(null(), Integer)
    both = union_all(
        select(best.clip_id, best.labelling_id, best.node_id, best.peak,
               no_number.label("seconds")),
        select(heard.clip_id, no_id, no_id, cast(null(), best.peak.type), heard.seconds),
    ).subquery("both").c  # fmt: skip
    chosen = (both.labelling_id, both.node_id, both.peak, both.seconds)
    return (
        select(clips.c.sha256, *(func.max(each) for each in chosen))
        .join_from(both.clip_id.table, clips, clips.c.id == both.clip_id)
        .group_by(both.clip_id, clips.c.sha256)
    )


def _names(own: Iterable[int], others: Iterable[int], root: int) -> Select[Any]:
    wanted = {root, *own, *others}
    return select(nodes.c.id, nodes.c.mid, nodes.c.name).where(nodes.c.id.in_(wanted))


def _item(conn: Connection, drawn: _Drawn, asked: tuple[str, str], stratum: int) -> ReviewItem:
    _, labelling_id, best, score, heard_s = drawn
    interval = and_(detections.c.labelling_id == labellings.c.id, detections.c.node_id == best)
    row = conn.execute(
        with_facts(
            select(clips.c.sha256, start_s(detections), end_s(detections), peak_s(detections),
                   models.c.window_s, rounded_s(clips.c.duration_s))
            .select_from(labellings)
        )
        .outerjoin(detections, interval)
        .where(labellings.c.id == labelling_id)
        .order_by(detections.c.peak.desc(), detections.c.start_patch)
        .limit(1)
    ).one()  # fmt: skip
    clip, begin_s, finish_s, best_s, window_s, duration_s = row
    return ReviewItem(
        clip, *asked, score, begin_s, finish_s, best_s, window_s, duration_s, stratum, heard_s
    )
