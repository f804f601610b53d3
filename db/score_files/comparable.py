"""Which stored files can be compared: embeddings where a clip has them, else scores."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import ColumnElement, Engine, Select, and_, case, func, select

from db.engine import reading
from db.errors import DatabaseUserError
from db.query.current_labelling import model_ids, represents_clip, with_facts
from db.query.paths import first_source
from db.query.question import Question, clip_conditions, file_conditions
from db.query.time_spans import row_hop_s, row_window_s
from db.record_columns import columns_for
from db.reports.clip import clip_by_ref
from db.schema.tables import (
    clip_scores,
    clips,
    labellings,
    models,
    nodes,
    parameter_sets,
    sources,
)

_PAGE = 500


@dataclass(frozen=True, slots=True)
class Vectors:
    """A clip's file of vectors; what is compared with it has the same kind, model and hop."""

    clip: str
    kind: Literal["embeddings", "scores"]
    path: str
    model: str
    model_id: int
    parameter_set_id: int
    digest: str
    """Of the set of parameters."""
    patch_hop_s: float
    window_s: float
    duration_s: float


@dataclass(frozen=True, slots=True)
class Described:
    """What a person is told of a clip that was found."""

    path_text: str | None
    duration_s: float
    best_class: str | None
    """The name of the class with the highest score in the current labelling."""
    best_mid: str | None


def vectors_of(engine: Engine, ref: str | bytes, model: str | None = None) -> Vectors:
    """The vectors of a clip (by the start of its id, or by a path).

    Raises:
        DatabaseUserError: no such clip or model, or nothing is stored of it.
    """
    clip = clip_by_ref(engine, ref).clip.sha256
    with reading(engine) as conn:
        columns = columns_for(
            Vectors, labellings, models, parameter_sets, clips,
            clip=clips.c.sha256,
            kind=case((labellings.c.embeddings_path.is_not(None), "embeddings"), else_="scores"),
            path=func.coalesce(labellings.c.embeddings_path, labellings.c.scores_path),
            model=models.c.name + "@" + models.c.version,
            patch_hop_s=row_hop_s(), window_s=row_window_s(),
        )  # fmt: skip
        query = (
            select(*columns)
            .select_from(labellings)
            .where(clips.c.sha256 == clip, represents_clip(model_ids(conn, model)))
        )
        row = conn.execute(with_facts(query)).first()
    if row is None or row.path is None:
        raise DatabaseUserError(f"no scores or embeddings of clip {clip[:12]} are stored")
    return Vectors(*row)


def comparable(engine: Engine, query: Vectors, question: Question) -> Iterator[tuple[str, str]]:
    """(clip, path of its file) of every other clip with vectors of the same kind, streamed.

    Of the question counts what it says of clips and files.
    """
    column = labellings.c[f"{query.kind}_path"]
    statement = (
        select(clips.c.sha256, column)
        .join_from(labellings, clips, clips.c.id == labellings.c.clip_id)
        .where(_same(query), column.is_not(None), clips.c.sha256 != query.clip)
    )
    with reading(engine) as conn:
        statement = statement.where(*clip_conditions(conn, question))
        for row in conn.execution_options(yield_per=_PAGE).execute(statement):
            yield row[0], row[1]


def has_more_comparable(engine: Engine, query: Vectors, most: int) -> bool:
    """Whether more than `most` clips have vectors of the same kind."""
    column = labellings.c[f"{query.kind}_path"]
    some = select(labellings.c.id).where(_same(query), column.is_not(None)).limit(most + 1)
    with reading(engine) as conn:
        n_found = conn.execute(select(func.count()).select_from(some.subquery())).scalar_one()
    return n_found > most


def describe(
    engine: Engine, found: Sequence[str], question: Question | None = None
) -> dict[str, Described]:
    """Where the clips are, by id: the files that stand for them, of those that are asked about."""
    of_files = file_conditions(question) if question else []
    first = first_source(clips.c.id, *of_files).correlate(clips).scalar_subquery()
    best = (
        select(clip_scores.c.node_id)
        .join(labellings, labellings.c.id == clip_scores.c.labelling_id)
        .where(labellings.c.clip_id == clips.c.id, labellings.c.is_current)
        .order_by(clip_scores.c.peak.desc(), clip_scores.c.node_id)
        .limit(1)
        .correlate(clips)
        .scalar_subquery()
    )
    query: Select[Any] = (
        select(
            clips.c.sha256, sources.c.path_text, clips.c.duration_s, nodes.c.name, nodes.c.mid
        )
        .select_from(clips)
        .outerjoin(sources, sources.c.id == first)
        .outerjoin(nodes, nodes.c.id == best)
        .where(clips.c.sha256.in_(found))
    )  # fmt: skip
    with reading(engine) as conn:
        return {row[0]: Described(*row[1:]) for row in conn.execute(query)}


def clips_with_embeddings(engine: Engine, among: Sequence[str]) -> set[str]:
    """Those of the clips whose current labelling has embeddings."""
    query = (
        select(clips.c.sha256)
        .join(labellings, labellings.c.clip_id == clips.c.id)
        .where(
            clips.c.sha256.in_(among),
            labellings.c.is_current,
            labellings.c.embeddings_path.is_not(None),
        )
    )
    with reading(engine) as conn:
        return set(conn.execute(query).scalars())


def _same(query: Vectors) -> ColumnElement[bool]:
    """One file a clip: under the same model, hop and further settings."""
    return and_(
        labellings.c.model_id == query.model_id,
        labellings.c.parameter_set_id == query.parameter_set_id,
        labellings.c.status == "done",
    )
