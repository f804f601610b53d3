"""From chosen rows of scores or intervals to what a person is told of them."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, cast

from sqlalchemy import ColumnElement, FromClause, Row, Select, and_, false, func, select

from db.answer_records import Hit
from db.query.paths import first_source, is_there
from db.query.question import Question, file_conditions
from db.query.time_spans import end_s, peak_s, rounded_s, start_s
from db.record_columns import columns_for
from db.schema.tables import (
    clips,
    detections,
    labellings,
    models,
    nodes,
    parameter_sets,
    sites,
    sources,
)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def with_details(
    chosen: Any, question: Question, intervals: FromClause = detections
) -> Select[Any]:
    """Order and cut the chosen rows; add category, source and interval.

    `chosen` has labelling_id, clip_id, node_id, peak, and NULL where there is still to be found
    which source and which of the `intervals`. The last column is how many rows were put in order.
    """
    order, limit, offset = question.order, question.limit, question.offset
    best = select(chosen, clips.c.sha256, clips.c.duration_s).join(
        clips, clips.c.id == chosen.c.clip_id
    )
    best_first = (chosen.c.peak.desc(), clips.c.sha256, chosen.c.start_patch, chosen.c.node_id)
    if order == "score":
        best, offset = best.order_by(*best_first).limit(limit).offset(offset or None), 0
    elif question.among is not None:
        best = best.order_by(*best_first).limit(question.among)
    part = best.subquery("best")
    first = sources.alias("first_source")
    found = intervals.alias("found_intervals")
    first_id = func.coalesce(
        part.c.source_id,
        first_source(part.c.clip_id, *file_conditions(question)).correlate(part).scalar_subquery(),
    )
    copies = select(func.count()).where(sources.c.clip_id == part.c.clip_id, is_there())
    own = and_(
        found.c.labelling_id == part.c.labelling_id,
        found.c.node_id == part.c.node_id,
        found.c.start_patch == func.coalesce(part.c.start_patch, _best_start(part, intervals)),
    )
    begins, ends = start_s(found), end_s(found, part)
    columns = columns_for(
        Hit, first, nodes,
        clip=part.c.sha256,
        n_sources=copies.correlate(part).scalar_subquery(),
        is_missing=func.coalesce(~is_there(first), false()),
        score=part.c.peak,
        start_s=begins,
        end_s=ends,
        peak_s=peak_s(found),
        window_s=models.c.window_s,
        duration_s=rounded_s(part.c.duration_s),
        site=sites.c.name,
    )  # fmt: skip
    query = (
        select(
            *columns,
            first.c.recorded_unix_ms,
            first.c.recorded_utc_offset_s,
            func.count().over().label("n_ordered"),
        )
        .select_from(part)
        .join(nodes, nodes.c.id == part.c.node_id)
        .join(labellings, labellings.c.id == part.c.labelling_id)
        .join(models, models.c.id == labellings.c.model_id)
        .join(parameter_sets, parameter_sets.c.id == labellings.c.parameter_set_id)
        .outerjoin(first, first.c.id == first_id)
        .outerjoin(sites, sites.c.id == first.c.site_id)
        .outerjoin(found, own)
    )
    by_score = (part.c.peak.desc(), part.c.sha256)
    at_ms = first.c.recorded_unix_ms + func.coalesce(begins, 0.0) * 1_000.0
    # Bytes compare alike everywhere, text as the database's locale has it.
    keys: dict[str, tuple[Any, ...]] = {
        "score": by_score,
        "time": (at_ms.is_(None), at_ms, *by_score),
        "duration": (begins.is_(None), (begins - ends), *by_score),
        "path": (first.c.path.is_(None), first.c.path, begins, *by_score),
    }
    in_order = query.order_by(*keys[order], part.c.start_patch, part.c.node_id)
    return in_order.limit(limit).offset(offset or None)


def hit_of(row: Row[Any]) -> Hit:
    """A row of `with_details` as a record."""
    *told, unix_ms, utc_offset_s, _ = row
    hit = Hit(*told)
    if unix_ms is None:
        return hit
    began = clock_time(unix_ms, utc_offset_s)
    if hit.start_s is None:
        return replace(hit, recorded_at=began)
    heard_at = began + timedelta(milliseconds=round(hit.start_s * 1_000))
    return replace(hit, recorded_at=began, heard_at=heard_at)


def clock_time(unix_ms: int, utc_offset_s: int | None) -> datetime:
    """A moment as the recorder's clock had it."""
    zone = timezone(timedelta(seconds=utc_offset_s or 0))
    return (_EPOCH + timedelta(milliseconds=unix_ms)).astimezone(zone)


def _best_start(part: Any, intervals: FromClause) -> ColumnElement[int]:
    """Where the best interval of a row's category begins."""
    inner = intervals.alias("inner_intervals")
    query = (
        select(inner.c.start_patch)
        .where(inner.c.labelling_id == part.c.labelling_id, inner.c.node_id == part.c.node_id)
        .order_by(inner.c.peak.desc(), inner.c.start_patch)
        .limit(1)
    )
    return cast("ColumnElement[int]", query.correlate(part).scalar_subquery())
