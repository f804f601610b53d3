"""Reports: one clip in full, failures, the collection at a glance, rows for the JSON export."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Engine, Select, and_, exists, func, or_, select

from db.answer_records import (
    ClipReport,
    CorpusSummary,
    FailureReport,
    Interval,
    Label,
    LabellingReport,
    PredictionRow,
    SourceReport,
    track_of,
)
from db.catalog.clips import notes_of
from db.catalog.health import health_of
from db.engine import reading
from db.errors import DatabaseUserError
from db.query.current_labelling import (
    model_ids,
    represents_clip,
    speaks_for_clip,
    with_facts,
)
from db.query.occasions import occasions
from db.query.paths import first_source, there_first
from db.query.question import EVERY, Question, file_conditions
from db.query.time_spans import detected, row_hop_s, row_window_s, start_s
from db.record_columns import columns_for
from db.schema.tables import (
    clip_scores,
    clips,
    detections,
    labelling_remarks,
    labellings,
    models,
    nodes,
    parameter_sets,
    sites,
    sources,
)
from db.types import path_digest, path_text

if TYPE_CHECKING:
    from audioset_core.records import Statement
    from db.records import Clip, Remark

_MIN_PREFIX = 6
_PAGE = 1_000


def clip_by_ref(engine: Engine, ref: str | bytes) -> ClipReport:
    """Everything known of a clip, by the start of its SHA-256 (text) or by a path (bytes).

    Raises:
        DatabaseUserError: nothing fits, several clips fit, or the file could not be labelled.
    """
    with reading(engine) as conn:
        by_path = isinstance(ref, bytes)
        clip_id = _clip_at(conn, ref) if by_path else _clip_starting(conn, ref)  # type: ignore[arg-type]
        row = conn.execute(select(clips).where(clips.c.id == clip_id)).one()
        return ClipReport(
            clip=replace(
                _clip(row, notes_of(conn, [clip_id]).get(clip_id, ())),
                health=health_of(conn, clip_id),
            ),
            sources=_sources(conn, clip_id),
            labellings=_labellings(conn, clip_id),
            labels=_labels(conn, clip_id),
            detections=_intervals(conn, clip_id),
            remarks=_current_remarks(conn, clip_id),
        )


def labelled_clip(engine: Engine, sha256: str) -> tuple[Clip, tuple[LabellingReport, ...]] | None:
    """A clip's figures and its labellings, the current one first; None: there is no such clip."""
    with reading(engine) as conn:
        row = conn.execute(select(clips).where(clips.c.sha256 == sha256)).one_or_none()
        if row is None:
            return None
        return _clip(row), _labellings(conn, row.id)


def recorded_starts(engine: Engine, sha256: str) -> list[datetime]:
    """When a clip was recorded, on the recorder's clock: once for each start that is known."""
    with reading(engine) as conn:
        clip_id = select(clips.c.id).where(clips.c.sha256 == sha256).scalar_subquery()
        known = conn.execute(occasions(clip_id=clip_id)).all()
    return sorted(
        datetime(1970, 1, 1) + timedelta(milliseconds=unix_ms, seconds=offset_s or 0)
        for _, unix_ms, offset_s, _ in known
    )


def failures(engine: Engine, limit: int | None = None) -> list[FailureReport]:
    """Files that could not be labelled, by reason, then in the order they were seen."""
    query = select(*columns_for(FailureReport, sources)).where(sources.c.status == "failed")
    with reading(engine) as conn:
        rows = conn.execute(query.order_by(sources.c.reason, sources.c.id).limit(limit))
        return [FailureReport(*row) for row in rows]


