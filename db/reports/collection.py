"""The whole collection in a few hundred rows: what a report shows, summed up in SQL.

A clip counts under its current labelling, and those of taught models beside it. Hours below a node
are the union of its classes' intervals in a clip: a dog that is also an animal barks once.
Source-ambiguous classes count in company, as in every question (`db.query.ambiguous_classes`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Engine, Subquery, and_, case, func, select

from db.answer_records import Track, track_of
from db.engine import reading
from db.query.ambiguous_classes import counting_pairs
from db.query.current_labelling import represents_clip, speaks_for_clip
from db.query.occasions import occasions
from db.query.paths import first_source, there_first
from db.query.question import EVERY, Question, clip_conditions, file_conditions
from db.query.time_spans import DAY_MS, newly_covered, timed
from db.query.totals import UNKNOWN, has_totals, totals
from db.record_columns import columns_for
from db.schema.tables import (
    categories,
    clip_scores,
    clips,
    closure,
    detections,
    edges,
    labellings,
    nodes,
    parameter_sets,
    sources,
)


@dataclass(frozen=True, slots=True)
class NodeHours:
    """How long anything below a node is heard, and in how many clips."""

    mid: str
    name: str
    is_class: bool
    hours: float
    n_clips: int


@dataclass(frozen=True, slots=True)
class DayHours:
    """Recordings that began on a day of the recorder's clock, counted from 1970: clips, hours."""

    day: int
    n_clips: int
    hours: float


@dataclass(frozen=True, slots=True)
class ReasonCount:
    """Files that failed for one reason, with the first few of them."""

    reason: str
    n_files: int
    examples: tuple[tuple[str, str], ...]
    """(path as text, detail)."""


@dataclass(frozen=True, slots=True)
class FailedFile:
    """A file that failed: its number among the sources, and why."""

    source_id: int
    path_text: str
    detail: str
    last_read_at: datetime | None


@dataclass(frozen=True, slots=True)
class Place:
    """A file that held a clip when it was last looked at."""

    path: bytes
    path_text: str
    size_bytes: int
    mtime_ns: int
    status: str
    track: Track = "default"
    """Which of its audio tracks the clip's current labelling is of."""


def node_hours(engine: Engine, min_score: float, asked: Question = EVERY) -> list[NodeHours]:
    """Every node below which something is detected at `min_score` or more, most hours first."""
    with reading(engine) as conn:
        kept = _kept_hours(conn, replace(asked, min_score=min_score))
        if kept is not None:
            return kept
        chosen = clip_conditions(conn, asked)
        counting = and_(speaks_for_clip(conn, None), counting_pairs(conn), *chosen)
        covered = _new_seconds(min_score, counting)
        is_class = select(categories.c.node_id).where(categories.c.node_id == nodes.c.id).exists()
        total = func.sum(covered.c.new_s) / 3600
        n_clips = func.count(func.distinct(covered.c.clip_id))
        query = (
            select(nodes.c.mid, nodes.c.name, is_class, total, n_clips)
            .join(covered, covered.c.ancestor_id == nodes.c.id)
            .group_by(nodes.c.id, nodes.c.mid, nodes.c.name)
            .order_by(total.desc(), nodes.c.id)
        )
        return [NodeHours(r[0], r[1], bool(r[2]), float(r[3]), r[4]) for r in conn.execute(query)]


def recorded_days(engine: Engine, asked: Question = EVERY) -> list[DayHours]:
    """Labelled clips by the days on which they were recorded, in order of time."""
    days, of_labellings = _days(asked)
    query = (
        select(days.c.day, func.count(), func.sum(clips.c.duration_s) / 3600)
        .select_from(of_labellings)
        .where(represents_clip(None))
        .group_by(days.c.day)
        .order_by(days.c.day)
    )
    with reading(engine) as conn:
        rows = conn.execute(query.where(*clip_conditions(conn, asked)))
        return [DayHours(r[0], r[1], float(r[2])) for r in rows]


def branch_days(
    engine: Engine, mids: Sequence[str], min_score: float, asked: Question = EVERY
) -> dict[str, list[tuple[int, int]]]:
    """(day, clips) for each of some nodes: clips with anything below it at `min_score` or more."""
    days, of_labellings = _days(asked)
    found: dict[str, list[tuple[int, int]]] = {mid: [] for mid in mids}
    with reading(engine) as conn:
        query = (
            select(nodes.c.mid, days.c.day, func.count(func.distinct(labellings.c.clip_id)))
            .select_from(of_labellings)
            .join(clip_scores, clip_scores.c.labelling_id == labellings.c.id)
            .join(closure, closure.c.descendant_id == clip_scores.c.node_id)
            .join(nodes, nodes.c.id == closure.c.ancestor_id)
            .where(nodes.c.mid.in_(mids), clip_scores.c.peak >= min_score)
            .where(speaks_for_clip(conn, None), counting_pairs(conn))
            .where(*clip_conditions(conn, asked))
            .group_by(nodes.c.mid, days.c.day)
            .order_by(nodes.c.mid, days.c.day)
        )
        for mid, at, n_clips in conn.execute(query):
            found[mid].append((at, n_clips))
    return found


