"""The schema, one class a table; bulk work uses the `Table` objects at the end.

Tables are plural, keys real, times `_at` in UTC, units in names. A change here needs a revision
in `db/migrations/versions` (a test compares both).
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    ForeignKey,
    Index,
    String,
    UniqueConstraint,
    false,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from db.base import Base, table_of
from db.threshold_tables import derivations, intervals, threshold_sets, thresholds
from db.types import CleanJson, ScoreType
from db.verdict_tables import (
    review_items,
    review_strata,
    reviews,
    verdict_files,
    verdicts,
)

__all__ = [
    "Base",
    "categories",
    "clip_scores",
    "clips",
    "closure",
    "derivations",
    "detections",
    "edges",
    "intervals",
    "labelling_remarks",
    "labellings",
    "models",
    "node_examples",
    "nodes",
    "parameter_sets",
    "review_items",
    "review_strata",
    "reviews",
    "run_items",
    "runs",
    "sources",
    "threshold_sets",
    "thresholds",
    "verdict_files",
    "verdicts",
]

SOURCE_STATUSES = ("pending", "identified", "failed", "missing")
LABELLING_STATUSES = ("claimed", "done")
RUN_STATUSES = ("running", "completed", "failed", "crashed", "cancelled")


def _one_of(column: str, allowed: tuple[str, ...]) -> CheckConstraint:
    values = ", ".join(f"'{value}'" for value in allowed)
    return CheckConstraint(f"{column} IN ({values})", name=column)


class NodeRow(Base):
    """An ontology entry; its id is the category key of all scores."""

    __tablename__ = "nodes"
    id: Mapped[int] = mapped_column(primary_key=True)
    mid: Mapped[str] = mapped_column(unique=True)
    name: Mapped[str]
    position: Mapped[int]
    is_abstract: Mapped[bool]
    is_blacklisted: Mapped[bool]
    description: Mapped[str | None]
    citation_uri: Mapped[str | None]


class EdgeRow(Base):
    """Parent to child, as the ontology lists them."""

    __tablename__ = "edges"
    parent_id: Mapped[int] = mapped_column(
        ForeignKey("nodes.id", ondelete="CASCADE"), primary_key=True
    )
    child_id: Mapped[int] = mapped_column(
        ForeignKey("nodes.id", ondelete="CASCADE"), primary_key=True
    )
    position: Mapped[int]


class ClosureRow(Base):
    """Every ancestor of every node, itself included at depth 0; depth is the shortest."""

    __tablename__ = "closure"
    ancestor_id: Mapped[int] = mapped_column(
        ForeignKey("nodes.id", ondelete="CASCADE"), primary_key=True
    )
    descendant_id: Mapped[int] = mapped_column(
        ForeignKey("nodes.id", ondelete="CASCADE"), primary_key=True, index=True
    )
    depth: Mapped[int]


class NodeExampleRow(Base):
    """Addresses of examples that the ontology gives for a node."""

    __tablename__ = "node_examples"
    node_id: Mapped[int] = mapped_column(
        ForeignKey("nodes.id", ondelete="CASCADE"), primary_key=True
    )
    position: Mapped[int] = mapped_column(primary_key=True)
    uri: Mapped[str]


class ModelRow(Base):
    """One version of one model."""

    __tablename__ = "models"
    __table_args__ = (
        UniqueConstraint("name", "version"),
        Index(
            "uq_models_promoted",
            "is_promoted",
            unique=True,
            sqlite_where=text("is_promoted = 1"),
            postgresql_where=text("is_promoted"),
        ),
    )
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    version: Mapped[str]
    weights_sha256: Mapped[str] = mapped_column(String(64))
    sample_rate_hz: Mapped[int]
    window_s: Mapped[float]
    n_classes: Mapped[int]
    embedding_dim: Mapped[int | None]
    registered_at: Mapped[datetime]
    is_promoted: Mapped[bool] = mapped_column(server_default=false())


class CategoryRow(Base):
    """A model output and the node it stands for."""

    __tablename__ = "categories"
    __table_args__ = (UniqueConstraint("model_id", "node_id"),)
    model_id: Mapped[int] = mapped_column(
        ForeignKey("models.id", ondelete="CASCADE"), primary_key=True
    )
    idx: Mapped[int] = mapped_column(primary_key=True)
    node_id: Mapped[int] = mapped_column(ForeignKey("nodes.id"))
    name: Mapped[str]


class ParameterSetRow(Base):
    """The settings that change what a labelling says."""

    __tablename__ = "parameter_sets"
    id: Mapped[int] = mapped_column(primary_key=True)
    digest: Mapped[str] = mapped_column(unique=True)
    patch_hop_s: Mapped[float]
    score_floor: Mapped[float] = mapped_column(ScoreType)
    detection_threshold: Mapped[float] = mapped_column(ScoreType)
    parameters: Mapped[dict[str, Any]] = mapped_column(CleanJson)


class ClipRow(Base):
    """One recording, identified by its content."""

    __tablename__ = "clips"
    id: Mapped[int] = mapped_column(primary_key=True)
    sha256: Mapped[str] = mapped_column(String(64), unique=True)
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    duration_s: Mapped[float]
    sample_rate_hz: Mapped[int] = mapped_column(BigInteger)
    n_channels: Mapped[int]
    n_samples: Mapped[int] = mapped_column(BigInteger)
    format: Mapped[str]
    told_start: Mapped[str | None]
    told_by: Mapped[str | None]
    latitude_deg: Mapped[float | None]
    longitude_deg: Mapped[float | None]
    first_seen_at: Mapped[datetime]


class SourceRow(Base):
    """A path where a clip was seen.

    The key is a 16-byte digest of the path: PostgreSQL cannot index a path near PATH_MAX.
    """

    __tablename__ = "sources"
    __table_args__ = (
        _one_of("status", SOURCE_STATUSES),
        Index(None, "recorded_unix_ms", "clip_id"),
        Index(
            "ix_sources_untimed",
            "id",
            sqlite_where=text("recorded_by IS NULL"),
            postgresql_where=text("recorded_by IS NULL"),
        ),
    )
    id: Mapped[int] = mapped_column(primary_key=True)
    path_digest: Mapped[bytes] = mapped_column(unique=True)
    path: Mapped[bytes]
    path_text: Mapped[str]
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    mtime_ns: Mapped[int] = mapped_column(BigInteger)
    status: Mapped[str]
    reason: Mapped[str | None]
    reason_detail: Mapped[str | None]
    clip_id: Mapped[int | None] = mapped_column(ForeignKey("clips.id"), index=True)
    user_id: Mapped[str | None] = mapped_column(index=True)
    meta: Mapped[dict[str, Any] | None] = mapped_column(CleanJson)
    first_seen_at: Mapped[datetime]
    last_read_at: Mapped[datetime | None]
    missing_at: Mapped[datetime | None]
    waiting_since: Mapped[datetime | None]
    # Milliseconds, since both databases add and divide whole numbers alike.
    recorded_unix_ms: Mapped[int | None] = mapped_column(BigInteger)
    recorded_utc_offset_s: Mapped[int | None]
    # How the start was found; NULL: nobody has looked yet.
    recorded_by: Mapped[str | None]


class TimeRuleRow(Base):
    """How the files below a folder (all, if it is empty) tell when they were recorded."""

    __tablename__ = "time_rules"
    id: Mapped[int] = mapped_column(primary_key=True)
    folder: Mapped[str]
    pattern: Mapped[str | None]
    timezone: Mapped[str | None]
    stated_at: Mapped[datetime]


class RunRow(Base):
    """One execution of a flow; a partition of another run's work has that run as its parent."""

    __tablename__ = "runs"
    __table_args__ = (_one_of("status", RUN_STATUSES),)
    id: Mapped[str] = mapped_column(primary_key=True)
    flow_run_name: Mapped[str | None]
    host: Mapped[str]
    pid: Mapped[int]
    status: Mapped[str]
    started_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]
    parameters: Mapped[dict[str, Any]] = mapped_column(CleanJson)
    n_found: Mapped[int]
    n_labelled: Mapped[int]
    n_known: Mapped[int]
    n_failed: Mapped[int]
    audio_s: Mapped[float]
    summary: Mapped[dict[str, Any] | None] = mapped_column(CleanJson)
    parent_id: Mapped[str | None] = mapped_column(ForeignKey("runs.id"))
    flow_run_id: Mapped[str | None]
    seen_at: Mapped[datetime | None]
    stop_asked_at: Mapped[datetime | None]


