"""Which labellings an index of vectors has to hold, and what became of those that it holds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from sqlalchemy import ColumnElement, Engine, and_, func, or_, select

from db.engine import reading
from db.paging import PAGE, batches, paged_rows, rows_where_in
from db.query.current_labelling import model_ids, with_facts
from db.schema.tables import clips, labellings, models, parameter_sets, runs

Kind = Literal["embeddings", "scores"]

_REVIVAL_S = 86_400.0
"""A run that was given up may still be alive elsewhere, and commit what it holds."""


@dataclass(frozen=True, slots=True)
class Series:
    """Files that can be compared with each other: one model, one set of parameters, one kind."""

    model: str
    model_id: int
    parameter_set_id: int
    parameters: str
    """The digest of the set."""
    width: int
    """How many values a vector has."""
    kind: Kind


def series_to_compare(engine: Engine, model: str | None = None) -> list[Series]:
    """What questions can be about: the embeddings of each model, and the scores where a recording
    has no embeddings.

    Raises:
        DatabaseUserError: no model has that name.
    """
    has_embeddings = labellings.c.embeddings_path.is_not(None)
    has_scores_only = and_(~has_embeddings, labellings.c.scores_path.is_not(None))
    counts = (func.count().filter(has_embeddings), func.count().filter(has_scores_only))
    name = models.c.name + "@" + models.c.version
    widths = (models.c.embedding_dim, models.c.n_classes)
    group = (name, models.c.id, parameter_sets.c.id, parameter_sets.c.digest, *widths)
    query = with_facts(select(*group, *counts).select_from(labellings))
    query = query.where(labellings.c.status == "done").group_by(*group)
    with reading(engine) as conn:
        ids = model_ids(conn, model)
        if ids is not None:
            query = query.where(models.c.id.in_(ids))
        rows = conn.execute(query.order_by(models.c.id, parameter_sets.c.id)).all()
    found = []
    for title, model_id, set_id, digest, dim, n_classes, n_embeddings, n_scores_only in rows:
        of = (title, model_id, set_id, digest)
        if n_embeddings:
            found.append(Series(*of, dim or 0, "embeddings"))
        if n_scores_only:
            found.append(Series(*of, n_classes, "scores"))
    return found


def finished_runs(engine: Engine, now: datetime) -> list[str]:
    """Runs that can label nothing any more: everything they labelled is found from now on."""
    is_over = and_(
        runs.c.status != "running",
        or_(runs.c.status != "crashed", runs.c.ended_at < now - timedelta(seconds=_REVIVAL_S)),
    )
    with reading(engine) as conn:
        return list(conn.execute(select(runs.c.id).where(is_over)).scalars())


def iter_files(engine: Engine, series: Series) -> Iterator[tuple[int, str]]:
    """(labelling, path) of every file of the series, by the id of the labelling."""
    query = select(labellings.c.id, _path(series)).where(_is_of(series), _is_there(series))
    for row in paged_rows(engine, query, key=labellings.c.id):
        yield row[0], row[1]


def iter_files_of_other_runs(
    engine: Engine, series: Series, known: Callable[[Sequence[str]], Sequence[bool]]
) -> Iterator[tuple[int, str]]:
    """As `iter_files`, of the runs of which `known` says no, and of no run; in any order.

    Found by the index of runs: where there are no such runs, nothing is read.
    """
    query = select(labellings.c.id, _path(series)).where(_is_of(series), _is_there(series))
    with reading(engine) as conn:
        every = list(conn.execute(select(runs.c.id)).scalars())
        others = [run for run, is_known in zip(every, known(every), strict=True) if not is_known]
        conn = conn.execution_options(yield_per=PAGE)
        of_runs = [labellings.c.run_id.in_(batch) for batch in batches(others)]
        for which in (labellings.c.run_id.is_(None), *of_runs):
            for row in conn.execute(query.where(which)):
                yield row[0], row[1]


def clips_by_labelling(
    engine: Engine, series: Series, ids: Sequence[int]
) -> dict[int, tuple[str, str]]:
    """(clip, path) of those labellings that are finished and have a file of the series, by id."""
    query = (
        select(labellings.c.id, clips.c.sha256, _path(series))
        .join_from(labellings, clips, clips.c.id == labellings.c.clip_id)
        .where(_is_of(series), _is_there(series))
    )
    with reading(engine) as conn:
        return {
            row[0]: (row[1], row[2]) for row in rows_where_in(conn, query, labellings.c.id, ids)
        }


def _path(series: Series) -> ColumnElement[str]:
    return labellings.c[f"{series.kind}_path"]


def _is_there(series: Series) -> ColumnElement[bool]:
    return and_(labellings.c.status == "done", _path(series).is_not(None))


def _is_of(series: Series) -> ColumnElement[bool]:
    """The condition on model and parameters, in a form for which no database uses an index.

    Rows are to be found by what else is asked, a few of millions, or in the order of their ids.
    """
    return and_(
        labellings.c.model_id + 0 == series.model_id,
        labellings.c.parameter_set_id + 0 == series.parameter_set_id,
    )
