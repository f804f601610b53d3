"""Labellings that represent their clips, and where their scores lie; intervals derived from them.

Read in pages: memory stays flat, and no transaction stays open while score files are read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import chain
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Engine,
    Select,
    Subquery,
    and_,
    bindparam,
    delete,
    exists,
    func,
    select,
)

from audioset_core.records import Detection
from db.catalog.clips import lock_clips
from db.engine import reading, upsert, writing
from db.errors import DatabaseUserError
from db.ledger.label_rows import Row, insert_rows, label_rows
from db.paging import PAGE, page_of, paged_rows
from db.query.current_labelling import model_ids, represents_clip, with_facts
from db.query.time_spans import row_hop_s, row_window_s
from db.record_columns import columns_for
from db.schema.tables import clips, labellings, models, parameter_sets, sources
from db.schema.threshold_tables import derivations, intervals, threshold_sets
from db.thresholds.sets import StoredSet


@dataclass(frozen=True, slots=True)
class ScoredClip:
    """A clip, the labelling that represents it, and what its score file must be.

    Hop and window are those of the file's rows; detections count in steps of a row.
    """

    labelling_id: int
    clip_id: int
    clip_sha256: str
    duration_s: float
    model_id: int
    n_classes: int
    window_s: float
    patch_hop_s: float
    steps_per_row: int
    n_patches: int | None
    score_dtype: str | None
    scores_path: str | None
    scores_sha256: str | None
    embeddings_path: str | None
    embeddings_sha256: str | None
    embedding_dim: int | None


def iter_scored(engine: Engine, model: str | None, page: int = PAGE) -> Iterator[ScoredClip]:
    """The current labelling of every clip, or the newest by a model that is named.

    Raises:
        DatabaseUserError: no model has that name.
    """
    with reading(engine) as conn:
        ids = model_ids(conn, model)
    yield from _iter(engine, represents_clip(ids), page)


def iter_named(engine: Engine, model: str | None) -> Iterator[tuple[int, str, bytes, str | None]]:
    """(labelling id, clip, path, user id) of every place of every clip as in `iter_scored`.

    Raises:
        DatabaseUserError: no model has that name.
    """
    with reading(engine) as conn:
        ids = model_ids(conn, model)
    query = (
        select(sources.c.id, labellings.c.id, clips.c.sha256, sources.c.path, sources.c.user_id)
        .join(clips, clips.c.id == sources.c.clip_id)
        .join(labellings, labellings.c.clip_id == clips.c.id)
        .where(represents_clip(ids), labellings.c.status == "done")
    )
    for _, labelling_id, sha256, path, user_id in paged_rows(engine, query, key=sources.c.id):
        yield labelling_id, sha256, path, user_id


def iter_underived(engine: Engine, stored: StoredSet) -> Iterator[ScoredClip]:
    """Those to which the set was not applied yet, or only to scores that they no longer have.

    Raises:
        DatabaseUserError: no labels by the set's model.
    """
    yield from _iter(engine, _is_underived(engine, stored), PAGE)


def count_underived(engine: Engine, stored: StoredSet) -> int:
    """How many clips the set is still to be applied to.

    Raises:
        DatabaseUserError: no labels by the set's model.
    """
    query = select(func.count()).select_from(labellings).where(_is_underived(engine, stored))
    with reading(engine) as conn:
        return int(conn.execute(query).scalar_one())


def commit_intervals(
    engine: Engine,
    stored: StoredSet,
    batch: Sequence[tuple[ScoredClip, Sequence[Detection]]],
    node_of: dict[int, dict[int, int]],
    now: datetime,
) -> int:
    """Store the intervals of several clips, in place of older ones, in one transaction.

    `node_of`: by model id, then category index. A clip whose labelling has changed since it was
    read is left for the next time. Returns the number of clips stored.

    Raises:
        DatabaseUserError: the set was removed meanwhile.
    """
    with writing(engine) as conn:
        lock_clips(conn, [clip.clip_id for clip, _ in batch])
        own_set = select(threshold_sets.c.id).where(threshold_sets.c.id == stored.set_id)
        if conn.execute(own_set.with_for_update(read=True, key_share=True)).scalar() is None:
            raise DatabaseUserError(f"the set {stored.title} was removed meanwhile")
        now_named = select(labellings.c.id, labellings.c.scores_sha256).where(
            labellings.c.id.in_([clip.labelling_id for clip, _ in batch]),
            labellings.c.status == "done",
        )
        named = {row.id: row.scores_sha256 for row in conn.execute(now_named)}
        kept = [
            (clip, rows)
            for clip, rows in batch
            if clip.labelling_id in named and named[clip.labelling_id] == clip.scores_sha256
        ]
        if not kept:
            return 0
        old = delete(intervals).where(
            intervals.c.labelling_id == bindparam("key"),
            intervals.c.threshold_set_id == stored.set_id,
        )
        conn.execute(old, [{"key": clip.labelling_id} for clip, _ in kept])
        own = [
            ({"labelling_id": clip.labelling_id, "threshold_set_id": stored.set_id}, clip, found)
            for clip, found in kept
        ]
        rows = (label_rows(found, node_of[clip.model_id], **key) for key, clip, found in own)
        insert_rows(conn, intervals, chain.from_iterable(rows))
        facts: list[Row] = [
            {"scores_sha256": clip.scores_sha256, "n_intervals": len(found), "derived_at": now}
            for _, clip, found in own
        ]
        mark = upsert(conn, derivations)
        mark = mark.on_conflict_do_update(
            index_elements=["labelling_id", "threshold_set_id"],
            set_={name: mark.excluded[name] for name in facts[0]},
        )
        conn.execute(mark, [key | fact for (key, *_), fact in zip(own, facts, strict=True)])
        return len(kept)


def _is_underived(engine: Engine, stored: StoredSet) -> ColumnElement[bool]:
    with reading(engine) as conn:
        ids = model_ids(conn, stored.values.model)
    derived = exists().where(
        derivations.c.threshold_set_id == stored.set_id,
        derivations.c.labelling_id == labellings.c.id,
        derivations.c.scores_sha256.is_not_distinct_from(labellings.c.scores_sha256),
    )
    return and_(represents_clip(ids), labellings.c.status == "done", ~derived)


def scored_clips(engine: Engine, labelling_ids: Sequence[int]) -> dict[int, ScoredClip]:
    """Finished labellings by id, each with its clip and what its score file must be."""
    own = select(labellings.c.id).where(
        labellings.c.id.in_(labelling_ids), labellings.c.status == "done"
    )
    with reading(engine) as conn:
        return {row[0]: ScoredClip(*row) for row in conn.execute(_facts(own.subquery()))}


def _iter(engine: Engine, which: ColumnElement[bool], page: int) -> Iterator[ScoredClip]:
    own = page_of(select(labellings.c.id).where(which), labellings.c.id, page).subquery()
    for row in paged_rows(engine, _facts(own), page):
        yield ScoredClip(*row)


def _facts(own: Subquery) -> Select[Any]:
    """The columns of `ScoredClip` for the labellings with these ids, by id."""
    columns = columns_for(
        ScoredClip, labellings, clips, models, parameter_sets,
        labelling_id=labellings.c.id, clip_sha256=clips.c.sha256,
        patch_hop_s=row_hop_s(), window_s=row_window_s(),
    )  # fmt: skip
    query = (
        select(*columns)
        .join_from(own, labellings, labellings.c.id == own.c.id)
        .order_by(labellings.c.id)
    )
    return with_facts(query)
