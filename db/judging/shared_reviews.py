"""Stored samples as several people judge them: what to hear, in which order, and who said what.

Everybody hears the same clips in the same order, which the sample's seed decides.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    Row,
    Select,
    Subquery,
    and_,
    func,
    or_,
    select,
)

from db.engine import reading
from db.errors import DatabaseUserError
from db.judging.verdicts import path_of_clip, with_history
from db.query.per_class import random_rank
from db.query.time_spans import rounded_s, timed
from db.record_columns import columns_for
from db.schema.tables import clips, closure, detections, labellings, models, nodes
from db.schema.verdict_tables import review_items, reviews


@dataclass(frozen=True, slots=True)
class ReviewInList:
    """A stored sample: of which node, how many clips, and how many of them somebody judged."""

    review_id: int
    mid: str
    name: str
    drawn_at: datetime
    n_clips: int
    n_judged: int


@dataclass(frozen=True, slots=True)
class SharedItem:
    """A clip of a sample: which class is asked about, and where its score is best.

    `heard` is the interval in which the class was detected there, if it was; `window_s` the length
    of a patch of the model that labelled the clip.
    """

    clip: str
    path_text: str
    mid: str
    name: str
    peak_s: float | None
    duration_s: float
    window_s: float
    heard: tuple[float, float] | None


@dataclass(frozen=True, slots=True)
class SharedReview:
    """A sample in the order in which it is heard."""

    review_id: int
    mid: str
    name: str
    drawn_at: datetime
    items: tuple[SharedItem, ...]


def list_reviews(engine: Engine) -> list[ReviewInList]:
    """The stored samples, the newest first."""
    said = with_history()
    judged = (
        select(func.count(said.c.clip_id.distinct()))
        .select_from(review_items)
        .join(said, _answers(said, review_items.c.node_id))
        .where(review_items.c.review_id == reviews.c.id)
        .correlate(reviews)
        .scalar_subquery()
    )
    own = review_items.c.review_id == reviews.c.id
    n_clips = select(func.count()).where(own).correlate(reviews).scalar_subquery()
    query = (
        select(*columns_for(ReviewInList, reviews, nodes, review_id=reviews.c.id,
                            n_clips=n_clips, n_judged=judged))
        .join(nodes, nodes.c.id == reviews.c.node_id)
        .order_by(reviews.c.id.desc())
    )  # fmt: skip
    with reading(engine) as conn:
        return [ReviewInList(*row) for row in conn.execute(query)]


def shared_review(engine: Engine, review_id: int) -> SharedReview:
    """A stored sample, to be heard.

    Raises:
        DatabaseUserError: there is none of this number.
    """
    with reading(engine) as conn:
        review = _review(conn, review_id)
        heard = _heard(conn, review_id)
        rows = conn.execute(_items(review_id)).all()
    rows = sorted(rows, key=lambda row: random_rank(review.seed, row.sha256), reverse=True)
    items = tuple(
        SharedItem(
            row.sha256, row.path_text, row.mid, row.name,
            None if row.peak_ms is None else row.peak_ms / 1000,
            float(row.duration_s), float(row.window_s or 0.0), heard.get(row.clip_id),
        )
        for row in rows
    )  # fmt: skip
    return SharedReview(review.id, review.mid, review.name, review.drawn_at, items)


def answers(engine: Engine, review_id: int, *, of_node: bool = False) -> dict[str, dict[str, str]]:
    """What each person says by now of each clip (its SHA-256): ``present``, ``absent``, ``unsure``.

    What counts is the newest verdict of that person on the class that the sample asks about there,
    of the whole clip or of a span with the best score in it. `of_node`: on the node that the whole
    sample is about, which differs where one of the classes below it is asked about.

    Raises:
        DatabaseUserError: there is no sample of this number.
    """
    said = with_history()
    query = (
        select(said.c.judged_by, clips.c.sha256, said.c.verdict)
        .select_from(review_items)
        .join(reviews, reviews.c.id == review_items.c.review_id)
        .join(said, _answers(said, reviews.c.node_id if of_node else review_items.c.node_id))
        .join(clips, clips.c.id == review_items.c.clip_id)
        .where(review_items.c.review_id == review_id)
        .order_by(said.c.judged_at, said.c.id)
    )
    found: dict[str, dict[str, str]] = {}
    with reading(engine) as conn:
        _review(conn, review_id)
        for who, clip, verdict in conn.execute(query):
            found.setdefault(who, {})[clip] = verdict
    return dict(sorted(found.items()))


def judges(engine: Engine) -> list[str]:
    """The names of those who judged anything."""
    said = with_history()
    query = select(said.c.judged_by).where(said.c.is_newest).distinct()
    with reading(engine) as conn:
        return sorted(conn.execute(query).scalars())


def _answers(said: Subquery, node_id: ColumnElement[int]) -> ColumnElement[bool]:
    """Whether a verdict on this node is an answer to what a sample asks about a clip."""
    row = said.c
    at_peak = or_(
        row.start_ms.is_(None),
        review_items.c.peak_ms.is_(None),
        and_(row.start_ms <= review_items.c.peak_ms, review_items.c.peak_ms < row.end_ms),
    )
    same = and_(row.clip_id == review_items.c.clip_id, row.node_id == node_id)
    return and_(same, row.is_newest, at_peak)


def _review(conn: Connection, review_id: int) -> Row[tuple[int, int, datetime, str, str]]:
    query = (
        select(reviews.c.id, reviews.c.seed, reviews.c.drawn_at, nodes.c.mid, nodes.c.name)
        .join(nodes, nodes.c.id == reviews.c.node_id)
        .where(reviews.c.id == review_id)
    )
    found = conn.execute(query).one_or_none()
    if found is None:
        raise DatabaseUserError(f"there is no sample {review_id}")
    return found


def _items(review_id: int) -> Select[tuple[object, ...]]:
    current = and_(labellings.c.clip_id == clips.c.id, labellings.c.is_current)
    return (
        select(
            review_items.c.clip_id, clips.c.sha256, nodes.c.mid, nodes.c.name,
            func.coalesce(path_of_clip(), "").label("path_text"),
            review_items.c.peak_ms, rounded_s(clips.c.duration_s).label("duration_s"),
            models.c.window_s,
        )
        .select_from(review_items)
        .join(clips, clips.c.id == review_items.c.clip_id)
        .join(nodes, nodes.c.id == review_items.c.node_id)
        .outerjoin(labellings, current)
        .outerjoin(models, models.c.id == labellings.c.model_id)
        .where(review_items.c.review_id == review_id)
    )  # fmt: skip


def _heard(conn: Connection, review_id: int) -> dict[int, tuple[float, float]]:
    """By clip: from the first to the last detection below the class that touches the best score."""
    below = (
        timed(review_items.c.clip_id, review_items.c.peak_ms)
        .join(review_items, review_items.c.clip_id == labellings.c.clip_id)
        .join(closure, and_(closure.c.ancestor_id == review_items.c.node_id,
                            closure.c.descendant_id == detections.c.node_id))
        .where(labellings.c.is_current, review_items.c.review_id == review_id)
    ).subquery("below")  # fmt: skip
    peak_s = below.c.peak_ms / 1000.0
    query = (
        select(below.c.clip_id, func.min(below.c.start_s), func.max(below.c.end_s))
        .where(below.c.start_s <= peak_s, peak_s < below.c.end_s)
        .group_by(below.c.clip_id)
    )
    return {row[0]: (float(row[1]), float(row[2])) for row in conn.execute(query)}
