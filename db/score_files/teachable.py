"""Which stored embeddings there are to teach classes with, and which clips a person means."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Engine, and_, func, select

from db.engine import reading
from db.paging import batches, rows_where_in
from db.query.current_labelling import has_embeddings, has_row, newest_version, represents_clip
from db.query.paths import at_paths, is_there
from db.query.subtrees import node_id
from db.schema.tables import clips, closure, labellings, models, nodes, sources
from db.score_files.labelled import ScoredClip, scored_clips

_PAGE = 200


@dataclass(frozen=True, slots=True)
class EmbeddedModel:
    """A model with stored embeddings, of so many clips."""

    model_id: int
    name: str
    version: str
    n_clips: int

    @property
    def title(self) -> str:
        """NAME@VERSION."""
        return f"{self.name}@{self.version}"


def embedded_models(engine: Engine) -> list[EmbeddedModel]:
    """Every version of a model that has stored embeddings, the oldest first."""
    query = (
        select(
            models.c.id,
            models.c.name,
            models.c.version,
            func.count(labellings.c.clip_id.distinct()),
        )
        .join(labellings, labellings.c.model_id == models.c.id)
        .where(labellings.c.embeddings_path.is_not(None))
        .group_by(models.c.id)
        .order_by(models.c.registered_at, models.c.id)
    )
    with reading(engine) as conn:
        return [EmbeddedModel(*row) for row in conn.execute(query)]


def embedded_labellings(engine: Engine, model_id: int) -> list[int]:
    """The newest labelling with embeddings of every clip, by the clip's digest.

    The order is the same in any database with the same clips.
    """
    query = (
        select(labellings.c.id)
        .join(clips, clips.c.id == labellings.c.clip_id)
        .where(represents_clip([model_id], with_embeddings=True), labellings.c.n_patches > 0)
        .order_by(clips.c.sha256)
    )
    with reading(engine) as conn:
        return list(conn.execute(query).scalars())


def count_patches(engine: Engine, model_id: int) -> int:
    """How many patches the labellings of `embedded_labellings` have together."""
    query = select(func.coalesce(func.sum(labellings.c.n_patches), 0)).where(
        represents_clip([model_id], with_embeddings=True)
    )
    with reading(engine) as conn:
        return int(conn.execute(query).scalar_one())


def embedded_clips(engine: Engine, model_id: int, sha256s: Sequence[str]) -> Iterator[ScoredClip]:
    """The newest labelling with embeddings of each of these clips that has one."""
    query = (
        select(labellings.c.id)
        .join(clips, clips.c.id == labellings.c.clip_id)
        .where(represents_clip([model_id], with_embeddings=True), labellings.c.n_patches > 0)
    )
    with reading(engine) as conn:
        ids = [row.id for row in rows_where_in(conn, query, clips.c.sha256, sorted(set(sha256s)))]
    yield from iter_clips(engine, ids)


def iter_clips(engine: Engine, labelling_ids: Sequence[int]) -> Iterator[ScoredClip]:
    """Finished labellings in the order of the ids given, read in pages."""
    for some in batches(labelling_ids, _PAGE):
        found = scored_clips(engine, some)
        yield from (found[key] for key in some if key in found)


@dataclass(frozen=True, slots=True)
class WithoutEmbeddings:
    """Clips that a model has labelled and that have no embeddings of the model."""

    n_clips: int
    n_vanished: int
    """Of those, how many have no file any more."""
    place: bytes
    """The deepest folder that holds all their files, or the only file; empty if there is none."""


def clips_without_embeddings(engine: Engine, model: str) -> WithoutEmbeddings:
    """How many clips NAME (its newest version) or NAME@VERSION has labelled without embeddings.

    Raises:
        DatabaseUserError: no model has that name.
    """
    own = labellings.alias("own")
    with reading(engine) as conn:
        model_id = newest_version(conn, model).id

        def by_model(table: Any, *conditions: ColumnElement[bool]) -> ColumnElement[bool]:
            is_done = and_(table.c.model_id == model_id, table.c.status == "done", *conditions)
            return has_row(select(table.c.id).where(table.c.clip_id == clips.c.id, is_done))

        lacks = and_(by_model(labellings), ~by_model(own, has_embeddings(own)))
        its_files = and_(sources.c.clip_id == clips.c.id, is_there())
        n_all = conn.execute(select(func.count()).select_from(clips).where(lacks)).scalar_one()
        there = select(sources.c.path).join(clips, its_files).where(lacks)
        n_there = conn.execute(
            select(func.count(sources.c.clip_id.distinct())).join(clips, its_files).where(lacks)
        ).scalar_one()
        # What the first and the last path have in common, all between them have.
        order = (sources.c.path, sources.c.path.desc())
        ends = [conn.execute(there.order_by(by).limit(1)).scalar() for by in order]
    place = os.path.commonpath([end for end in ends if end]) if n_there else b""
    return WithoutEmbeddings(n_all, n_all - n_there, place)


def clips_at(engine: Engine, path: str) -> list[str]:
    """The SHA-256 of each clip that was seen at a file, or below a folder, in order.

    Raises:
        DatabaseUserError: the path is not a valid pattern.
    """
    query = (
        select(clips.c.sha256)
        .join(sources, sources.c.clip_id == clips.c.id)
        .where(at_paths([path]))
        .distinct()
        .order_by(clips.c.sha256)
    )
    with reading(engine) as conn:
        return list(conn.execute(query).scalars())


def members(engine: Engine, mid: str) -> frozenset[str]:
    """The MIDs of a node and of all below it.

    Raises:
        DatabaseUserError: unknown MID.
    """
    with reading(engine) as conn:
        query = (
            select(nodes.c.mid)
            .join(closure, closure.c.descendant_id == nodes.c.id)
            .where(closure.c.ancestor_id == node_id(conn, mid))
        )
        return frozenset(conn.execute(query).scalars())