def corpus_summary(engine: Engine, asked: Question = EVERY) -> CorpusSummary:
    """Clips, hours, how much is labelled, and sources by status."""
    of_files = file_conditions(asked)
    total = select(func.count(), func.sum(clips.c.duration_s)).select_from(clips)
    if of_files:
        total = total.where(exists().where(sources.c.clip_id == clips.c.id, *of_files))
    is_labelled = exists().where(labellings.c.clip_id == clips.c.id, labellings.c.is_current)
    by_status = select(sources.c.status, func.count()).group_by(sources.c.status).where(*of_files)
    with reading(engine) as conn:
        n_clips, seconds = conn.execute(total).one()
        n_labelled, labelled_s = conn.execute(total.where(is_labelled)).one()
        counts = {row[0]: row[1] for row in conn.execute(by_status.order_by(sources.c.status))}
    return CorpusSummary(
        n_clips=n_clips,
        n_labelled=n_labelled,
        hours=(seconds or 0.0) / 3600,
        hours_labelled=(labelled_s or 0.0) / 3600,
        n_sources=sum(counts.values()),
        sources_by_status=counts,
    )


def prediction_rows(engine: Engine, model: str | None = None) -> Iterator[PredictionRow]:
    """Rows for the JSON export, by clip and then as sources were seen; memory stays flat.

    A clip gives one row per source that a manifest annotated, else one in all.
    """
    with reading(engine) as conn:
        query = _prediction_query(model_ids(conn, model))
        with conn.execution_options(yield_per=_PAGE).execute(query) as rows:
            for some in rows.partitions(_PAGE):
                remarks = remarks_of(conn, [row.labelling_id for row in some])
                for row in some:
                    yield replace(PredictionRow(*row), remarks=remarks.get(row.labelling_id, ()))


def _prediction_query(ids: list[int] | None) -> Select[Any]:
    own = sources.alias("own")
    has_note = or_(own.c.user_id.is_not(None), own.c.meta.is_not(None))
    annotated = exists().where(own.c.clip_id == clips.c.id, has_note).correlate(clips)
    first_id = first_source(clips.c.id, of=own).correlate(clips).scalar_subquery()
    first = and_(sources.c.id == first_id, ~annotated)
    is_annotated = or_(sources.c.user_id.is_not(None), sources.c.meta.is_not(None))
    columns = columns_for(
        PredictionRow, sources, labellings, parameter_sets,
        clip=clips.c.sha256, model=models.c.name, model_version=models.c.version,
        labelling_id=labellings.c.id, patch_hop_s=row_hop_s(), site=sites.c.name,
    )  # fmt: skip
    query = select(*columns).select_from(labellings)
    return (
        with_facts(query)
        .outerjoin(sources, and_(sources.c.clip_id == clips.c.id, or_(is_annotated, first)))
        .outerjoin(sites, sites.c.id == sources.c.site_id)
        .where(represents_clip(ids))
        .order_by(clips.c.sha256, sources.c.id)
    )


def _clip(row: Any, notes: tuple[Statement, ...] = ()) -> Clip:
    from db.records import Clip

    beside = ("notes", "health")
    figures = {f.name: getattr(row, f.name) for f in fields(Clip) if f.name not in beside}
    return Clip(**figures | {"duration_s": round(row.duration_s, 6)}, notes=notes)


def _clip_at(conn: Connection, path: bytes) -> int:
    query = select(sources).where(sources.c.path_digest == path_digest(path))
    row = conn.execute(query).one_or_none()
    if row is None:
        message = f"no file {path_text(path)!r} has been seen"
        raise DatabaseUserError(f"{message}; paths are kept absolute")
    if row.status == "failed":
        detail = f" ({row.reason_detail})" if row.reason_detail else ""
        raise DatabaseUserError(f"{row.path_text!r} was not labelled: {row.reason}{detail}")
    if row.clip_id is None:
        raise DatabaseUserError(f"{row.path_text!r} has not been read yet; run `audioset label`")
    return int(row.clip_id)