class RunItemRow(Base):
    """A run's work list: in SQL, so that it never travels through flow parameters."""

    __tablename__ = "run_items"
    run_id: Mapped[str] = mapped_column(ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True)
    source_id: Mapped[int] = mapped_column(ForeignKey("sources.id", ondelete="CASCADE"))
    estimated_s: Mapped[float]
    bytes: Mapped[int] = mapped_column(BigInteger)


class LabellingRow(Base):
    """One clip under one model version and one set of parameters.

    Ids are never reused (AUTOINCREMENT), or a stale claim could match a newer row.
    """

    __tablename__ = "labellings"
    __table_args__ = (
        UniqueConstraint("clip_id", "model_id", "parameter_set_id"),
        _one_of("status", LABELLING_STATUSES),
        Index(
            "uq_labellings_current",
            "clip_id",
            unique=True,
            sqlite_where=text("is_current = 1"),
            postgresql_where=text("is_current"),
        ),
        Index(None, "model_id", "parameter_set_id", "is_current"),
        {"sqlite_autoincrement": True},
    )
    id: Mapped[int] = mapped_column(primary_key=True)
    clip_id: Mapped[int] = mapped_column(ForeignKey("clips.id", ondelete="CASCADE"))
    model_id: Mapped[int] = mapped_column(ForeignKey("models.id"))
    parameter_set_id: Mapped[int] = mapped_column(ForeignKey("parameter_sets.id"))
    status: Mapped[str]
    token: Mapped[int]
    lease_until: Mapped[datetime | None]
    run_id: Mapped[str | None] = mapped_column(ForeignKey("runs.id"), index=True)
    n_patches: Mapped[int | None]
    scores_path: Mapped[str | None]
    scores_sha256: Mapped[str | None] = mapped_column(String(64))
    score_dtype: Mapped[str | None]
    embeddings_path: Mapped[str | None]
    embeddings_sha256: Mapped[str | None] = mapped_column(String(64))
    note: Mapped[str | None]
    is_current: Mapped[bool]
    labelled_at: Mapped[datetime | None]
    # No foreign key: SQLite would have to copy the table to get one.
    source_id: Mapped[int | None]
    is_partial: Mapped[bool] = mapped_column(server_default=false())


