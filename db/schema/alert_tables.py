"""Rules that say which sounds are told to a person, and what was heard by them.

See `db.schema.tables` for the rest.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Index,
    Integer,
    String,
    Table,
    UniqueConstraint,
)

from db.schema.base import belongs_to, column, metadata, refers_to
from db.types import CleanJson, CleanText, FiniteFloat, ScoreType, UtcDateTime

STATES = ("waiting", "told", "summed", "quiet", "old", "judged")
"""Of an alert: it is still to be told; was told by an event of its own, or counted by one for
many; or is not told, since another one was lately, it was recorded too long ago, or a person has
judged that the sound is absent there."""

# A question that is asked of every recording once, when it is labelled; `question` in JSON, with
# the ids of sites.
alert_rules = Table(
    "alert_rules",
    metadata,
    column("id", Integer, primary_key=True),
    column("name", CleanText, unique=True),
    column("question", CleanJson),
    # The first of each day, night, week or month at a site; or one in so many seconds.
    column("first_in", CleanText, nullable=True),
    column("one_per_s", FiniteFloat, nullable=True),
    column("recorded_within_s", FiniteFloat, nullable=True),
    # A block of Prefect's, as TYPE/NAME, that sends what is told.
    column("notify", CleanText, nullable=True),
    column("stated_at", UtcDateTime),
)


# A sound that a rule asks for; all of them are kept, whether they are told or not.
alerts = Table(
    "alerts",
    metadata,
    column("id", Integer, primary_key=True),
    belongs_to("alert_rules", "rule_id"),
    belongs_to("clips", "clip_id", index=True),
    refers_to("nodes", "node_id", index=True),
    column("start_ms", BigInteger),
    column("end_ms", BigInteger),
    column("score", ScoreType),
    # On the recorder's clock; if no start is known, when the file was last written.
    column("heard_at", UtcDateTime),
    column("utc_offset_s", Integer),
    column("is_timed", Boolean),
    column("path", CleanText, nullable=True),
    # No foreign key: the alert stays when the site goes.
    column("site_id", Integer, nullable=True),
    column("state", CleanText),
    column("raised_at", UtcDateTime),
    # The event that tells of it; chosen when the row is made, so that none is sent twice.
    column("event_id", String(36)),
    column("told_at", UtcDateTime, nullable=True),
    UniqueConstraint("rule_id", "clip_id", "start_ms"),
    CheckConstraint(f"state IN {STATES}", name="state"),
    Index(None, "rule_id", "state", "heard_at"),
)


# Labellings that no rule was asked about yet; the commit writes the row.
unasked_labellings = Table(
    "unasked_labellings",
    metadata,
    belongs_to("labellings", "labelling_id", primary_key=True),
)
