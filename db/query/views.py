"""Views for people who write plain SQL; the same text runs on SQLite and PostgreSQL.

The columns of each view are in docs/database.md.

`clip` is the SHA-256 of the content; scores are in [0, 1]; each clip counts under its current
labelling, and beside it under the newest by each taught model. Views are dropped before and created
after every migration, so a revision may rebuild any table; a changed view needs a (possibly empty)
revision to reach old databases.
"""

# ruff: noqa: S608 (SELECTs put together of this module's own constants)

from __future__ import annotations

from dataclasses import fields
from typing import Any

from sqlalchemy import ClauseElement, Connection, func, literal_column, select, text

from audioset_core.records import TROUBLES, Health
from db.query.paths import is_trusted
from db.query.time_spans import end_s, newly_covered, peak_s, rounded_s, start_s, timed
from db.schema.tables import clips, detections, labellings, models, parameter_sets, sources


def _text(part: ClauseElement) -> str:
    """What both databases read of a statement or a part of one."""
    return str(part.compile(compile_kwargs={"literal_binds": True}))


_TIMED: dict[str, Any] = {
    "clip": clips.alias("c"),
    "model": models.alias("m"),
    "parameters": parameter_sets.alias("p"),
}
_START_S = _text(start_s(detections.alias("d"), _TIMED["parameters"]))
_PEAK_S = _text(peak_s(detections.alias("d"), _TIMED["parameters"]))
_DURATION_S = _text(rounded_s(_TIMED["clip"].c.duration_s))
_END_S = _text(end_s(detections.alias("d"), **_TIMED))

_DETECTIONS = """
FROM labellings AS l
JOIN clips AS c ON c.id = l.clip_id
JOIN models AS m ON m.id = l.model_id
JOIN parameter_sets AS p ON p.id = l.parameter_set_id
JOIN detections AS d ON d.labelling_id = l.id
JOIN nodes AS n ON n.id = d.node_id
"""

# A missing file is not asked about its clip while another one is there.
_OWN = sources.alias("own")
_TELLING = f"({_text(select(_OWN).where(_OWN.c.clip_id.is_not(None), is_trusted(_OWN)))})"

# A set for one model belongs to the newest labelling by that model, as every question to the model.
_REPRESENTS_CLIP_IN_SET = """(
    (t.model IS NULL AND l.is_current)
    OR ((t.model = m.name OR t.model = m.name || '@' || m.version) AND NOT EXISTS (
        SELECT 1 FROM labellings AS l2 JOIN models AS m2 ON m2.id = l2.model_id
        WHERE l2.clip_id = l.clip_id AND l2.status = 'done'
        AND (t.model = m2.name OR t.model = m2.name || '@' || m2.version)
        AND (l2.labelled_at > l.labelled_at OR (l2.labelled_at = l.labelled_at AND l2.id > l.id))
    ))
)"""

# As `db.query.current_labelling.speaks_for_clip`.
_SPEAKS_FOR_CLIP = """(
    l.is_current OR (m.is_taught AND NOT m.is_retired AND l.status = 'done' AND NOT EXISTS (
        SELECT 1 FROM labellings AS l2 JOIN models AS m2 ON m2.id = l2.model_id
        WHERE l2.clip_id = l.clip_id AND l2.status = 'done' AND m2.name = m.name
        AND NOT m2.is_retired
        AND (l2.labelled_at > l.labelled_at OR (l2.labelled_at = l.labelled_at AND l2.id > l.id))
    ))
)"""

_HEARD_MS = f"(f.recorded_unix_ms + CAST(ROUND({_START_S} * 1000) AS BIGINT))"

# Whole hours since 1970 on the recorder's clock. No '%': psycopg takes it for a placeholder.
_HEARD_HOURS = f"(({_HEARD_MS} + f.recorded_utc_offset_s * 1000) / 3600000)"

