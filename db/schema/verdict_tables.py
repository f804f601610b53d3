"""What people judged, and the samples they were asked about; see `db.schema.tables` for the rest.

A verdict is never altered or deleted: the newest of a clip, span, class and person counts
(the view `verdicts_now`), unless that person has withdrawn it.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, CheckConstraint, Index, Integer, String, Table

from db.schema.base import belongs_to, column, metadata, refers_to
from db.types import CleanJson, CleanText, FiniteFloat, ScoreType, UtcDateTime

VERDICTS = ("present", "absent", "unsure")
WITHDRAWN = "withdrawn"
"""In place of a verdict: the person no longer says anything of this class and span."""

# A file that verdicts came from, known by its content.
verdict_files = Table(
    "verdict_files",
    metadata,
    column("id", Integer, primary_key=True),
    column("sha256", String(64), unique=True),
    column("name", CleanText),
    column("format", CleanText),
    column("imported_at", UtcDateTime),
)


# What one person said of a class in a span of a clip; without a span: in the whole clip. Whole
# milliseconds, so that a span that was written and read again is the same span. `place` is where in
# the file it stood.
verdicts = Table(
    "verdicts",
    metadata,
    column("id", Integer, primary_key=True),
    belongs_to("clips", "clip_id"),
    refers_to("nodes", "node_id"),
    column("start_ms", BigInteger, nullable=True),
    column("end_ms", BigInteger, nullable=True),
    column("verdict", CleanText),
    column("judged_by", CleanText),
    column("judged_at", UtcDateTime),
    refers_to("verdict_files", "verdict_file_id", index=True),
    column("place", CleanText),
    CheckConstraint(f"verdict IN {(*VERDICTS, WITHDRAWN)}", name="verdict"),
    Index(None, "clip_id", "node_id"),
)


# A sample that was drawn to be judged: of what, and how; `question` in JSON.
reviews = Table(
    "reviews",
    metadata,
    column("id", Integer, primary_key=True),
    refers_to("nodes", "node_id", index=True),
    column("question", CleanJson),
    column("seed", BigInteger),
    column("drawn_at", UtcDateTime),
)


# A part of the clips from which some were drawn at random: a class (NULL: all without a stratum of
# their own), and a range of scores. `heard_s` is how long the sound is detected in these clips,
# `heard_s2` the sum over clips of its square.
review_strata = Table(
    "review_strata",
    metadata,
    belongs_to("reviews", "review_id", primary_key=True),
    column("position", Integer, primary_key=True),
    refers_to("nodes", "node_id", nullable=True),
    column("low", ScoreType),
    column("n_clips", Integer),
    column("heard_s", FiniteFloat),
    column("heard_s2", FiniteFloat),
)


# A clip that was drawn; `node_id` is the class asked about, at `peak_ms` of the clip.
review_items = Table(
    "review_items",
    metadata,
    belongs_to("reviews", "review_id", primary_key=True),
    belongs_to("clips", "clip_id", primary_key=True),
    column("stratum", Integer),
    refers_to("nodes", "node_id"),
    column("score", ScoreType),
    column("peak_ms", BigInteger, nullable=True),
    column("heard_s", FiniteFloat),
)