class LabellingRemarkRow(Base):
    """What a person should know of the recording as it was read for a labelling."""

    __tablename__ = "labelling_remarks"
    __table_args__ = ({"sqlite_with_rowid": False},)
    labelling_id: Mapped[int] = mapped_column(
        ForeignKey("labellings.id", ondelete="CASCADE"), primary_key=True
    )
    position: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str]
    detail: Mapped[str]
    start_s: Mapped[float | None]
    end_s: Mapped[float | None]


class ClipScoreRow(Base):
    """A clip's peak and mean score for one category, where the peak reaches the floor."""

    __tablename__ = "clip_scores"
    __table_args__ = (
        Index(None, "node_id", "peak", "labelling_id"),
        {"sqlite_with_rowid": False},
    )
    labelling_id: Mapped[int] = mapped_column(
        ForeignKey("labellings.id", ondelete="CASCADE"), primary_key=True
    )
    node_id: Mapped[int] = mapped_column(ForeignKey("nodes.id"), primary_key=True)
    peak: Mapped[float] = mapped_column(ScoreType)
    mean: Mapped[float] = mapped_column(ScoreType)


class DetectionRow(Base):
    """A merged interval of one category in one clip; `end_patch` is the last patch inside."""

    __tablename__ = "detections"
    __table_args__ = ({"sqlite_with_rowid": False},)
    labelling_id: Mapped[int] = mapped_column(
        ForeignKey("labellings.id", ondelete="CASCADE"), primary_key=True
    )
    node_id: Mapped[int] = mapped_column(ForeignKey("nodes.id"), primary_key=True)
    start_patch: Mapped[int] = mapped_column(primary_key=True)
    end_patch: Mapped[int]
    peak: Mapped[float] = mapped_column(ScoreType)
    mean: Mapped[float] = mapped_column(ScoreType)
    peak_patch: Mapped[int]


nodes = table_of(NodeRow)
edges = table_of(EdgeRow)
closure = table_of(ClosureRow)
node_examples = table_of(NodeExampleRow)
models = table_of(ModelRow)
categories = table_of(CategoryRow)
parameter_sets = table_of(ParameterSetRow)
clips = table_of(ClipRow)
sources = table_of(SourceRow)
time_rules = table_of(TimeRuleRow)
runs = table_of(RunRow)
run_items = table_of(RunItemRow)
labellings = table_of(LabellingRow)
labelling_remarks = table_of(LabellingRemarkRow)
clip_scores = table_of(ClipScoreRow)
detections = table_of(DetectionRow)
