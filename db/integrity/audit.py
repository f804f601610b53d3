"""What the tables promise about files, and where they disagree with themselves; writes nothing.

Everything of a collection's size is read in pages: memory stays flat, and no transaction stays
open while files are read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine, Table, and_, bindparam, exists, func, or_, select

from db.engine import reading
from db.ledger.label_rows import Row
from db.paging import PAGE, page_of, paged_rows
from db.record_columns import columns_for
from db.records import Parameters, Variant
from db.schema.tables import (
    clip_scores,
    clips,
    detections,
    labellings,
    models,
    parameter_sets,
    sources,
)

RESET = "reset by a repair"
RESET_CURRENT = "reset by a repair; it spoke for its clip"
"""Notes of labellings that are to be made again; the second was its clip's current one."""


@dataclass(frozen=True, slots=True)
class Labels:
    """A labelling's rows without its id: scores by node id, detections also by start patch."""

    scores: dict[int, Row]
    detections: dict[tuple[int, int], Row]

    @classmethod
    def of(cls, scores: Iterable[Row], found: Iterable[Row]) -> Labels:
        """Labels from rows, as `db.ledger.label_rows.label_rows` makes them."""
        return cls(
            {row["node_id"]: row for row in scores},
            {(row["node_id"], row["start_patch"]): row for row in found},
        )


@dataclass(frozen=True, slots=True)
class DoneLabelling:
    """A finished labelling, and what it promises; by its `token` a later change is seen."""

    labelling_id: int
    token: int
    clip_id: int
    model_id: int
    parameter_set_id: int
    clip_sha256: str
    n_samples: int
    sample_rate_hz: int
    n_patches: int | None
    score_dtype: str | None
    scores_path: str | None
    scores_sha256: str | None
    embeddings_path: str | None
    embeddings_sha256: str | None

    @property
    def variant(self) -> Variant:
        """The model and the set of parameters that it was made with."""
        return Variant(self.model_id, self.parameter_set_id)


@dataclass(frozen=True, slots=True)
class StoredVariant:
    """A model and a set of parameters that labellings were made with."""

    model: str
    version: str
    sample_rate_hz: int
    n_classes: int
    embedding_dim: int | None
    digest: str
    parameters: Mapping[str, Any]
    is_retired: bool = False

    @property
    def title(self) -> str:
        """NAME@VERSION of the model."""
        return f"{self.model}@{self.version}"

    @property
    def extra(self) -> Mapping[str, Any]:
        """The parameters beside hop, floor and threshold."""
        found: Mapping[str, Any] = self.parameters.get("extra", {})
        return found

    @property
    def steps_per_row(self) -> int:
        """From how many steps of a detection a row of the score files is pooled."""
        return int(self.parameters.get("steps_per_row", 1))

    @property
    def row_hop_s(self) -> float:
        """Seconds from one row of the score files to the next."""
        hop_s: float = self.parameters["patch_hop_s"]
        return round(hop_s * self.steps_per_row, 6)

    @property
    def digest_without_embeddings(self) -> str | None:
        """The digest of the same parameters without embeddings; None if these have none."""
        if not self.extra.get("embeddings"):
            return None
        return Parameters(**self.parameters).twin.digest

    @property
    def parts(self) -> Sequence[Mapping[str, Any]]:
        """Of a combined model the models that it was made of, with their calibration; else none."""
        found: Sequence[Mapping[str, Any]] = self.extra.get("parts", ())
        return found


@dataclass(frozen=True, slots=True)
class UndoneLabelling:
    """A labelling that a repair has reset.

    `current_id` is the clip's current labelling, which is to stay so; None if this one was it.
    """

    labelling_id: int
    clip_id: int
    clip_sha256: str
    current_id: int | None


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
            *columns_for(StoredVariant, models, parameter_sets, model=models.c.name),
        )
        .join(models, models.c.id == used.c.model_id)
        .join(parameter_sets, parameter_sets.c.id == used.c.parameter_set_id)
        .order_by(used.c.model_id, used.c.parameter_set_id)
    )
    with reading(engine) as conn:
        return {Variant(row[0], row[1]): StoredVariant(*row[2:]) for row in conn.execute(query)}


