"""Rows for exports: recordings in the order they were seen, each with its detections by start.

Everything comes in pages, by key, from one moment of the database: a million recordings need no
more memory than a thousand, and one of ten hours no more than one of ten seconds.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import groupby
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from sqlalchemy import ColumnElement, Connection, Row, Select, exists, func, or_, select

from db.answer_records import Interval
from db.query.current_labelling import model_ids, represents_clip, taught_models, with_facts
from db.query.find import allowed_clips
from db.query.paths import first_source, is_trusted
from db.query.question import (
    Question,
    file_conditions,
    interval_conditions,
    moment_conditions,
    of_every_file,
)
from db.query.subtrees import counts, reaches, subtree
from db.query.time_spans import (
    detected,
    end_s,
    rounded_s,
    row_hop_s,
    row_window_s,
    start_s,
)
from db.record_columns import columns_for
from db.reports.clip import remarks_of
from db.schema.tables import (
    categories,
    clips,
    detections,
    labellings,
    models,
    nodes,
    parameter_sets,
    sites,
    sources,
)
from db.types import canonical_json

if TYPE_CHECKING:
    from db.records import Remark

_PAGE = 500
_ROWS = 2_000

Only = ColumnElement[bool] | None
"""A further condition of a row of sources."""


@dataclass(frozen=True, slots=True)
class RecordingRow:
    """A file of a clip, and the labelling that represents the clip."""

    source_id: int
    labelling_id: int
    clip: str
    path: bytes
    path_text: str
    user_id: str | None
    duration_s: float
    sample_rate_hz: int
    model: str
    model_version: str
    window_s: float
    patch_hop_s: float
    detection_threshold: float
    parameters: str
    n_patches: int
    scores_path: str | None
    is_partial: bool
    format: str
    device: str | None
    serial: str | None
    recorded_unix_ms: int | None
    recorded_utc_offset_s: int | None
    recorded_by: str | None
    site: str | None
    remarks: str = ""
    """In one line."""


@dataclass(frozen=True, slots=True)
class ModelInterval(Interval):
    """A detection, and the labelling that it is of: the clip's own, or one that counts beside."""

    model: str
    model_version: str
    labelled_at: datetime


def check(conn: Connection, question: Question) -> None:
    """Whether the model exists and has stored all that is asked for.

    Raises:
        DatabaseUserError: it does not, or detections begin at a higher threshold.
    """
    allowed_clips(conn, question, by_interval=True)


def recordings(
    conn: Connection, question: Question, page: int = _PAGE, only: Only = None
) -> Iterator[RecordingRow]:
    """Labelled recordings in the order they were seen; `only` those whose files fulfil that.

    Raises:
        DatabaseUserError: unknown model or node.
    """
    for rows in _pages(conn, _recording_query(conn, question, only), page):
        yield from _recordings(conn, rows)


def paths(conn: Connection, question: Question, only: Only = None) -> Iterator[bytes]:
    """Only the paths of `recordings`."""
    query = _recording_query(conn, question, only).with_only_columns(
        sources.c.id.label("source_id"), sources.c.path
    )
    for rows in _pages(conn, query, 10 * _PAGE):
        yield from (row.path for row in rows)


def labelled(
    conn: Connection, question: Question, page: int = _PAGE, only: Only = None
) -> Generator[tuple[RecordingRow, Iterator[ModelInterval]]]:
    """Each of `recordings`, with its detections by start, which may be none.

    Read them before the next recording: they are not kept.

    Raises:
        DatabaseUserError: unknown model or node, or `min_score` is below what is stored.
    """
    wanted = _wanted(conn, question)
    for found_rows in _pages(conn, _recording_query(conn, question, only), page):
        rows = _recordings(conn, found_rows)
        query = _detections_of(rows, [*wanted, _says(conn, question, rows)])
        with conn.execute(query, execution_options={"yield_per": _ROWS}) as found:
            groups = groupby(found, key=attrgetter("source_id"))
            group = next(groups, None)
            for row in rows:
                if group is not None and group[0] == row.source_id:
                    yield row, _events(group[1])
                    group = next(groups, None)
                else:
                    yield row, iter(())


def stands_for_clip(question: Question, *, is_true: bool = True) -> ColumnElement[bool]:
    """The condition that a row of sources is the first of its clip with a site and a start.

    Without `is_true`, that it is not.
    """
    other = sources.alias("placed")
    has_site = other.c.site_id.in_(select(sites.c.id))
    is_placed = (has_site, other.c.recorded_unix_ms.is_not(None), *file_conditions(question, other))
    query = first_source(sources.c.clip_id, *is_placed, of=other)
    first = query.correlate(sources).scalar_subquery()
    return sources.c.id == first if is_true else sources.c.id.is_distinct_from(first)


