"""Rows for a lake, the Parquet copy of the results: each finished labelling, and what it says.

Everything is read from one moment of the database, in pages.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import (
    Connection,
    Double,
    Integer,
    Row,
    Select,
    String,
    column,
    func,
    select,
    table,
    type_coerce,
)

from db.query.current_labelling import speaks_for_clip, with_facts
from db.query.paths import there_first
from db.query.time_spans import peak_s, rounded_s, timed
from db.record_columns import columns_for
from db.schema.tables import (
    categories,
    clip_scores,
    clips,
    closure,
    detections,
    labellings,
    models,
    nodes,
    parameter_sets,
    runs,
    sites,
    sources,
)
from db.types import UtcDateTime, canonical_json

_PAGE = 5_000
_PART = 50_000

_VERDICTS = table(
    "verdicts_now",
    *(column(name, String) for name in ("clip", "mid", "name", "verdict", "judged_by", "file")),
    *(column(name, Double) for name in ("start_s", "end_s")),
    column("judged_at", UtcDateTime),
)


@dataclass(frozen=True, slots=True)
class LakeRow:
    """A finished labelling, with the file that stands for its recording, if one is known.

    `counts`: it is the recording's current labelling, or counts beside it (a taught model's).
    `scores_sha256` is of the file from which its rows are made.
    """

    labelling_id: int
    clip: str
    counts: bool
    model: str
    model_version: str
    parameter_set: str
    scores_sha256: str | None
    labelled_at: datetime
    n_patches: int | None
    is_partial: bool
    duration_s: float
    path: str | None
    status: str | None
    recorded_unix_ms: int | None
    recorded_utc_offset_s: int | None
    site: str | None


Parts = Generator[Sequence[Row[Any]], None, None]
"""Rows of a query, many at a time; to be closed where they are not read to the end."""


def iter_labellings(conn: Connection) -> Iterator[LakeRow]:
    """Every finished labelling, by id."""
    query, last = _labellings(conn).order_by(labellings.c.id).limit(_PAGE), 0
    while rows := conn.execute(query.where(labellings.c.id > last)).all():
        yield from (LakeRow(*row) for row in rows)
        last = rows[-1].labelling_id


def labellings_by_id(conn: Connection, ids: Sequence[int]) -> list[LakeRow]:
    """Those finished labellings, by id."""
    query = _labellings(conn).where(labellings.c.id.in_(ids)).order_by(labellings.c.id)
    return [LakeRow(*row) for row in conn.execute(query)]


def detection_rows(conn: Connection, ids: Sequence[int]) -> Parts:
    """(labelling, node, peak, mean, peak_s, start_s, end_s) of detections; scores as stored.

    In parts, since a recording of ten hours may have 100,000.
    """
    own = detections.c
    scores = (type_coerce(own.peak, Integer), type_coerce(own.mean, Integer))
    query = timed(own.labelling_id, own.node_id, *scores, peak_s(detections))
    query = query.where(own.labelling_id.in_(ids))
    return _in_parts(conn, query.order_by(own.labelling_id, own.node_id, own.start_patch))


def score_rows(conn: Connection, ids: Sequence[int]) -> Parts:
    """(labelling, node, peak, mean) of clip scores; scores as stored. In parts."""
    own = clip_scores.c
    scores = (type_coerce(own.peak, Integer), type_coerce(own.mean, Integer))
    query = select(own.labelling_id, own.node_id, *scores).where(own.labelling_id.in_(ids))
    return _in_parts(conn, query.order_by(own.labelling_id, own.node_id))


def table_rows(conn: Connection, name: str) -> Parts:
    """The rows of one of `whole_tables`. In parts."""
    return _in_parts(conn, whole_tables()[name])


def sums(conn: Connection, ids: Sequence[int]) -> dict[str, list[tuple[int, int, int]]]:
    """(labelling, its rows, the sum of their peaks) by table, of those that have any."""
    found = {}
    for of in (detections, clip_scores):
        peaks = func.sum(type_coerce(of.c.peak, Integer))
        query = select(of.c.labelling_id, func.count(), peaks).group_by(of.c.labelling_id)
        rows = conn.execute(query.where(of.c.labelling_id.in_(ids)))
        found[of.name] = [(row[0], row[1], int(row[2])) for row in rows]
    return found


def node_names(conn: Connection) -> dict[int, tuple[str, str]]:
    """(MID, name) by id."""
    query = select(nodes.c.id, nodes.c.mid, nodes.c.name)
    return {row[0]: (row[1], row[2]) for row in conn.execute(query)}


def names_by_model(conn: Connection) -> dict[str, list[tuple[Any, ...]]]:
    """What the classes of each model, all its versions together, are called."""
    query = (
        select(models.c.name, models.c.version, nodes.c.mid, nodes.c.name)
        .join_from(models, categories, categories.c.model_id == models.c.id)
        .join(nodes, nodes.c.id == categories.c.node_id)
        .order_by(models.c.id, categories.c.idx)
    )
    found: dict[str, list[tuple[Any, ...]]] = {}
    for model, *names in conn.execute(query):
        found.setdefault(model, []).append(tuple(names))
    return found


def parameters_by_set(conn: Connection) -> dict[str, str]:
    """The parameters as JSON, by the digest of the set."""
    query = select(parameter_sets.c.digest, parameter_sets.c.parameters)
    return {row[0]: canonical_json(row[1]) for row in conn.execute(query)}


def first_run(conn: Connection, known: str | None = None) -> str | None:
    """The id of the first run, by which databases differ; or the `known` one, if it is here."""
    query = select(runs.c.id).order_by(runs.c.started_at, runs.c.id).limit(1)
    return conn.execute(query.where(runs.c.id == known) if known else query).scalar()


def whole_tables() -> Mapping[str, Select[Any]]:
    """The statements of the tables that are files of their own, by name."""
    above = nodes.alias("above")
    return {
        "files": select(
            sources.c.path_text.label("path"), sources.c.path.label("path_bytes"),
            clips.c.sha256.label("clip"), sources.c.status, sources.c.reason,
            sources.c.user_id.label("id"), sources.c.size_bytes, sources.c.recorded_unix_ms,
            sources.c.recorded_utc_offset_s, sources.c.recorded_by, sites.c.name.label("site"),
            sources.c.site_by,
        )
        .outerjoin(clips, clips.c.id == sources.c.clip_id)
        .outerjoin(sites, sites.c.id == sources.c.site_id)
        .order_by(sources.c.id),
        "clips": select(
            clips.c.sha256.label("clip"), clips.c.duration_s, clips.c.sample_rate_hz,
            clips.c.n_channels, clips.c.format, clips.c.size_bytes, clips.c.device, clips.c.serial,
            clips.c.latitude_deg, clips.c.longitude_deg,
        ).order_by(clips.c.id),
        "sites": select(
            sites.c.name.label("site"), sites.c.latitude_deg, sites.c.longitude_deg,
            sites.c.timezone, sites.c.notes,
        ).order_by(sites.c.id),
        "nodes": select(
            nodes.c.mid, nodes.c.name, nodes.c.is_abstract, nodes.c.is_blacklisted,
            nodes.c.description,
        ).order_by(nodes.c.position, nodes.c.id),
        "closure": select(
            above.c.mid.label("ancestor_mid"), above.c.name.label("ancestor_name"), nodes.c.mid,
            nodes.c.name, closure.c.depth,
        )
        .join_from(closure, above, above.c.id == closure.c.ancestor_id)
        .join(nodes, nodes.c.id == closure.c.descendant_id)
        .order_by(closure.c.ancestor_id, closure.c.descendant_id),
        "verdicts": select(*_VERDICTS.c).order_by(
            *(_VERDICTS.c[name] for name in ("clip", "mid", "judged_by", "start_s", "end_s"))
        ),
    }  # fmt: skip


def _in_parts(conn: Connection, query: Select[Any]) -> Parts:
    with conn.execute(query, execution_options={"yield_per": _PART}) as found:
        yield from found.partitions()


def _labellings(conn: Connection) -> Select[Any]:
    own = sources.alias("own")
    # Of files that are there, one whose start is known: else a copy would hide when it was.
    first = (
        select(own.c.id)
        .where(own.c.clip_id == labellings.c.clip_id)
        .order_by(there_first(own), own.c.recorded_unix_ms.is_(None), own.c.id)
        .limit(1)
        .correlate(labellings)
    )
    columns = columns_for(
        LakeRow, labellings, clips, models, sources,
        labelling_id=labellings.c.id, clip=clips.c.sha256, model=models.c.name,
        counts=speaks_for_clip(conn, None), model_version=models.c.version,
        parameter_set=parameter_sets.c.digest, duration_s=rounded_s(clips.c.duration_s),
        path=sources.c.path_text, status=sources.c.status, site=sites.c.name,
    )  # fmt: skip
    query = with_facts(select(*columns).select_from(labellings))
    query = query.outerjoin(sources, sources.c.id == first.scalar_subquery())
    query = query.outerjoin(sites, sites.c.id == sources.c.site_id)
    return query.where(labellings.c.status == "done")
