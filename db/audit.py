"""What the tables promise about files, and where they disagree with themselves; writes nothing.

Everything of a collection's size is read in pages: memory stays flat, and no transaction stays
open while files are read.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    Connection,
    Engine,
    Row,
    Select,
    and_,
    bindparam,
    exists,
    func,
    or_,
    select,
)

from db.engine import reading
from db.records import Variant
from db.tables import (
    categories,
    clip_scores,
    clips,
    closure,
    detections,
    edges,
    labellings,
    models,
    nodes,
    parameter_sets,
    sources,
)
from db.types import SCORE_SCALE

_PAGE = 1_000

Scores = dict[int, tuple[int, int]]
"""(peak, mean) in steps of 1/10,000 by node id."""
Detections = dict[tuple[int, int], tuple[int, int, int, int]]
"""(end patch, peak, mean, peak patch) by node id and start patch."""


@dataclass(frozen=True, slots=True)
class DoneLabelling:
    """A finished labelling, and what it promises; `token` tells whether it changed since."""

    labelling_id: int
    token: int
    clip_id: int
    variant: Variant
    clip_sha256: str
    n_samples: int
    sample_rate_hz: int
    n_patches: int | None
    score_dtype: str | None
    scores_path: str | None
    scores_sha256: str | None
    embeddings_path: str | None
    embeddings_sha256: str | None


@dataclass(frozen=True, slots=True)
class StoredVariant:
    """A model and a set of parameters that labellings were made with."""

    model: str
    version: str
    n_classes: int
    embedding_dim: int | None
    digest: str
    parameters: Mapping[str, Any]

    @property
    def extra(self) -> Mapping[str, Any]:
        """The parameters beside hop, floor and threshold."""
        found: Mapping[str, Any] = self.parameters.get("extra", {})
        return found


@dataclass(frozen=True, slots=True)
class UndoneLabelling:
    """A labelling that a repair has reset; `speaker_id` is its clip's current labelling."""

    labelling_id: int
    clip_id: int
    clip_sha256: str
    speaker_id: int | None


@dataclass(frozen=True, slots=True)
class ClosureDifference:
    """A pair of the closure: its depth as stored, and by the edges; None where there is none."""

    ancestor_id: int
    descendant_id: int
    stored: int | None
    right: int | None


def count_done(engine: Engine) -> int:
    """How many labellings are finished."""
    query = select(func.count()).select_from(labellings).where(labellings.c.status == "done")
    with reading(engine) as conn:
        return int(conn.execute(query).scalar_one())


def stored_variants(engine: Engine) -> dict[Variant, StoredVariant]:
    """Every pair of model and parameters that a labelling has."""
    used = select(labellings.c.model_id, labellings.c.parameter_set_id).distinct().subquery()
    query = (
        select(
            used.c.model_id,
            used.c.parameter_set_id,
            models.c.name,
            models.c.version,
            models.c.n_classes,
            models.c.embedding_dim,
            parameter_sets.c.digest,
            parameter_sets.c.parameters,
        )
        .join(models, models.c.id == used.c.model_id)
        .join(parameter_sets, parameter_sets.c.id == used.c.parameter_set_id)
        .order_by(used.c.model_id, used.c.parameter_set_id)
    )
    with reading(engine) as conn:
        return {Variant(row[0], row[1]): StoredVariant(*row[2:]) for row in conn.execute(query)}


def category_nodes(engine: Engine, model_id: int) -> dict[int, int]:
    """Node id by index of the model's output."""
    query = select(categories.c.idx, categories.c.node_id).where(categories.c.model_id == model_id)
    with reading(engine) as conn:
        return {row.idx: row.node_id for row in conn.execute(query)}


def iter_done(engine: Engine, page: int = _PAGE) -> Iterator[DoneLabelling]:
    """Every finished labelling, by id."""
    # The page is cut before the join, or a database without statistics would sort everything.
    part = (
        select(labellings)
        .where(labellings.c.status == "done", labellings.c.id > bindparam("last"))
        .order_by(labellings.c.id)
        .limit(page)
        .subquery()
    )
    query = (
        select(
            part.c.id,
            part.c.token,
            part.c.clip_id,
            part.c.model_id,
            part.c.parameter_set_id,
            clips.c.sha256,
            clips.c.n_samples,
            clips.c.sample_rate_hz,
            part.c.n_patches,
            part.c.score_dtype,
            part.c.scores_path,
            part.c.scores_sha256,
            part.c.embeddings_path,
            part.c.embeddings_sha256,
        )
        .join(clips, clips.c.id == part.c.clip_id)
        .order_by(part.c.id)
    )
    for row in _paged(engine, query, page):
        yield DoneLabelling(*row[:3], Variant(row[3], row[4]), *row[5:])


def iter_undone(
    engine: Engine, variant: Variant | None = None, page: int = _PAGE
) -> Iterator[UndoneLabelling]:
    """Labellings that a repair has reset and nobody has taken up since, by id.

    A claim always has a run; only `db.repair.reset_labelling` leaves none.
    """
    speaker = labellings.alias("speaker")
    is_speaker = and_(speaker.c.clip_id == labellings.c.clip_id, speaker.c.is_current)
    query = (
        select(labellings.c.id, labellings.c.clip_id, clips.c.sha256, speaker.c.id)
        .join(clips, clips.c.id == labellings.c.clip_id)
        .outerjoin(speaker, is_speaker)
        .where(
            labellings.c.status == "claimed",
            labellings.c.run_id.is_(None),
            labellings.c.id > bindparam("last"),
        )
        .order_by(labellings.c.id)
        .limit(page)
    )
    if variant is not None:
        query = query.where(
            labellings.c.model_id == variant.model_id,
            labellings.c.parameter_set_id == variant.parameter_set_id,
        )
    for row in _paged(engine, query, page):
        yield UndoneLabelling(*row)


