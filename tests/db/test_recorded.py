from __future__ import annotations

from datetime import timedelta

from sqlalchemy import Engine, select, text

from db.engine import reading
from db.recorded import (
    NOT_FOUND,
    SourceTime,
    StoredRule,
    TimesFound,
    sources_to_time,
    state_rule,
    store_times,
    stored_rules,
    times_found,
)
from db.sources import path_digest, update_annotations
from db.tables import sources
from tests.db.build import NOW, enrolled, make_world, seen


def _untimed(engine: Engine, again: bool = False) -> list[tuple[str, object]]:
    pages = sources_to_time(engine, again=again)
    return sorted((s.path_text, s.meta) for page in pages for s in page)


def test_each_source_is_looked_at_once_and_again_when_asked(fresh_db: Engine) -> None:
    enrolled(make_world(fresh_db), seen("/a"), seen("/b", meta={"start_time": "x"}))
    both = [("/a", None), ("/b", {"start_time": "x"})]
    assert _untimed(fresh_db) == both
    times = [SourceTime(path_digest(b"/a"), 1_000, 3600, "name")]
    store_times(fresh_db, [*times, SourceTime(path_digest(b"/b"), None, None, NOT_FOUND)])
    assert _untimed(fresh_db) == []
    assert _untimed(fresh_db, again=True) == both
    assert times_found(fresh_db) == [
        TimesFound("name", 1, 1_000, 1_000),
        TimesFound(NOT_FOUND, 1, None, None),
    ]


def test_new_meta_means_another_look(fresh_db: Engine) -> None:
    world = make_world(fresh_db)
    enrolled(world, seen("/a"), seen("/b"))
    digests = [path_digest(b"/a"), path_digest(b"/b")]
    store_times(fresh_db, [SourceTime(digest, 1, 0, "name") for digest in digests])
    update_annotations(fresh_db, [seen("/a", meta={"k": 1}), seen("/b")])
    assert _untimed(fresh_db) == [("/a", {"k": 1})]
    enrolled(world, seen("/b", meta={"k": 2}))
    assert _untimed(fresh_db) == [("/a", {"k": 1}), ("/b", {"k": 2})]
    with reading(fresh_db) as conn:
        assert list(conn.execute(select(sources.c.recorded_unix_ms)).scalars()) == [1, 1]


def test_a_rule_takes_the_place_of_the_one_before(fresh_db: Engine) -> None:
    make_world(fresh_db)
    state_rule(fresh_db, StoredRule("/b", None, "UTC"), NOW)
    state_rule(fresh_db, StoredRule("", "%Y%j", None), NOW)
    state_rule(fresh_db, StoredRule("/b", None, "+02:00"), NOW + timedelta(hours=1))
    assert stored_rules(fresh_db) == [
        StoredRule("", "%Y%j", None),
        StoredRule("/b", None, "+02:00"),
    ]


def test_looking_for_new_sources_reads_only_those(fresh_db: Engine) -> None:
    if fresh_db.dialect.name != "sqlite":
        return
    query = "EXPLAIN QUERY PLAN SELECT id FROM sources WHERE id > 5 AND recorded_by IS NULL"
    with reading(fresh_db) as conn:
        (line,) = [row[3] for row in conn.execute(text(f"{query} ORDER BY id LIMIT 9"))]
    assert "ix_sources_untimed" in line
