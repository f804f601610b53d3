"""The README's SQL runs as written, on both databases."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from audioset_core.records import Detection
from tests.db.build import INDEX, MIDS, labelled, make_world

README = Path(__file__).parents[3] / "README.md"
QUERIES = re.findall(r"```sql\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)


def test_there_are_at_least_five() -> None:
    assert len(QUERIES) >= 5


@pytest.mark.parametrize("query", QUERIES)
def test_it_runs(fresh_db: Engine, query: str) -> None:
    world = make_world(fresh_db, MIDS)
    labelled(world, "one", {"/b": 0.9, "/d": 0.7}, [Detection(INDEX["/b"], 0, 3, 0.9, 0.5, 1)])
    # The tiny ontology's names stand in for AudioSet's.
    own = query.replace("'Animal'", "'name /a'").replace("'Siren'", "'name /b'")
    with fresh_db.connect() as conn:
        rows = conn.execute(text(own)).all()
    assert rows or "FROM failures" in query