def iter_sources(
    engine: Engine, clip_id: int, page: int = _PAGE
) -> Iterator[tuple[bytes, int, int]]:
    """(path, size in bytes, mtime in ns) of each place where the clip was seen."""
    query = (
        select(sources.c.id, sources.c.path, sources.c.size_bytes, sources.c.mtime_ns)
        .where(sources.c.clip_id == clip_id, sources.c.id > bindparam("last"))
        .order_by(sources.c.id)
        .limit(page)
    )
    for row in _paged(engine, query, page):
        yield row[1], row[2], row[3]


def iter_stray_labels(engine: Engine, page: int = _PAGE) -> Iterator[tuple[int, str]]:
    """(id, clip) of unfinished labellings that have labels all the same."""
    has_rows = or_(*(_has_rows(table) for table in (clip_scores, detections)))
    query = (
        select(labellings.c.id, clips.c.sha256)
        .join(clips, clips.c.id == labellings.c.clip_id)
        .where(labellings.c.status != "done", has_rows, labellings.c.id > bindparam("last"))
        .order_by(labellings.c.id)
        .limit(page)
    )
    for row in _paged(engine, query, page):
        yield row[0], row[1]


def iter_speechless(engine: Engine, page: int = _PAGE) -> Iterator[tuple[int, str]]:
    """(id, SHA-256) of clips whose current labelling is none of the finished ones."""
    own, speaker = labellings.alias("own"), labellings.alias("speaker")
    has_speaker = exists().where(
        speaker.c.clip_id == own.c.clip_id, speaker.c.is_current, speaker.c.status == "done"
    )
    is_wrong = or_(
        and_(own.c.status == "done", ~has_speaker), and_(own.c.status != "done", own.c.is_current)
    )
    query = (
        select(clips.c.id, clips.c.sha256)
        .where(
            exists().where(own.c.clip_id == clips.c.id, is_wrong), clips.c.id > bindparam("last")
        )
        .order_by(clips.c.id)
        .limit(page)
    )
    for row in _paged(engine, query, page):
        yield row[0], row[1]


def named_files(engine: Engine, clip_sha256s: Sequence[str]) -> set[str]:
    """Every file that a row of these clips names."""
    query = (
        select(labellings.c.scores_path, labellings.c.embeddings_path)
        .join(clips, clips.c.id == labellings.c.clip_id)
        .where(clips.c.sha256.in_(bindparam("wanted", expanding=True)))
    )
    with reading(engine) as conn:
        rows = conn.execute(query, {"wanted": list(clip_sha256s)})
        return {path for row in rows for path in row if path is not None}


def labels_of(engine: Engine, labelling_id: int) -> tuple[Scores, Detections]:
    """A labelling's rows, in the integers that are stored."""
    by_id = {"key": labelling_id}
    key = bindparam("key")
    with reading(engine) as conn:
        scores = conn.execute(select(clip_scores).where(clip_scores.c.labelling_id == key), by_id)
        found = conn.execute(select(detections).where(detections.c.labelling_id == key), by_id)
        return (
            {row.node_id: (_step(row.peak), _step(row.mean)) for row in scores},
            {
                (row.node_id, row.start_patch): (
                    row.end_patch,
                    _step(row.peak),
                    _step(row.mean),
                    row.peak_patch,
                )
                for row in found
            },
        )


def node_mids(engine: Engine) -> dict[int, str]:
    """MID by node id."""
    with reading(engine) as conn:
        return {row.id: row.mid for row in conn.execute(select(nodes.c.id, nodes.c.mid))}


def closure_differences(conn: Connection) -> list[ClosureDifference]:
    """Where the closure is not what the edges make it; every node is its own descendant."""
    stored = {
        (row.ancestor_id, row.descendant_id): row.depth for row in conn.execute(select(closure))
    }
    children: dict[int, list[int]] = {}
    for row in conn.execute(select(edges.c.parent_id, edges.c.child_id)):
        children.setdefault(row.parent_id, []).append(row.child_id)
    right = {
        (ancestor, descendant): depth
        for ancestor in conn.execute(select(nodes.c.id)).scalars()
        for descendant, depth in _below(ancestor, children).items()
    }
    pairs = sorted(stored.items() ^ right.items())
    keys = dict.fromkeys(pair for pair, _ in pairs)
    return [ClosureDifference(*key, stored.get(key), right.get(key)) for key in keys]


def _below(ancestor: int, children: Mapping[int, list[int]]) -> dict[int, int]:
    """Shortest depth by descendant, the node itself included; ends on any graph."""
    depths = {ancestor: 0}
    queue = deque([ancestor])
    while queue:
        node = queue.popleft()
        for child in children.get(node, ()):
            if child not in depths:
                depths[child] = depths[node] + 1
                queue.append(child)
    return depths


def _has_rows(table: Any) -> Any:
    return exists().where(table.c.labelling_id == labellings.c.id)


def _step(score: float) -> int:
    return round(score * SCORE_SCALE)


def _paged(engine: Engine, query: Select[Any], page: int) -> Iterator[Row[Any]]:
    """Rows of a query that is cut to a page, and ordered by its first column above `last`."""
    last = -1
    while True:
        with reading(engine) as conn:
            rows = conn.execute(query, {"last": last}).all()
        yield from rows
        if len(rows) < page:
            return
        last = rows[-1][0]