# As `db.query.sun.phase_at`: of the site, else of the place that the file states.
_PHASE = f"""(
    SELECT u.phase FROM sun_periods AS u
    WHERE u.latitude_cdeg
        = CAST(ROUND(COALESCE(w.latitude_deg, c.latitude_deg) * 100) AS INTEGER)
    AND u.longitude_cdeg
        = CAST(ROUND(COALESCE(w.longitude_deg, c.longitude_deg) * 100) AS INTEGER)
    AND u.starts_unix_ms BETWEEN {_HEARD_MS} - 86400000 AND {_HEARD_MS}
    AND u.ends_unix_ms > {_HEARD_MS}
)"""


_TAUGHT = """SELECT k.node_id FROM categories AS k JOIN models AS m ON m.id = k.model_id
    WHERE m.is_taught AND NOT m.is_retired"""


def _class_hours() -> str:
    """The kept counts; labels only of classes that two labellings of a clip may both have."""
    l, m = labellings.alias("l"), models.alias("m")  # noqa: E741 (as in the views)
    speaks = select(l.c.id).join(m, m.c.id == l.c.model_id).where(text(_SPEAKS_FOR_CLIP))
    heard = timed(labellings.c.clip_id, detections.c.node_id).where(
        text(f"EXISTS ({_TAUGHT}) AND detections.node_id IN ({_TAUGHT})"),
        labellings.c.id.in_(speaks),
    )
    covered = newly_covered(heard.subquery("heard"), "node_id", "clip_id").c
    n_clips = func.count(covered.clip_id.distinct()).label("n_clips")
    hours = func.sum(covered.new_s).op("/")(literal_column("3600")).label("hours")
    read = select(covered.node_id, n_clips, hours).group_by(covered.node_id)
    return f"""
        SELECT n.mid AS mid, n.name AS name, h.n_clips AS n_clips, h.hours AS hours
        FROM (
            SELECT t.node_id AS node_id, CAST(SUM(t.n_heard_own) AS BIGINT) AS n_clips,
                   CAST(SUM(t.heard_own_us) AS DOUBLE PRECISION) / 3600000000 AS hours
            FROM node_totals AS t WHERE t.is_current AND t.node_id NOT IN ({_TAUGHT})
            GROUP BY t.node_id HAVING SUM(t.n_heard_own) > 0
            UNION ALL {_text(read)}
        ) AS h
        JOIN nodes AS n ON n.id = h.node_id
    """


def _score(column: str) -> str:
    """A stored score as a double: plain division would give PostgreSQL's numeric."""
    return f"CAST({column} AS DOUBLE PRECISION) / 10000"


_MEASURES = ", ".join(f"h.{each.name} AS {each.name}" for each in fields(Health))
_TROUBLES = " || ".join(
    f"CASE WHEN h.{t.measure} {'<=' if t.is_below else '>='} {t.limit} "
    f"THEN ', {t.kind}' ELSE '' END"
    for t in TROUBLES
)

