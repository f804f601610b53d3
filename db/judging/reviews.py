"""Samples that were drawn to be judged, kept so that verdicts on them count for all clips."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Engine, Row, insert, select

from db.catalog.clips import clip_ids
from db.catalog.ontology import node_ids
from db.engine import reading, writing
from db.errors import DatabaseUserError
from db.judging.review_sample import ReviewSample
from db.judging.verdicts import with_history
from db.query.subtrees import node_id
from db.record_columns import columns_for
from db.schema.tables import closure, nodes
from db.schema.verdict_tables import review_items, review_strata, reviews


@dataclass(frozen=True, slots=True)
class JudgedItem:
    """A clip of a sample; `is_true` None: not judged, or not clearly."""

    stratum: int
    score: float
    heard_s: float
    is_true: bool | None


@dataclass(frozen=True, slots=True)
class StoredStratum:
    """A stratum of a stored sample; `name` of its class, or None for all others."""

    name: str | None
    low: float
    n_clips: int
    heard_s: float
    heard_s2: float


@dataclass(frozen=True, slots=True)
class JudgedReview:
    """A stored sample with what the verdicts say of it by now."""

    review_id: int
    drawn_at: datetime
    question: dict[str, Any]
    strata: tuple[StoredStratum, ...]
    items: tuple[JudgedItem, ...]
    n_contradicting: int = 0

    @property
    def n_judged(self) -> int:
        """Clips with a clear verdict."""
        return sum(item.is_true is not None for item in self.items)


def store_review(engine: Engine, sample: ReviewSample, now: datetime) -> int:
    """Keep a sample; its id. The same sample drawn again is the same review."""
    with writing(engine) as conn:
        ids = node_ids(conn)
        id_of = clip_ids(conn, [item.clip for item in sample.items])
        row = {
            "node_id": ids[sample.root[0]],
            "question": _as_json(sample),
            "seed": sample.seed,
        }
        items: list[dict[str, Any]] = [
            {
                "clip_id": id_of[item.clip],
                "stratum": item.stratum,
                "node_id": ids[item.mid],
                "score": item.score,
                "peak_ms": None if item.peak_s is None else round(item.peak_s * 1000),
                "heard_s": item.heard_s,
            }
            for item in sample.items
        ]
        strata = [
            {"position": position, "node_id": ids.get(row.pop("mid")), **row}
            for position, row in enumerate(map(asdict, sample.strata))
        ]
        known = _same(conn, row, {(i["clip_id"], i["stratum"]) for i in items}, strata)
        if known is not None:
            return known
        added = insert(reviews).values(row | {"drawn_at": now}).returning(reviews.c.id)
        review_id = int(conn.execute(added).scalar_one())
        conn.execute(insert(review_strata), [s | {"review_id": review_id} for s in strata])
        conn.execute(insert(review_items), [i | {"review_id": review_id} for i in items])
        return review_id


def judged_reviews(engine: Engine, mid: str) -> Iterator[JudgedReview]:
    """The samples about a node, the newest first, with what the verdicts say of each.

    A clip holds the sound if any class of the subtree was judged present in it; it does not if the
    node itself was judged absent where its score is best.

    Raises:
        DatabaseUserError: unknown MID.
    """
    with reading(engine) as conn:
        root = node_id(conn, mid)
        query = select(reviews).where(reviews.c.node_id == root).order_by(reviews.c.id.desc())
        for row in conn.execute(query).all():
            yield _judged(conn, root, row)


def judged_review(engine: Engine, review_id: int) -> JudgedReview:
    """One sample with what the verdicts say of it by now, as `judged_reviews`.

    Raises:
        DatabaseUserError: there is none of this number.
    """
    with reading(engine) as conn:
        row = conn.execute(select(reviews).where(reviews.c.id == review_id)).one_or_none()
        if row is None:
            raise DatabaseUserError(f"there is no sample {review_id}")
        return _judged(conn, row.node_id, row)


def _judged(conn: Connection, root: int, review: Row[Any]) -> JudgedReview:
    own = review_strata.c.review_id == review.id
    strata = (
        select(*columns_for(StoredStratum, review_strata, nodes))
        .select_from(review_strata)
        .outerjoin(nodes, nodes.c.id == review_strata.c.node_id)
        .where(own)
        .order_by(review_strata.c.position)
    )
    verdicts = with_history()
    of_sample = (
        select(verdicts)
        .join(review_items, review_items.c.clip_id == verdicts.c.clip_id)
        .join(closure, closure.c.descendant_id == verdicts.c.node_id)
        .where(review_items.c.review_id == review.id, closure.c.ancestor_id == root)
        .where(verdicts.c.is_newest)
    )
    said: dict[int, list[Row[Any]]] = {}
    for verdict in conn.execute(of_sample):
        said.setdefault(verdict.clip_id, []).append(verdict)
    items, n_contradicting = [], 0
    query = select(review_items).where(review_items.c.review_id == review.id)
    for row in conn.execute(query.order_by(review_items.c.clip_id)):
        present, absent = _clear(said.get(row.clip_id, []), root, row.peak_ms)
        n_contradicting += present and absent
        is_true = None if present == absent else present
        items.append(JudgedItem(row.stratum, row.score, row.heard_s, is_true))
    return JudgedReview(
        review.id,
        review.drawn_at,
        review.question,
        tuple(StoredStratum(*stratum) for stratum in conn.execute(strata)),
        tuple(items),
        n_contradicting,
    )


def _clear(said: Sequence[Row[Any]], root: int, peak_ms: int | None) -> tuple[bool, bool]:
    """Whether the sound was judged present, and whether absent where it matters.

    Both are True only where they contradict: what is absent at the best score may be elsewhere.
    """
    present = [v for v in said if v.verdict == "present"]
    absent = [
        v for v in said
        if v.verdict == "absent" and v.node_id == root
        and (peak_ms is None or v.start_ms is None or v.start_ms <= peak_ms < v.end_ms)
    ]  # fmt: skip
    if present and absent:
        return True, any(_overlap(a, b) for a in present for b in absent)
    return bool(present), bool(absent)


def _overlap(one: Row[Any], other: Row[Any]) -> bool:
    if one.start_ms is None or other.start_ms is None:
        return True
    return bool(one.start_ms <= other.end_ms and other.start_ms <= one.end_ms)


def _same(
    conn: Connection,
    row: dict[str, Any],
    items: set[tuple[int, int]],
    strata: Sequence[dict[str, Any]],
) -> int | None:
    """The newest review of the node, if it is this very sample."""
    mine = reviews.c.node_id == row["node_id"]
    last = conn.execute(select(reviews).where(mine).order_by(reviews.c.id.desc()).limit(1)).first()
    if last is None or (last.seed, last.question) != (row["seed"], row["question"]):
        return None
    drawn = select(review_items.c.clip_id, review_items.c.stratum)
    found = conn.execute(drawn.where(review_items.c.review_id == last.id))
    sizes = select(review_strata.c.n_clips).where(review_strata.c.review_id == last.id)
    n_clips = list(conn.execute(sizes.order_by(review_strata.c.position)).scalars())
    is_same = {tuple(each) for each in found} == items
    return last.id if is_same and n_clips == [s["n_clips"] for s in strata] else None


def _as_json(sample: ReviewSample) -> dict[str, Any]:
    asked = asdict(sample.question)
    return {key: list(value) if isinstance(value, tuple) else value for key, value in asked.items()}
