"""What people judged, and the samples they were asked about; see `db.tables` for the rest.

A verdict is never altered or deleted: the newest of a clip, span, class and person speaks
(the view `verdicts_now`).
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from db.base import Base, table_of
from db.types import CleanJson, ScoreType

VERDICTS = ("present", "absent", "unsure")


class VerdictFileRow(Base):
    """A file that verdicts came from, known by its content."""

    __tablename__ = "verdict_files"
    id: Mapped[int] = mapped_column(primary_key=True)
    sha256: Mapped[str] = mapped_column(String(64), unique=True)
    name: Mapped[str]
    format: Mapped[str]
    imported_at: Mapped[datetime]


class VerdictRow(Base):
    """What one person said of a class in a span of a clip; without a span: in the whole clip.

    Whole milliseconds, so that a span that was written and read again is the same span. `place` is
    where in the file it stood.
    """

    __tablename__ = "verdicts"
    __table_args__ = (
        CheckConstraint(f"verdict IN {VERDICTS}", name="verdict"),
        Index(None, "clip_id", "node_id"),
    )
    id: Mapped[int] = mapped_column(primary_key=True)
    clip_id: Mapped[int] = mapped_column(ForeignKey("clips.id", ondelete="CASCADE"))
    node_id: Mapped[int] = mapped_column(ForeignKey("nodes.id"))
    start_ms: Mapped[int | None] = mapped_column(BigInteger)
    end_ms: Mapped[int | None] = mapped_column(BigInteger)
    verdict: Mapped[str]
    judged_by: Mapped[str]
    judged_at: Mapped[datetime]
    verdict_file_id: Mapped[int] = mapped_column(ForeignKey("verdict_files.id"), index=True)
    place: Mapped[str]


class ReviewRow(Base):
    """A sample that was drawn to be judged: of what, and how; `question` in JSON."""

    __tablename__ = "reviews"
    id: Mapped[int] = mapped_column(primary_key=True)
    node_id: Mapped[int] = mapped_column(ForeignKey("nodes.id"), index=True)
    question: Mapped[dict[str, Any]] = mapped_column(CleanJson)
    seed: Mapped[int] = mapped_column(BigInteger)
    drawn_at: Mapped[datetime]


class ReviewStratumRow(Base):
    """A part of the clips from which some were drawn at random: a class, and a range of scores.

    `node_id` NULL: all classes without a stratum of their own. `heard_s` is how long the sound is
    detected in these clips, `heard_s2` the sum over clips of its square.
    """

    __tablename__ = "review_strata"
    review_id: Mapped[int] = mapped_column(
        ForeignKey("reviews.id", ondelete="CASCADE"), primary_key=True
    )
    position: Mapped[int] = mapped_column(primary_key=True)
    node_id: Mapped[int | None] = mapped_column(ForeignKey("nodes.id"))
    low: Mapped[float] = mapped_column(ScoreType)
    n_clips: Mapped[int]
    heard_s: Mapped[float]
    heard_s2: Mapped[float]


class ReviewItemRow(Base):
    """A clip that was drawn; `node_id` is the class asked about, at `peak_ms` of the clip."""

    __tablename__ = "review_items"
    review_id: Mapped[int] = mapped_column(
        ForeignKey("reviews.id", ondelete="CASCADE"), primary_key=True
    )
    clip_id: Mapped[int] = mapped_column(
        ForeignKey("clips.id", ondelete="CASCADE"), primary_key=True
    )
    stratum: Mapped[int]
    node_id: Mapped[int] = mapped_column(ForeignKey("nodes.id"))
    score: Mapped[float] = mapped_column(ScoreType)
    peak_ms: Mapped[int | None] = mapped_column(BigInteger)
    heard_s: Mapped[float]


verdict_files = table_of(VerdictFileRow)
verdicts = table_of(VerdictRow)
reviews = table_of(ReviewRow)
review_strata = table_of(ReviewStratumRow)
review_items = table_of(ReviewItemRow)
