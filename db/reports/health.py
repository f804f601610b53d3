"""Which recordings have something wrong, and which recorders: the worst first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Engine, case, func, or_, select

from audioset_core.records import TROUBLES, Health, Trouble
from db.catalog.health import MEASURES
from db.engine import reading
from db.query.paths import first_source
from db.query.question import EVERY, Question, file_conditions
from db.schema.tables import clip_health, clips, labellings, sources

Limits = Mapping[str, float]
"""The limit of each trouble, by its kind, where it is another than usual."""


@dataclass(frozen=True, slots=True)
class TroubledClip:
    """A recording with something wrong: what, and all its measures."""

    clip: str
    path_text: str
    recorded_unix_ms: int | None
    recorded_utc_offset_s: int | None
    device: str | None
    serial: str | None
    troubles: tuple[str, ...]
    health: Health


@dataclass(frozen=True, slots=True)
class DeviceHealth:
    """How many recordings of a device have something wrong, and what."""

    device: str | None
    serial: str | None
    n_clips: int
    n_troubled: int
    troubles: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class HealthReport:
    """The health of a collection, or of some paths of it."""

    n_measured: int
    n_unmeasured: int
    """Labelled recordings that were not measured: an earlier version labelled them."""
    troubles: Mapping[str, int]
    """Recordings with each kind of trouble that there is, the worst kind first."""
    worst: tuple[TroubledClip, ...]
    devices: tuple[DeviceHealth, ...]
    """Those with most troubled recordings first."""

    @property
    def n_troubled(self) -> int:
        """Recordings with something wrong."""
        return sum(each.n_troubled for each in self.devices)


def health_report(
    engine: Engine, asked: Question = EVERY, limits: Limits | None = None, n_worst: int = 50
) -> HealthReport:
    """The health of the labelled clips, of those whose files are asked about.

    Raises:
        DatabaseUserError: a path is empty, or not a valid pattern.
    """
    beyond = {each.kind: _is_beyond(each, limits or {}) for each in TROUBLES}
    chosen = [clips.c.id.in_(select(labellings.c.clip_id).where(labellings.c.is_current))]
    if of_files := file_conditions(asked):
        chosen.append(clips.c.id.in_(select(sources.c.clip_id).where(*of_files)))
    counts = [func.sum(case((it, 1), else_=0)).label(kind) for kind, it in beyond.items()]
    n_troubled = func.sum(case((or_(*beyond.values()), 1), else_=0))
    joined = clips.join(clip_health, clip_health.c.clip_id == clips.c.id)
    with reading(engine) as conn:
        n_clips = conn.execute(select(func.count()).select_from(clips).where(*chosen)).scalar_one()
        by_device = (
            select(clips.c.device, clips.c.serial, func.count(), n_troubled, *counts)
            .select_from(joined)
            .where(*chosen)
            .group_by(clips.c.device, clips.c.serial)
            .order_by(n_troubled.desc(), func.count().desc(), clips.c.device, clips.c.serial)
        )
        devices = [
            DeviceHealth(row[0], row[1], row[2], row[3], _found(row[4:]))
            for row in conn.execute(by_device)
        ]
        total = [sum(each.troubles.get(kind, 0) for each in devices) for kind in beyond]
        worst = conn.execute(_worst(beyond, chosen, asked).limit(n_worst)).all() if n_worst else []
    n_measured = sum(each.n_clips for each in devices)
    return HealthReport(
        n_measured, n_clips - n_measured, _found(total), tuple(map(_clip, worst)), tuple(devices)
    )


def _is_beyond(trouble: Trouble, limits: Limits) -> ColumnElement[bool]:
    measure, limit = clip_health.c[trouble.measure], limits.get(trouble.kind, trouble.limit)
    is_beyond = measure <= limit if trouble.is_below else measure >= limit
    return func.coalesce(is_beyond, False)


def _found(counts: Sequence[Any]) -> dict[str, int]:
    return {each.kind: int(n) for each, n in zip(TROUBLES, counts, strict=True) if n}


def _worst(
    beyond: Mapping[str, ColumnElement[bool]], chosen: Sequence[Any], asked: Question
) -> Any:
    """The worst kind first, and of a kind those farthest beyond the limit."""
    ranks: list[Any] = []
    for each in TROUBLES:
        measure = clip_health.c[each.measure]
        value = -measure if each.is_below else measure
        ranks.append(case((beyond[each.kind], value), else_=None).desc().nulls_last())
    about = [clips.c.sha256, sources.c.path_text, sources.c.recorded_unix_ms,
             sources.c.recorded_utc_offset_s, clips.c.device, clips.c.serial]  # fmt: skip
    own = sources.alias("own")
    fitting = first_source(clips.c.id, *file_conditions(asked, own), of=own)
    first = fitting.correlate(clips).scalar_subquery()
    return (
        select(*about, *beyond.values(), *(clip_health.c[name] for name in MEASURES))
        .select_from(clips.join(clip_health, clip_health.c.clip_id == clips.c.id))
        .join(sources, sources.c.id == first)
        .where(*chosen, or_(*beyond.values()))
        .order_by(*ranks, sources.c.path_text, clips.c.id)
    )


def _clip(row: Any) -> TroubledClip:
    n = len(row) - len(MEASURES)
    about, beyond = row[: n - len(TROUBLES)], row[n - len(TROUBLES) : n]
    kinds = tuple(each.kind for each, it in zip(TROUBLES, beyond, strict=True) if it)
    measures = dict(zip(MEASURES, row[n:], strict=True))
    return TroubledClip(*about, kinds, Health(**measures))  # type: ignore[call-arg]