def failure_reasons(
    engine: Engine, n_examples: int = 3, asked: Question = EVERY
) -> list[ReasonCount]:
    """Failed files by reason, most first, each with its first few files."""
    failed = and_(sources.c.status == "failed", *file_conditions(asked))
    reason = func.coalesce(sources.c.reason, "")
    count = func.count()
    found = []
    with reading(engine) as conn:
        counted = select(reason, count).where(failed).group_by(reason)
        for name, n_files in conn.execute(counted.order_by(count.desc(), reason)).all():
            few = select(sources.c.path_text, func.coalesce(sources.c.reason_detail, ""))
            few = few.where(failed, reason == name).order_by(sources.c.id).limit(n_examples)
            examples = tuple((r[0], r[1]) for r in conn.execute(few))
            found.append(ReasonCount(name, n_files, examples))
    return found


def failed_files(engine: Engine, reason: str, after: int, limit: int) -> list[FailedFile]:
    """The next files that failed for a reason: those whose number is greater than `after`."""
    detail = func.coalesce(sources.c.reason_detail, "").label("detail")
    query = (
        select(*columns_for(FailedFile, sources, source_id=sources.c.id, detail=detail))
        .where(sources.c.status == "failed", func.coalesce(sources.c.reason, "") == reason)
        .where(sources.c.id > after)
        .order_by(sources.c.id)
        .limit(limit)
    )
    with reading(engine) as conn:
        return [FailedFile(*row) for row in conn.execute(query)]


def places(engine: Engine, sha256: str, asked: Question | None = None) -> list[Place]:
    """Where a clip lay when it was last seen: first those not missing, then those asked about."""
    current = and_(labellings.c.clip_id == clips.c.id, labellings.c.is_current)
    of_files = file_conditions(asked) if asked else []
    which = [case((and_(*of_files), 0), else_=1)] if of_files else []
    query = (
        select(*columns_for(Place, sources), parameter_sets.c.parameters)
        .join(clips, clips.c.id == sources.c.clip_id)
        .outerjoin(labellings, current)
        .outerjoin(parameter_sets, parameter_sets.c.id == labellings.c.parameter_set_id)
        .where(clips.c.sha256 == sha256)
        .order_by(there_first(), *which, sources.c.id)
    )
    with reading(engine) as conn:
        return [
            replace(Place(*row[:-1]), track=track_of(row.parameters)) for row in conn.execute(query)
        ]


def ontology_edges(engine: Engine) -> list[tuple[str, str]]:
    """(parent, child) as MIDs, children in the ontology's order."""
    child = nodes.alias("child")
    query = (
        select(nodes.c.mid, child.c.mid)
        .join(edges, edges.c.parent_id == nodes.c.id)
        .join(child, child.c.id == edges.c.child_id)
        .order_by(nodes.c.position, nodes.c.id, edges.c.position)
    )
    with reading(engine) as conn:
        return [(row[0], row[1]) for row in conn.execute(query)]


WHAT_TIME = (
    "when each recording began, on the recorder's clock, or where that is not known, its file's "
    "last change (UTC)"
)
"""What the days of a clip are, in words for the reader."""


def _days(asked: Question) -> Any:
    """Labellings, their clips, and the days of each clip: of all its occasions, none twice."""
    known = occasions(*file_conditions(asked)).subquery("known")
    own = sources.alias("own")
    its_first = first_source(clips.c.id, *file_conditions(asked, own), of=own)
    first = its_first.correlate(clips).scalar_subquery()
    unknown = (
        select(sources.c.clip_id, (sources.c.mtime_ns // 1_000_000 // DAY_MS).label("day"))
        .select_from(clips)
        .join(sources, sources.c.id == first)
        .where(clips.c.id.not_in(select(known.c.clip_id)))
    )
    local_ms = known.c.recorded_unix_ms + known.c.recorded_utc_offset_s * 1_000
    told = select(known.c.clip_id, (local_ms // DAY_MS).label("day")).distinct()
    days = told.union_all(unknown).subquery("days")
    joined = labellings.join(clips, clips.c.id == labellings.c.clip_id)
    return days, joined.join(days, days.c.clip_id == clips.c.id)


def _kept_hours(conn: Connection, asked: Question) -> list[NodeHours] | None:
    """`node_hours` by the kept counts; None where those do not tell."""
    found = totals(conn, asked.min_score) if has_totals(asked) else {0: UNKNOWN}
    if any(total.is_least for total in found.values()):
        return None
    classes = set(conn.execute(select(categories.c.node_id)).scalars())
    named = conn.execute(select(nodes.c.id, nodes.c.mid, nodes.c.name).order_by(nodes.c.id))
    heard = [
        NodeHours(mid, name, node in classes, found[node].hours, found[node].n_heard)
        for node, mid, name in named
        if node in found and found[node].n_heard
    ]
    return sorted(heard, key=lambda each: -each.hours)


def _new_seconds(min_score: float, counting: ColumnElement[bool]) -> Subquery:
    """Each interval below each node, and how much of it no earlier one of that clip covers."""
    below = (
        timed(closure.c.ancestor_id, labellings.c.clip_id)
        .join(closure, closure.c.descendant_id == detections.c.node_id)
        .where(and_(detections.c.peak >= min_score, counting))
    )
    return newly_covered(below.subquery("below"), "ancestor_id", "clip_id")
