"""Sets of thresholds, and the intervals that follow from them; see `db.tables` for the rest.

`detections` is what every labelling has, down to a low threshold. `intervals` is what a named set
makes of the same scores; any number of sets lie side by side.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, Index, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from db.base import Base, table_of
from db.types import CleanJson, ScoreType


class ThresholdSetRow(Base):
    """One version of a named set; never altered. Without a default high, only listed classes."""

    __tablename__ = "threshold_sets"
    __table_args__ = (UniqueConstraint("name", "version"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    version: Mapped[int]
    model: Mapped[str | None]
    default_high: Mapped[float | None] = mapped_column(ScoreType)
    default_low: Mapped[float | None] = mapped_column(ScoreType)
    min_duration_s: Mapped[float]
    merge_gap_s: Mapped[float]
    how: Mapped[dict[str, Any]] = mapped_column(CleanJson)
    made_at: Mapped[datetime]


class ThresholdRow(Base):
    """A class begins at `high` and goes on down to `low`, where the set's default does not hold."""

    __tablename__ = "thresholds"
    threshold_set_id: Mapped[int] = mapped_column(
        ForeignKey("threshold_sets.id", ondelete="CASCADE"), primary_key=True
    )
    node_id: Mapped[int] = mapped_column(ForeignKey("nodes.id"), primary_key=True)
    high: Mapped[float] = mapped_column(ScoreType)
    low: Mapped[float] = mapped_column(ScoreType)


class DerivationRow(Base):
    """A set was applied to a labelling's scores: to this very file, or its intervals are stale."""

    __tablename__ = "derivations"
    labelling_id: Mapped[int] = mapped_column(
        ForeignKey("labellings.id", ondelete="CASCADE"), primary_key=True
    )
    threshold_set_id: Mapped[int] = mapped_column(
        ForeignKey("threshold_sets.id", ondelete="CASCADE"), primary_key=True, index=True
    )
    scores_sha256: Mapped[str | None] = mapped_column(String(64))
    n_intervals: Mapped[int]
    derived_at: Mapped[datetime]


class IntervalRow(Base):
    """An interval of one class in one clip under one set; as a detection otherwise."""

    __tablename__ = "intervals"
    __table_args__ = (
        Index(None, "threshold_set_id", "node_id", "peak", "labelling_id"),
        {"sqlite_with_rowid": False},
    )
    labelling_id: Mapped[int] = mapped_column(
        ForeignKey("labellings.id", ondelete="CASCADE"), primary_key=True
    )
    threshold_set_id: Mapped[int] = mapped_column(
        ForeignKey("threshold_sets.id", ondelete="CASCADE"), primary_key=True
    )
    node_id: Mapped[int] = mapped_column(ForeignKey("nodes.id"), primary_key=True)
    start_patch: Mapped[int] = mapped_column(primary_key=True)
    end_patch: Mapped[int]
    peak: Mapped[float] = mapped_column(ScoreType)
    mean: Mapped[float] = mapped_column(ScoreType)
    peak_patch: Mapped[int]


threshold_sets = table_of(ThresholdSetRow)
thresholds = table_of(ThresholdRow)
derivations = table_of(DerivationRow)
intervals = table_of(IntervalRow)