VIEWS = {
    "labels": f"""
        SELECT c.sha256 AS clip, {_DURATION_S} AS duration_s, n.mid AS mid, n.name AS name,
               {_score("s.peak")} AS peak, {_score("s.mean")} AS mean,
               m.name AS model, m.version AS model_version
        FROM labellings AS l
        JOIN clips AS c ON c.id = l.clip_id
        JOIN models AS m ON m.id = l.model_id
        JOIN clip_scores AS s ON s.labelling_id = l.id
        JOIN nodes AS n ON n.id = s.node_id
        WHERE {_SPEAKS_FOR_CLIP}
    """,
    "subtree_labels": f"""
        SELECT a.mid AS ancestor_mid, a.name AS ancestor_name, c.sha256 AS clip,
               {_DURATION_S} AS duration_s, n.mid AS mid, n.name AS name,
               {_score("s.peak")} AS peak
        FROM nodes AS a
        JOIN closure AS t ON t.ancestor_id = a.id
        JOIN nodes AS n ON n.id = t.descendant_id
        JOIN clip_scores AS s ON s.node_id = n.id
        JOIN labellings AS l ON l.id = s.labelling_id
        JOIN clips AS c ON c.id = l.clip_id
        JOIN models AS m ON m.id = l.model_id
        WHERE {_SPEAKS_FOR_CLIP}
    """,
    "detection_times": f"""
        SELECT c.sha256 AS clip, n.mid AS mid, n.name AS name,
               {_START_S} AS start_s, {_END_S} AS end_s,
               {_score("d.peak")} AS peak, {_PEAK_S} AS peak_s,
               m.name AS model
        {_DETECTIONS}
        WHERE {_SPEAKS_FOR_CLIP}
    """,
    "sound_times": f"""
        SELECT f.path_text AS path, c.sha256 AS clip, n.mid AS mid, n.name AS name,
               {_START_S} AS start_s, {_END_S} AS end_s, {_score("d.peak")} AS peak,
               CAST({_HEARD_MS} AS DOUBLE PRECISION) / 1000 AS heard_unix_s,
               {_HEARD_HOURS} - {_HEARD_HOURS} / 24 * 24 AS heard_hour,
               m.name AS model, w.name AS site, {_PHASE} AS sun
        {_DETECTIONS}
        JOIN {_TELLING} AS f ON f.clip_id = c.id
        LEFT JOIN sites AS w ON w.id = f.site_id
        WHERE {_SPEAKS_FOR_CLIP}
    """,
    # Without intervals of a score file that the labelling has no longer.
    "interval_times": f"""
        SELECT t.name AS threshold_set, t.version AS set_version, c.sha256 AS clip,
               n.mid AS mid, n.name AS name, {_START_S} AS start_s, {_END_S} AS end_s,
               {_score("d.peak")} AS peak, {_PEAK_S} AS peak_s,
               m.name AS model
        FROM threshold_sets AS t
        JOIN intervals AS d ON d.threshold_set_id = t.id
        JOIN derivations AS v ON v.threshold_set_id = t.id AND v.labelling_id = d.labelling_id
        JOIN labellings AS l ON l.id = d.labelling_id AND l.scores_sha256 = v.scores_sha256
        JOIN clips AS c ON c.id = l.clip_id
        JOIN models AS m ON m.id = l.model_id
        JOIN parameter_sets AS p ON p.id = l.parameter_set_id
        JOIN nodes AS n ON n.id = d.node_id
        WHERE l.status = 'done' AND {_REPRESENTS_CLIP_IN_SET}
    """,
    "clip_sources": """
        SELECT c.sha256 AS clip, s.path_text AS path, s.status AS status, s.reason AS reason,
               s.reason_detail AS reason_detail, s.user_id AS user_id,
               s.size_bytes AS size_bytes,
               CAST(s.mtime_ns AS DOUBLE PRECISION) / 1000000000 AS modified_unix_s,
               s.missing_at AS missing_at, s.waiting_since AS waiting_since,
               CAST(s.recorded_unix_ms AS DOUBLE PRECISION) / 1000 AS recorded_unix_s,
               s.recorded_utc_offset_s AS recorded_utc_offset_s, s.recorded_by AS recorded_by,
               c.latitude_deg AS latitude_deg, c.longitude_deg AS longitude_deg,
               c.device AS device, c.serial AS serial, p.name AS site, s.site_by AS site_by
        FROM sources AS s
        LEFT JOIN clips AS c ON c.id = s.clip_id
        LEFT JOIN sites AS p ON p.id = s.site_id
    """,
    "notes": f"""
        SELECT f.path_text AS path, c.sha256 AS clip, o.source AS source, o.key AS key,
               o.value AS value, o.start AS start, o.doubt AS doubt
        FROM recording_notes AS o
        JOIN clips AS c ON c.id = o.clip_id
        LEFT JOIN {_TELLING} AS f ON f.clip_id = c.id
    """,
    "health": f"""
        SELECT f.path_text AS path, c.sha256 AS clip,
               CAST(f.recorded_unix_ms AS DOUBLE PRECISION) / 1000 AS recorded_unix_s,
               c.device AS device, c.serial AS serial, {_MEASURES},
               SUBSTR({_TROUBLES}, 3) AS troubles
        FROM clip_health AS h
        JOIN clips AS c ON c.id = h.clip_id
        LEFT JOIN {_TELLING} AS f ON f.clip_id = c.id
    """,
    "class_hours": _class_hours(),
    "remarks": f"""
        SELECT f.path_text AS path, c.sha256 AS clip, r.kind AS kind, r.detail AS detail,
               r.start_s AS start_s, r.end_s AS end_s, l.is_partial AS is_partial,
               m.name AS model
        FROM labelling_remarks AS r
        JOIN labellings AS l ON l.id = r.labelling_id
        JOIN clips AS c ON c.id = l.clip_id
        JOIN models AS m ON m.id = l.model_id
        LEFT JOIN {_TELLING} AS f ON f.clip_id = c.id
        WHERE l.is_current
    """,
    # Of the verdicts of one person on one class in one span, the newest counts, if not withdrawn.
    "verdicts_now": """
        SELECT c.sha256 AS clip, n.mid AS mid, n.name AS name,
               CAST(v.start_ms AS DOUBLE PRECISION) / 1000 AS start_s,
               CAST(v.end_ms AS DOUBLE PRECISION) / 1000 AS end_s, v.verdict AS verdict,
               v.judged_by AS judged_by, v.judged_at AS judged_at, f.name AS file,
               f.sha256 AS file_sha256
        FROM (
            SELECT w.*, ROW_NUMBER() OVER (
                PARTITION BY w.clip_id, w.node_id, w.start_ms, w.end_ms, w.judged_by
                ORDER BY w.judged_at DESC, w.id DESC
            ) AS place_in_history
            FROM verdicts AS w
        ) AS v
        JOIN clips AS c ON c.id = v.clip_id
        JOIN nodes AS n ON n.id = v.node_id
        JOIN verdict_files AS f ON f.id = v.verdict_file_id
        WHERE v.place_in_history = 1 AND v.verdict <> 'withdrawn'
    """,
    "sound_alerts": f"""
        SELECT r.name AS rule, a.state AS state, {_score("a.score")} AS score, n.mid AS mid,
               n.name AS name, c.sha256 AS clip, a.path AS path, p.name AS site,
               CAST(a.start_ms AS DOUBLE PRECISION) / 1000 AS start_s,
               CAST(a.end_ms AS DOUBLE PRECISION) / 1000 AS end_s, a.heard_at AS heard_at,
               a.is_timed AS is_timed, a.raised_at AS raised_at, a.told_at AS told_at
        FROM alerts AS a
        JOIN alert_rules AS r ON r.id = a.rule_id
        JOIN clips AS c ON c.id = a.clip_id
        JOIN nodes AS n ON n.id = a.node_id
        LEFT JOIN sites AS p ON p.id = a.site_id
    """,
    "failures": """
        SELECT s.path_text AS path, s.reason AS reason, s.reason_detail AS reason_detail,
               s.user_id AS user_id, s.size_bytes AS size_bytes, s.last_read_at AS last_read_at
        FROM sources AS s
        WHERE s.status = 'failed'
    """,
}
"""The SELECT of each view by name; constants only, nothing of a user's goes in here."""


def create_views(conn: Connection) -> None:
    """Create every view."""
    for name, select_sql in VIEWS.items():
        conn.exec_driver_sql(f"CREATE VIEW {name} AS {select_sql}")


def drop_views(conn: Connection) -> None:
    """Drop every view that exists."""
    for name in VIEWS:
        conn.exec_driver_sql(f"DROP VIEW IF EXISTS {name}")
