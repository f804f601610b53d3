"""The schema, one `Table` each. Without SQLAlchemy's ORM, which would take half as long to load.

Tables are plural, keys real, times `_at` in UTC, units in names. A change here needs a revision
in `db/migrations/versions` (a test compares both).
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    String,
    Table,
    UniqueConstraint,
    false,
)

from db.schema.base import belongs_to, column, interval_columns, metadata, refers_to
from db.types import CleanJson, CleanText, FiniteFloat, ScoreType, UtcDateTime

SOURCE_STATUSES = ("pending", "identified", "failed", "missing")
LABELLING_STATUSES = ("claimed", "done")
RUN_STATUSES = ("running", "completed", "failed", "crashed", "cancelled")
SITE_RULE_KINDS = ("folder", "serial")


def _one_of(column: str, allowed: tuple[str, ...]) -> CheckConstraint:
    values = ", ".join(f"'{value}'" for value in allowed)
    return CheckConstraint(f"{column} IN ({values})", name=column)


# An ontology entry; its id is the category key of all scores.
nodes = Table(
    "nodes",
    metadata,
    column("id", Integer, primary_key=True),
    column("mid", CleanText, unique=True),
    column("name", CleanText),
    column("position", Integer),
    column("is_abstract", Boolean),
    column("is_blacklisted", Boolean),
    column("description", CleanText, nullable=True),
    column("citation_uri", CleanText, nullable=True),
)


# Parent to child, as the ontology lists them.
edges = Table(
    "edges",
    metadata,
    belongs_to("nodes", "parent_id", primary_key=True),
    belongs_to("nodes", "child_id", primary_key=True),
    column("position", Integer),
)


# Every ancestor of every node, itself included at depth 0; depth is the shortest.
closure = Table(
    "closure",
    metadata,
    belongs_to("nodes", "ancestor_id", primary_key=True),
    belongs_to("nodes", "descendant_id", primary_key=True, index=True),
    column("depth", Integer),
)


# Addresses of examples that the ontology gives for a node.
node_examples = Table(
    "node_examples",
    metadata,
    belongs_to("nodes", "node_id", primary_key=True),
    column("position", Integer, primary_key=True),
    column("uri", CleanText),
)


# One version of one model.
models = Table(
    "models",
    metadata,
    column("id", Integer, primary_key=True),
    column("name", CleanText),
    column("version", CleanText),
    column("weights_sha256", String(64)),
    column("sample_rate_hz", Integer),
    column("window_s", FiniteFloat),
    column("n_classes", Integer),
    column("embedding_dim", Integer, nullable=True),
    column("registered_at", UtcDateTime),
    column("is_promoted", Boolean, server_default=false()),
    # Taught labellings count beside the current ones, until the model is retired.
    column("is_taught", Boolean, server_default=false()),
    column("is_retired", Boolean, server_default=false()),
    UniqueConstraint("name", "version"),
)


# A model output and the node it stands for.
categories = Table(
    "categories",
    metadata,
    belongs_to("models", "model_id", primary_key=True),
    column("idx", Integer, primary_key=True),
    refers_to("nodes", "node_id"),
    column("name", CleanText),
    UniqueConstraint("model_id", "node_id"),
)


# The settings that change what a labelling says.
parameter_sets = Table(
    "parameter_sets",
    metadata,
    column("id", Integer, primary_key=True),
    column("digest", CleanText, unique=True),
    column("patch_hop_s", FiniteFloat),
    column("score_floor", ScoreType),
    column("detection_threshold", ScoreType),
    column("parameters", CleanJson),
    # Rows of the score files are pooled from so many steps, each patch_hop_s after the other.
    column("steps_per_row", Integer, server_default="1"),
)


# One recording, identified by its content.
clips = Table(
    "clips",
    metadata,
    column("id", Integer, primary_key=True),
    column("sha256", String(64), unique=True),
    column("size_bytes", BigInteger),
    column("duration_s", FiniteFloat),
    column("sample_rate_hz", BigInteger),
    column("n_channels", Integer),
    column("n_samples", BigInteger),
    column("format", CleanText),
    column("told_start", CleanText, nullable=True),
    column("told_by", CleanText, nullable=True),
    column("latitude_deg", FiniteFloat, nullable=True),
    column("longitude_deg", FiniteFloat, nullable=True),
    column("first_seen_at", UtcDateTime),
    column("device", CleanText, nullable=True),
    column("serial", CleanText, nullable=True),
)


# What a recording's file says of it beside the sound, in the file's order.
recording_notes = Table(
    "recording_notes",
    metadata,
    belongs_to("clips", "clip_id", primary_key=True),
    column("position", Integer, primary_key=True),
    column("source", CleanText),
    column("key", CleanText),
    column("value", CleanText),
    # The start in ISO 8601, where it states one that may be right; and what speaks against it.
    column("start", CleanText, nullable=True),
    column("doubt", CleanText, nullable=True),
    sqlite_with_rowid=False,
)


# The state of a recording as far as it was decoded; docs/database.md says what each measure is.
clip_health = Table(
    "clip_health",
    metadata,
    belongs_to("clips", "clip_id", primary_key=True),
    column("measured_s", FiniteFloat),
    column("clipped_share", FiniteFloat),
    column("n_dropouts", Integer),
    column("dropout_s", FiniteFloat),
    column("dc_offset", FiniteFloat),
    column("silent_share", FiniteFloat),
    column("channel_gap_db", FiniteFloat, nullable=True),
    column("weakest_channel", Integer, nullable=True),
    column("peak_dbfs", FiniteFloat),
    column("rms_dbfs", FiniteFloat),
    column("loudness_lufs", FiniteFloat, nullable=True),
)


# A path, or an object's address, where a clip was seen.
#
# The key is a 16-byte digest of the path: PostgreSQL cannot index a path near PATH_MAX.
sources = Table(
    "sources",
    metadata,
    column("id", Integer, primary_key=True),
    column("path_digest", LargeBinary, unique=True),
    column("path", LargeBinary),
    column("path_text", CleanText),
    column("size_bytes", BigInteger),
    column("mtime_ns", BigInteger),
    column("status", CleanText),
    column("reason", CleanText, nullable=True),
    column("reason_detail", CleanText, nullable=True),
    refers_to("clips", "clip_id", index=True, nullable=True),
    column("user_id", CleanText, index=True, nullable=True),
    column("meta", CleanJson, nullable=True),
    column("first_seen_at", UtcDateTime),
    column("last_read_at", UtcDateTime, nullable=True),
    column("missing_at", UtcDateTime, nullable=True),
    column("waiting_since", UtcDateTime, nullable=True),
    # Milliseconds, since both databases add and divide whole numbers alike.
    column("recorded_unix_ms", BigInteger, nullable=True),
    column("recorded_utc_offset_s", Integer, nullable=True),
    # How the start was found; NULL: nobody has looked yet.
    column("recorded_by", CleanText, nullable=True),
    # Where the recording was made, and who says so: manifest, folder, serial or place.
    # No foreign key: SQLite would have to copy the table to get one.
    column("site_id", Integer, nullable=True),
    column("site_by", CleanText, nullable=True),
    # Of an object: its version, by the server.
    column("etag", CleanText, nullable=True),
    _one_of("status", SOURCE_STATUSES),
    Index(None, "recorded_unix_ms", "clip_id"),
    Index(None, "site_id", "clip_id"),
)


# How the files below a folder (all, if it is empty) tell when they were recorded.
time_rules = Table(
    "time_rules",
    metadata,
    column("id", Integer, primary_key=True),
    column("folder", CleanText),
    column("pattern", CleanText, nullable=True),
    column("timezone", CleanText, nullable=True),
    column("stated_at", UtcDateTime),
)


# A place where recordings are made.
sites = Table(
    "sites",
    metadata,
    column("id", Integer, primary_key=True),
    column("name", CleanText, unique=True),
    column("latitude_deg", FiniteFloat),
    column("longitude_deg", FiniteFloat),
    column("timezone", CleanText, nullable=True),
    column("notes", CleanText, nullable=True),
    column("added_at", UtcDateTime),
)


# What belongs to a site: a folder, or a recorder by its serial number, on local days if given.
site_rules = Table(
    "site_rules",
    metadata,
    column("id", Integer, primary_key=True),
    belongs_to("sites", "site_id", index=True),
    column("kind", CleanText),
    column("value", CleanText),
    column("first_day", CleanText, nullable=True),
    column("last_day", CleanText, nullable=True),
    _one_of("kind", SITE_RULE_KINDS),
)


# Day, dawn, dusk and night at each place, on each UTC day on which something was recorded there.
#
# A place is a hundredth of a degree; a period ends with its UTC day, where the next row goes on.
sun_periods = Table(
    "sun_periods",
    metadata,
    column("latitude_cdeg", Integer, primary_key=True),
    column("longitude_cdeg", Integer, primary_key=True),
    column("starts_unix_ms", BigInteger, primary_key=True),
    column("ends_unix_ms", BigInteger),
    column("phase", CleanText),
    sqlite_with_rowid=False,
)


# One execution of a flow; a partition of another run's work has that run as its parent.
runs = Table(
    "runs",
    metadata,
    column("id", CleanText, primary_key=True),
    column("flow_run_name", CleanText, nullable=True),
    column("host", CleanText),
    column("pid", Integer),
    column("status", CleanText),
    column("started_at", UtcDateTime),
    column("ended_at", UtcDateTime, nullable=True),
    column("parameters", CleanJson),
    column("n_found", Integer),
    column("n_labelled", Integer),
    column("n_known", Integer),
    column("n_failed", Integer),
    column("audio_s", FiniteFloat),
    column("summary", CleanJson, nullable=True),
    column("parent_id", CleanText, ForeignKey("runs.id"), nullable=True),
    column("flow_run_id", CleanText, nullable=True),
    column("seen_at", UtcDateTime, nullable=True),
    column("stop_asked_at", UtcDateTime, nullable=True),
    _one_of("status", RUN_STATUSES),
)


# A run's work list: in SQL, so that it never travels through flow parameters.
run_items = Table(
    "run_items",
    metadata,
    column("run_id", CleanText, ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True),
    column("position", Integer, primary_key=True),
    belongs_to("sources", "source_id"),
    column("estimated_s", FiniteFloat),
    column("bytes", BigInteger),
)


# One clip under one model version and one set of parameters.
#
# Ids are never reused (AUTOINCREMENT), or a stale claim could match a newer row.
labellings = Table(
    "labellings",
    metadata,
    column("id", Integer, primary_key=True),
    belongs_to("clips", "clip_id"),
    refers_to("models", "model_id"),
    refers_to("parameter_sets", "parameter_set_id"),
    column("status", CleanText),
    column("token", Integer),
    column("lease_until", UtcDateTime, nullable=True),
    column("run_id", CleanText, ForeignKey("runs.id"), index=True, nullable=True),
    column("n_patches", Integer, nullable=True),
    column("scores_path", CleanText, nullable=True),
    column("scores_sha256", String(64), nullable=True),
    column("score_dtype", CleanText, nullable=True),
    column("embeddings_path", CleanText, nullable=True),
    column("embeddings_sha256", String(64), nullable=True),
    column("note", CleanText, nullable=True),
    column("is_current", Boolean),
    column("labelled_at", UtcDateTime, nullable=True),
    # No foreign key: SQLite would have to copy the table to get one.
    column("source_id", Integer, nullable=True),
    column("is_partial", Boolean, server_default=false()),
    UniqueConstraint("clip_id", "model_id", "parameter_set_id"),
    _one_of("status", LABELLING_STATUSES),
    Index(None, "model_id", "parameter_set_id", "is_current"),
    sqlite_autoincrement=True,
)


# What a person should know of the recording as it was read for a labelling.
labelling_remarks = Table(
    "labelling_remarks",
    metadata,
    belongs_to("labellings", "labelling_id", primary_key=True),
    column("position", Integer, primary_key=True),
    column("kind", CleanText),
    column("detail", CleanText),
    column("start_s", FiniteFloat, nullable=True),
    column("end_s", FiniteFloat, nullable=True),
    sqlite_with_rowid=False,
)


# A clip's peak and mean score for one category, where the peak reaches the floor.
clip_scores = Table(
    "clip_scores",
    metadata,
    belongs_to("labellings", "labelling_id", primary_key=True),
    refers_to("nodes", "node_id", primary_key=True),
    column("peak", ScoreType),
    column("mean", ScoreType),
    Index(None, "node_id", "peak", "labelling_id"),
    sqlite_with_rowid=False,
)


# A merged interval of one category in one clip.
detections = Table(
    "detections",
    metadata,
    belongs_to("labellings", "labelling_id", primary_key=True),
    *interval_columns(),
    sqlite_with_rowid=False,
)


# How many clips reach which score at or below a node, and for how long: `db.totals`.
#
# A percent is a hundredth of the score, rounded down. Parts are added up.
node_totals = Table(
    "node_totals",
    metadata,
    belongs_to("nodes", "node_id", primary_key=True),
    belongs_to("models", "model_id", primary_key=True),
    belongs_to("parameter_sets", "parameter_set_id", primary_key=True),
    column("is_current", Boolean, primary_key=True),
    column("percent", Integer, primary_key=True),
    column("part", Integer, primary_key=True),
    column("n_clips", BigInteger),
    column("n_heard", BigInteger),
    column("heard_us", BigInteger),
    column("n_heard_own", BigInteger),
    column("heard_own_us", BigInteger),
    sqlite_with_rowid=False,
)
