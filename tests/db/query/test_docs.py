"""The SQL of docs/database.md runs as written, on both databases."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from audioset_core.records import Detection
from db.catalog.start_times import SourceTime, store_times
from db.judging.verdicts import Verdict, VerdictFile, store_verdicts
from db.types import path_digest
from tests.db.build import INDEX, NOW, labelled, make_world, sha

DOCS = Path(__file__).parents[3] / "docs" / "database.md"
QUERIES = re.findall(r"```sql\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.parametrize("query", QUERIES)
def test_it_runs(fresh_db: Engine, query: str) -> None:
    world = make_world(fresh_db)
    labelled(world, "one", {"/b": 0.9}, [Detection(INDEX["/b"], 0, 3, 0.9, 0.5, 1)])
    store_times(fresh_db, [SourceTime(path_digest(b"/audio/one.wav"), 3_600_000, 3_600, "name")])
    said = Verdict(sha("one"), "/b", None, "absent", "anna", NOW, "line 2")
    store_verdicts(fresh_db, VerdictFile("f" * 64, "v.csv", "table"), [said], NOW)
    # The tiny ontology's name stands in for AudioSet's.
    with fresh_db.connect() as conn:
        rows = conn.execute(text(query.replace("'Bird'", "'name /b'"))).all()
    if "verdicts_now" in query:
        assert [(row.clip, row.judged_by) for row in rows] == [(sha("one"), "anna")]
        return
    if "node_totals" in query:
        found = sorted((row.name, row.clips, round(float(row.hours) * 3600, 6)) for row in rows)
        assert found == [("name /a", 1, 2.4), ("name /b", 1, 2.4)]
        return
    # catalog/test_notes.py, reports/test_health.py and alerts/test_alerts.py have some.
    if any(f"FROM {view}" in query for view in ("notes", "health", "sound_alerts")):
        assert rows == []
        return
    # No set of thresholds derived anything here (thresholds/test_threshold_sets.py has one).
    assert [row.heard_hour for row in rows] == ([] if "interval_times" in query else [2])