def _clip_starting(conn: Connection, ref: str) -> int:
    prefix = ref.lower()
    if not re.fullmatch(rf"[0-9a-f]{{{_MIN_PREFIX},64}}", prefix):
        message = f"{ref!r} is not a clip id: give {_MIN_PREFIX} to 64 hex digits of it"
        raise DatabaseUserError(f"{message}, or the path of a file")
    query = select(clips.c.id, clips.c.sha256).where(
        clips.c.sha256 >= prefix, clips.c.sha256 < prefix + "g"
    )
    rows = conn.execute(query.order_by(clips.c.sha256).limit(4)).all()
    if not rows:
        raise DatabaseUserError(f"no clip id begins with {ref!r}")
    if len(rows) > 1:
        names = ", ".join(row.sha256[: len(prefix) + 6] for row in rows[:3])
        more = ", ..." if len(rows) > 3 else ""
        raise DatabaseUserError(f"several clip ids begin with {ref!r}: {names}{more}")
    return int(rows[0].id)


def _sources(conn: Connection, clip_id: int) -> tuple[SourceReport, ...]:
    columns = columns_for(SourceReport, sources, site=sites.c.name)
    query = select(*columns).outerjoin_from(sources, sites, sites.c.id == sources.c.site_id)
    query = query.where(sources.c.clip_id == clip_id).order_by(there_first(), sources.c.id)
    return tuple(SourceReport(*row) for row in conn.execute(query))


def _labellings(conn: Connection, clip_id: int) -> tuple[LabellingReport, ...]:
    columns = columns_for(
        LabellingReport, labellings, parameter_sets,
        model=models.c.name, model_version=models.c.version,
        patch_hop_s=row_hop_s(), window_s=row_window_s(),
        step_s=parameter_sets.c.patch_hop_s,
        is_beside=and_(speaks_for_clip(conn, None), ~labellings.c.is_current),
    )  # fmt: skip
    query = (
        select(*columns, parameter_sets.c.parameters)
        .select_from(labellings)
        .where(labellings.c.clip_id == clip_id)
        .order_by(labellings.c.is_current.desc(), labellings.c.labelled_at, labellings.c.id)
    )
    return tuple(
        replace(LabellingReport(*row[:-1]), track=track_of(row.parameters))
        for row in conn.execute(with_facts(query))
    )


def remarks_of(conn: Connection, labelling_ids: Sequence[int]) -> dict[int, tuple[Remark, ...]]:
    """The remarks of those of the labellings that have any, by labelling."""
    from db.records import Remark

    query = (
        select(labelling_remarks)
        .where(labelling_remarks.c.labelling_id.in_(labelling_ids))
        .order_by(labelling_remarks.c.labelling_id, labelling_remarks.c.position)
    )
    found: dict[int, tuple[Remark, ...]] = {}
    for row in conn.execute(query):
        remark = Remark(row.kind, row.detail, row.start_s, row.end_s)
        found[row.labelling_id] = (*found.get(row.labelling_id, ()), remark)
    return found


def _current_remarks(conn: Connection, clip_id: int) -> tuple[Remark, ...]:
    query = select(labellings.c.id).where(labellings.c.clip_id == clip_id, labellings.c.is_current)
    current = list(conn.execute(query).scalars())
    return next(iter(remarks_of(conn, current).values()), ())


def _labels(conn: Connection, clip_id: int) -> tuple[Label, ...]:
    query = (
        select(nodes.c.mid, nodes.c.name, clip_scores.c.peak, clip_scores.c.mean)
        .select_from(labellings)
        .join(clip_scores, clip_scores.c.labelling_id == labellings.c.id)
        .join(nodes, nodes.c.id == clip_scores.c.node_id)
        .where(labellings.c.clip_id == clip_id, speaks_for_clip(conn, None))
        .order_by(clip_scores.c.peak.desc(), nodes.c.id)
    )
    best: dict[str, Label] = {}
    for row in conn.execute(query):
        best.setdefault(row.mid, Label(*row))
    return tuple(best.values())


def _intervals(conn: Connection, clip_id: int) -> tuple[Interval, ...]:
    query = (
        detected()
        .where(labellings.c.clip_id == clip_id, speaks_for_clip(conn, None))
        .order_by(start_s(detections), detections.c.peak.desc(), nodes.c.id)
    )
    return tuple(Interval(**row._mapping) for row in conn.execute(query))
