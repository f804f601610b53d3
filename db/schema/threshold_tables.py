"""Sets of thresholds, and the intervals that follow from them; see `db.schema.tables` for the rest.

`detections` is what every labelling has, down to a low threshold. `intervals` is what a named set
makes of the same scores; any number of sets lie side by side.
"""

from __future__ import annotations

from sqlalchemy import Index, Integer, String, Table, UniqueConstraint

from db.schema.base import belongs_to, column, interval_columns, metadata, refers_to
from db.types import CleanJson, CleanText, FiniteFloat, ScoreType, UtcDateTime

# One version of a named set; never altered. Without a default high, only listed classes.
threshold_sets = Table(
    "threshold_sets",
    metadata,
    column("id", Integer, primary_key=True),
    column("name", CleanText),
    column("version", Integer),
    column("model", CleanText, nullable=True),
    column("default_high", ScoreType, nullable=True),
    column("default_low", ScoreType, nullable=True),
    column("min_duration_s", FiniteFloat),
    column("merge_gap_s", FiniteFloat),
    column("how", CleanJson),
    column("made_at", UtcDateTime),
    UniqueConstraint("name", "version"),
)


# A class begins at `high` and goes on down to `low`, where the set's default does not hold.
thresholds = Table(
    "thresholds",
    metadata,
    belongs_to("threshold_sets", "threshold_set_id", primary_key=True),
    refers_to("nodes", "node_id", primary_key=True),
    column("high", ScoreType),
    column("low", ScoreType),
)


# A set was applied to a labelling's scores: to this very file, or its intervals are stale.
derivations = Table(
    "derivations",
    metadata,
    belongs_to("labellings", "labelling_id", primary_key=True),
    belongs_to("threshold_sets", "threshold_set_id", primary_key=True, index=True),
    column("scores_sha256", String(64), nullable=True),
    column("n_intervals", Integer),
    column("derived_at", UtcDateTime),
)


# An interval of one class in one clip under one set; as a detection otherwise.
intervals = Table(
    "intervals",
    metadata,
    belongs_to("labellings", "labelling_id", primary_key=True),
    belongs_to("threshold_sets", "threshold_set_id", primary_key=True),
    *interval_columns(),
    Index(None, "threshold_set_id", "node_id", "peak", "labelling_id"),
    sqlite_with_rowid=False,
)