def iter_done(engine: Engine, page: int = PAGE) -> Iterator[DoneLabelling]:
    """Every finished labelling, by id."""
    finished = select(labellings).where(labellings.c.status == "done")
    part = page_of(finished, labellings.c.id, page).subquery()
    columns = columns_for(
        DoneLabelling, part, clips, labelling_id=part.c.id, clip_sha256=clips.c.sha256
    )
    query = select(*columns).join(clips, clips.c.id == part.c.clip_id).order_by(part.c.id)
    for row in paged_rows(engine, query, page):
        yield DoneLabelling(*row)


def iter_undone(
    engine: Engine, variant: Variant | None = None, page: int = PAGE
) -> Iterator[UndoneLabelling]:
    """Labellings that a repair has reset and nobody has taken up since, by id.

    A claim always has a run; only `db.integrity.repair.reset_labelling` leaves none.
    """
    current = labellings.alias("current")
    is_current = and_(
        current.c.clip_id == labellings.c.clip_id,
        current.c.is_current,
        labellings.c.note != RESET_CURRENT,
    )
    query = (
        select(labellings.c.id, labellings.c.clip_id, clips.c.sha256, current.c.id)
        .join(clips, clips.c.id == labellings.c.clip_id)
        .outerjoin(current, is_current)
        .where(labellings.c.status == "claimed", labellings.c.run_id.is_(None))
    )
    if variant is not None:
        query = query.where(
            labellings.c.model_id == variant.model_id,
            labellings.c.parameter_set_id == variant.parameter_set_id,
        )
    for row in paged_rows(engine, query, page, key=labellings.c.id):
        yield UndoneLabelling(*row)


def iter_sources(
    engine: Engine, clip_id: int, page: int = PAGE
) -> Iterator[tuple[bytes, int, int]]:
    """(path, size in bytes, mtime in ns) of each place where the clip was seen."""
    columns = (sources.c.id, sources.c.path, sources.c.size_bytes, sources.c.mtime_ns)
    query = select(*columns).where(sources.c.clip_id == clip_id)
    for _, path, size_bytes, mtime_ns in paged_rows(engine, query, page, key=sources.c.id):
        yield path, size_bytes, mtime_ns


def iter_stray_labels(engine: Engine, page: int = PAGE) -> Iterator[tuple[int, str]]:
    """(id, clip) of unfinished labellings that have labels all the same."""
    has_rows = or_(*(_has_rows(table) for table in (clip_scores, detections)))
    query = (
        select(labellings.c.id, clips.c.sha256)
        .join(clips, clips.c.id == labellings.c.clip_id)
        .where(labellings.c.status != "done", has_rows)
    )
    for row in paged_rows(engine, query, page, key=labellings.c.id):
        yield row[0], row[1]


def iter_without_current(engine: Engine, page: int = PAGE) -> Iterator[tuple[int, str]]:
    """(id, SHA-256) of clips whose current labelling is none of the finished ones."""
    own, current = labellings.alias("own"), labellings.alias("current")
    has_current = exists().where(
        current.c.clip_id == own.c.clip_id, current.c.is_current, current.c.status == "done"
    )
    is_wrong = or_(
        and_(own.c.status == "done", ~has_current), and_(own.c.status != "done", own.c.is_current)
    )
    has_wrong = exists().where(own.c.clip_id == clips.c.id, is_wrong)
    query = select(clips.c.id, clips.c.sha256).where(has_wrong)
    for row in paged_rows(engine, query, page, key=clips.c.id):
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


def labels_of(engine: Engine, labelling_id: int) -> Labels:
    """The rows of a labelling."""
    with reading(engine) as conn:
        return Labels.of(
            *(_rows_of(conn, table, labelling_id) for table in (clip_scores, detections))
        )


def _rows_of(conn: Connection, table: Table, labelling_id: int) -> list[Row]:
    columns = [column for column in table.c if column.name != "labelling_id"]
    rows = conn.execute(select(*columns).where(table.c.labelling_id == labelling_id))
    return [dict(row) for row in rows.mappings()]


def _has_rows(table: Any) -> Any:
    return exists().where(table.c.labelling_id == labellings.c.id)