def classes(conn: Connection, question: Question) -> list[tuple[str, str]]:
    """(MID, name) of what the models in question predict below `under`, in ontology order."""
    ids = model_ids(conn, question.model)
    in_use = exists().where(labellings.c.model_id == categories.c.model_id, labellings.c.is_current)
    beside = [categories.c.model_id.in_(own) for own in taught_models(conn)]
    asked = or_(in_use, *beside) if ids is None else categories.c.model_id.in_(ids)
    is_predicted = exists().where(categories.c.node_id == nodes.c.id, asked)
    query = select(nodes.c.mid, nodes.c.name).where(is_predicted)
    if question.under:
        query = query.where(nodes.c.id.in_(subtree(conn, question.under, with_ambiguous=True).ids))
    rows = conn.execute(query.order_by(nodes.c.position, nodes.c.id))
    return [(row.mid, row.name) for row in rows]


def _pages(conn: Connection, query: Select[Any], page: int) -> Iterator[list[Row[Any]]]:
    last = 0
    while rows := list(conn.execute(query.where(sources.c.id > last).limit(page))):
        last = rows[-1].source_id
        yield rows


def _recording_query(conn: Connection, question: Question, only: Only = None) -> Select[Any]:
    # Which of a clip's files are meant is asked of each file here.
    of_clip = of_every_file(question)
    columns = columns_for(
        RecordingRow, sources, labellings, clips, models, parameter_sets,
        source_id=sources.c.id, labelling_id=labellings.c.id, clip=clips.c.sha256,
        duration_s=rounded_s(clips.c.duration_s), model=models.c.name,
        model_version=models.c.version, n_patches=func.coalesce(labellings.c.n_patches, 0),
        patch_hop_s=row_hop_s(), window_s=row_window_s(), site=sites.c.name,
    )  # fmt: skip
    query = (
        select(*columns)
        .join_from(sources, labellings, labellings.c.clip_id == sources.c.clip_id)
        .outerjoin(sites, sites.c.id == sources.c.site_id)
        .where(allowed_clips(conn, of_clip, by_interval=True, is_single=True))
        .where(*file_conditions(question), *([] if only is None else [only]))
        .order_by(sources.c.id)
    )
    return with_facts(query)


def _recordings(conn: Connection, rows: Sequence[Row[Any]]) -> list[RecordingRow]:
    remarks = remarks_of(conn, [row.labelling_id for row in rows])
    return [_recording(row, remarks.get(row.labelling_id, ())) for row in rows]


def _recording(row: Row[Any], remarks: Sequence[Remark]) -> RecordingRow:
    values = list(row)
    at = RecordingRow.__match_args__.index("parameters")
    values[at] = canonical_json(values[at])
    return replace(RecordingRow(*values), remarks="; ".join(map(_remark, remarks)))


def _remark(remark: Remark) -> str:
    """A remark with the part that it is about: ``gap at 5.00-10.00 s: nothing is there``."""
    places = [place for place in (remark.start_s, remark.end_s) if place is not None]
    at = f" at {'-'.join(f'{place:.2f}' for place in places)} s" if places else ""
    return f"{remark.kind}{at}: {remark.detail}"


def _detections_of(rows: Sequence[RecordingRow], wanted: list[ColumnElement[bool]]) -> Select[Any]:
    return (
        detected(
            sources.c.id.label("source_id"), models.c.name, models.c.version,
            labellings.c.labelled_at,
        )
        .join(sources, sources.c.clip_id == labellings.c.clip_id)
        .where(
            sources.c.id.in_([row.source_id for row in rows]),
            *wanted,
        )
        .order_by(sources.c.id, start_s(detections), detections.c.peak.desc(), detections.c.node_id)
    )  # fmt: skip


def _says(
    conn: Connection, question: Question, rows: Sequence[RecordingRow]
) -> ColumnElement[bool]:
    """The condition that a row of labellings is a recording's own, or counts beside it."""
    beside = [] if question.model else map(represents_clip, taught_models(conn))
    return or_(labellings.c.id.in_(list({row.labelling_id for row in rows})), *beside)


def _events(rows: Iterator[Row[Any]]) -> Iterator[ModelInterval]:
    for _, model, version, at, mid, name, peak, mean, best_s, begins_s, ends_s in rows:
        yield ModelInterval(mid, name, begins_s, ends_s, peak, mean, best_s, model, version, at)


def _wanted(conn: Connection, question: Question) -> list[ColumnElement[bool]]:
    """What must hold of a row of detections, and of the file that it is written for."""
    begins, ends = start_s(detections), end_s(detections)
    conditions = [
        reaches(detections, question.min_score),
        *interval_conditions(question, detections),
    ]
    if question.under:
        tree = subtree(conn, question.under, with_ambiguous=question.with_ambiguous)
        conditions.append(counts(detections, tree))
    if question.is_timed:
        conditions += [is_trusted(), *moment_conditions(question, sources, begins, ends)]
    return conditions
