"""What Datasette shows of the database: titles, facets and ready questions.

Source: https://docs.datasette.io/en/0.65.1/metadata.html
"""

from __future__ import annotations

from typing import Any

_UNDER = """
SELECT MAX(l.peak) AS score, l.clip, s.path, l.duration_s
FROM subtree_labels AS l JOIN clip_sources AS s ON s.clip = l.clip
WHERE l.ancestor_name = :under AND l.peak >= CAST(:min_score AS REAL)
GROUP BY l.clip ORDER BY score DESC LIMIT 200
"""
_WHEN = """
SELECT path, name, start_s, end_s, peak,
       datetime(heard_unix_s, 'unixepoch') AS heard_at_utc
FROM sound_times WHERE name = :name AND peak >= CAST(:min_score AS REAL)
ORDER BY path, start_s LIMIT 1000
"""
_HOUR = """
SELECT heard_hour, COUNT(*) AS intervals, ROUND(SUM(end_s - start_s) / 60, 2) AS minutes
FROM sound_times WHERE name = :name AND peak >= CAST(:min_score AS REAL) AND heard_hour IS NOT NULL
GROUP BY heard_hour ORDER BY heard_hour
"""
_BRANCHES = """
SELECT n.name, COUNT(DISTINCT l.clip) AS clips FROM subtree_labels AS l
JOIN nodes AS n ON n.mid = l.ancestor_mid
JOIN edges AS e ON e.child_id = n.id
WHERE l.peak >= CAST(:min_score AS REAL) AND e.parent_id NOT IN (SELECT child_id FROM edges)
GROUP BY n.name ORDER BY clips DESC
"""


def _ready(title: str, sql: str) -> dict[str, str]:
    return {"title": title, "sql": sql.strip()}


DATABASE: dict[str, Any] = {
    "title": "Labels",
    "description": "Start with the views and the ready questions; scores in views are 0 to 1.",
    "queries": {
        "below_a_node": _ready("Best clips below a node (Animal, 0.3)", _UNDER),
        "when_is_it_heard": _ready("When is a class heard? (Siren, 0.5)", _WHEN),
        "by_hour_of_day": _ready("A class by the hour of the day (Bird, 0.3)", _HOUR),
        "branches": _ready("Clips by branch of the ontology (0.5)", _BRANCHES),
        "hours_by_class": _ready(
            "Hours by class", "SELECT name, n_clips, hours FROM class_hours ORDER BY hours DESC"
        ),
        "why_files_failed": _ready(
            "Failures by reason",
            "SELECT reason, COUNT(*) AS files FROM failures GROUP BY reason ORDER BY files DESC",
        ),
    },
    "tables": {
        "labels": {"description": "Classes of clips.", "facets": ["name", "model"]},
        "sound_times": {"description": "Where and when each sound is heard.", "facets": ["name"]},
        "detection_times": {"facets": ["name", "model"]},
        "clip_sources": {"description": "Files.", "facets": ["status", "reason", "recorded_by"]},
        "failures": {"facets": ["reason"]},
        "class_hours": {"sort_desc": "hours"},
        "nodes": {"label_column": "name", "facets": ["is_abstract"]},
        "run_items": {"hidden": True},
        "audioset_version": {"hidden": True},
    },
}


def metadata(database: str) -> dict[str, Any]:
    """The whole document, for a database of that name."""
    return {
        "title": "audioset-flows",
        "description": "Which sounds are heard in which recordings.",
        "databases": {database: DATABASE},
    }
