"""Rows for exports: recordings in the order they were seen, each with its detections by start.

Everything comes in pages, by key, from one moment of the database: a million recordings need no
more memory than a thousand, and one of ten hours no more than one of ten seconds.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from sqlalchemy import ColumnElement, Connection, Row, Select, and_, exists, func, select

from db.errors import DatabaseUserError
from db.reports import remarks_of
from db.selection import floor, model_ids, speaks
from db.subtrees import counts, heard_in, subtree
from db.tables import (
    categories,
    clips,
    detections,
    labellings,
    models,
    nodes,
    parameter_sets,
    sources,
)
from db.types import canonical_json

if TYPE_CHECKING:
    from db.records import Remark

_PAGE = 500
_ROWS = 2_000


@dataclass(frozen=True, slots=True)
class Choice:
    """What to export; nodes are MIDs, `sources` are globs of absolute paths (any fits).

    `under` keeps detections below any of these nodes, `min_score` those whose peak reaches it;
    recordings with any score of at least `min_score` below `not_under` are left out. `model` asks
    its newest labelling instead of the current one. Vanished files come only `with_missing`;
    source-ambiguous classes count on their own only `with_ambiguous`.
    """

    under: tuple[str, ...] = ()
    not_under: tuple[str, ...] = ()
    min_score: float = 0.0
    model: str | None = None
    sources: tuple[bytes, ...] = ()
    with_missing: bool = False
    with_ambiguous: bool = False


@dataclass(frozen=True, slots=True)
class RecordingRow:
    """A file of a clip, and the labelling that speaks for the clip."""

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
    remarks: str = ""
    """In one line."""


@dataclass(frozen=True, slots=True)
class EventRow:
    """A detection in seconds."""

    mid: str
    name: str
    start_s: float
    end_s: float
    peak: float
    mean: float
    peak_s: float


def check(conn: Connection, choice: Choice) -> None:
    """Whether the model exists and has stored all that is asked for.

    Raises:
        DatabaseUserError: it does not, or detections begin at a higher threshold.
    """
    threshold = floor(conn, model_ids(conn, choice.model), "detection_threshold")
    if 0.0 < choice.min_score < threshold:
        message = f"detections below {threshold:g} are not stored, so {choice.min_score:g}"
        raise DatabaseUserError(f"{message} would miss some; ask for at least {threshold:g}")


def recordings(conn: Connection, choice: Choice, page: int = _PAGE) -> Iterator[RecordingRow]:
    """Labelled recordings in the order they were seen.

    Raises:
        DatabaseUserError: unknown model or node.
    """
    for rows in _pages(conn, choice, _recording_query(conn, choice), page):
        yield from _recordings(conn, rows)


def paths(conn: Connection, choice: Choice) -> Iterator[bytes]:
    """Only the paths of `recordings`."""
    query = _recording_query(conn, choice).with_only_columns(sources.c.id, sources.c.path)
    for rows in _pages(conn, choice, query, 10 * _PAGE):
        yield from (row.path for row in rows)


def labelled(
    conn: Connection, choice: Choice, page: int = _PAGE
) -> Iterator[tuple[RecordingRow, Iterator[EventRow]]]:
    """Each of `recordings`, with its detections by start, which may be none.

    Read them before the next recording: they are not kept.

    Raises:
        DatabaseUserError: unknown model or node, or `min_score` is below what is stored.
    """
    check(conn, choice)
    wanted = _wanted(conn, choice)
    for found_rows in _pages(conn, choice, _recording_query(conn, choice), page):
        rows = _recordings(conn, found_rows)
        query = _detections_of(rows, wanted)
        with conn.execute(query, execution_options={"yield_per": _ROWS}) as found:
            groups = groupby(found, key=attrgetter("source_id"))
            group = next(groups, None)
            for row in rows:
                if group is not None and group[0] == row.source_id:
                    yield row, _events(row, group[1])
                    group = next(groups, None)
                else:
                    yield row, iter(())


def classes(conn: Connection, choice: Choice) -> list[tuple[str, str]]:
    """(MID, name) of what the models in question predict below `under`, in ontology order."""
    ids = model_ids(conn, choice.model)
    in_use = exists().where(labellings.c.model_id == categories.c.model_id, labellings.c.is_current)
    asked = in_use if ids is None else categories.c.model_id.in_(ids)
    is_predicted = exists().where(categories.c.node_id == nodes.c.id, asked)
    query = select(nodes.c.mid, nodes.c.name).where(is_predicted)
    if choice.under:
        query = query.where(nodes.c.id.in_(subtree(conn, choice.under, with_ambiguous=True).ids))
    rows = conn.execute(query.order_by(nodes.c.position, nodes.c.id))
    return [(row.mid, row.name) for row in rows]


def _pages(
    conn: Connection, choice: Choice, query: Select[Any], page: int
) -> Iterator[list[Row[Any]]]:
    last = 0
    while found := conn.execute(query.where(sources.c.id > last).limit(page)).all():
        last = found[-1].id
        rows = [row for row in found if _fits(row.path, choice.sources)]
        if rows:
            yield rows


def _recording_query(conn: Connection, choice: Choice) -> Select[Any]:
    statuses = ("identified", "missing") if choice.with_missing else ("identified",)
    return (
        select(
            sources.c.id,
            labellings.c.id.label("labelling_id"),
            clips.c.sha256,
            sources.c.path,
            sources.c.path_text,
            sources.c.user_id,
            clips.c.duration_s,
            clips.c.sample_rate_hz,
            models.c.name,
            models.c.version,
            models.c.window_s,
            parameter_sets.c.patch_hop_s,
            parameter_sets.c.detection_threshold,
            parameter_sets.c.parameters,
            func.coalesce(labellings.c.n_patches, 0),
            labellings.c.scores_path,
            labellings.c.is_partial,
        )
        .select_from(sources)
        .join(clips, clips.c.id == sources.c.clip_id)
        .join(labellings, labellings.c.clip_id == clips.c.id)
        .join(models, models.c.id == labellings.c.model_id)
        .join(parameter_sets, parameter_sets.c.id == labellings.c.parameter_set_id)
        .where(speaks(model_ids(conn, choice.model)), sources.c.status.in_(statuses))
        .where(*_exclusion(conn, choice))
        .order_by(sources.c.id)
    )


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


def _fits(path: bytes, globs: Sequence[bytes]) -> bool:
    return not globs or any(fnmatch.fnmatchcase(path, glob) for glob in globs)


def _detections_of(rows: Sequence[RecordingRow], wanted: ColumnElement[bool] | None) -> Select[Any]:
    query = (
        select(
            sources.c.id.label("source_id"),
            nodes.c.mid,
            nodes.c.name,
            detections.c.start_patch,
            detections.c.end_patch,
            detections.c.peak,
            detections.c.mean,
            detections.c.peak_patch,
        )
        .select_from(sources)
        .join(labellings, labellings.c.clip_id == sources.c.clip_id)
        .join(detections, detections.c.labelling_id == labellings.c.id)
        .join(nodes, nodes.c.id == detections.c.node_id)
        .where(
            sources.c.id.in_([row.source_id for row in rows]),
            labellings.c.id.in_(list({row.labelling_id for row in rows})),
        )
        .order_by(
            sources.c.id, detections.c.start_patch, detections.c.peak.desc(), detections.c.node_id
        )
    )
    return query if wanted is None else query.where(wanted)


def _events(recording: RecordingRow, rows: Iterator[Row[Any]]) -> Iterator[EventRow]:
    hop_s, window_s, duration_s = recording.patch_hop_s, recording.window_s, recording.duration_s
    for _, mid, name, start_patch, end_patch, peak, mean, peak_patch in rows:
        yield EventRow(
            mid,
            name,
            start_patch * hop_s,
            min(duration_s, end_patch * hop_s + window_s),
            peak,
            mean,
            peak_patch * hop_s,
        )


def _wanted(conn: Connection, choice: Choice) -> ColumnElement[bool] | None:
    """The condition on a row of detections."""
    conditions = [detections.c.peak >= choice.min_score] if choice.min_score > 0 else []
    if choice.under:
        tree = subtree(conn, choice.under, with_ambiguous=choice.with_ambiguous)
        conditions.append(counts(detections, tree))
    return and_(*conditions) if conditions else None


def _exclusion(conn: Connection, choice: Choice) -> list[ColumnElement[bool]]:
    if not choice.not_under:
        return []
    tree = subtree(conn, choice.not_under, with_ambiguous=True)
    return [~heard_in(tree, choice.min_score)]
