from __future__ import annotations

from datetime import timedelta

from sqlalchemy import Engine, select, text

from audioset_core.records import TimeRule
from db.catalog.sources import update_annotations
from db.catalog.start_times import (
    NOT_FOUND,
    SourceTime,
    TimesFound,
    sources_to_time,
    store_rule,
    store_times,
    stored_rules,
    times_found,
)
from db.engine import reading
from db.schema.tables import sources
from db.types import path_digest
from tasks.labelling.start_times import time_recordings
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
    store_rule(fresh_db, TimeRule("/b", None, "UTC"), NOW)
    store_rule(fresh_db, TimeRule("", "%Y%j", None), NOW)
    store_rule(fresh_db, TimeRule("/b", None, "+02:00"), NOW + timedelta(hours=1))
    assert stored_rules(fresh_db) == [
        TimeRule("", "%Y%j", None),
        TimeRule("/b", None, "+02:00"),
    ]


def test_a_rule_adds_to_the_one_of_its_folder_and_takes_nothing_away(fresh_db: Engine) -> None:
    make_world(fresh_db)
    store_rule(fresh_db, TimeRule("/b", None, "UTC"), NOW)
    store_rule(fresh_db, TimeRule("/b", "%Y%j", None), NOW)
    assert stored_rules(fresh_db) == [TimeRule("/b", "%Y%j", "UTC")]
    store_rule(fresh_db, TimeRule("/b", "", None), NOW)
    assert stored_rules(fresh_db) == [TimeRule("/b", None, "UTC")]


def _times(engine: Engine) -> dict[str, tuple[int | None, str | None]]:
    columns = (sources.c.path_text, sources.c.recorded_unix_ms, sources.c.recorded_by)
    with reading(engine) as conn:
        return {row[0]: (row[1], row[2]) for row in conn.execute(select(*columns))}


def test_the_names_of_a_folder_are_read_together(fresh_db: Engine) -> None:
    world = make_world(fresh_db)
    began_ms = 1_716_006_600_000  # 2024-05-18T04:30Z
    as_name = (began_ms, "name, UTC assumed")
    as_zone = (began_ms + 3_600_000, "name, zone given there")
    enrolled(world, seen("/n_%/20240518_043000-0100.wav"), seen("/z/20240518_043000-0100.wav"))
    enrolled(world, seen("/n_%/sub/20240518_043000-0101.wav"), seen("/h/66480000.WAV"))
    assert time_recordings(fresh_db) == 4
    assert _times(fresh_db) == {
        "/n_%/20240518_043000-0100.wav": as_zone,
        "/z/20240518_043000-0100.wav": as_zone,
        "/n_%/sub/20240518_043000-0101.wav": as_name,
        "/h/66480000.WAV": (None, "not found"),
    }
    # What comes later tells what the first were.
    enrolled(world, seen("/n_%/20240518_043000-0160.wav"), seen("/h/66482EC8.WAV"))
    assert time_recordings(fresh_db) == 2
    times = _times(fresh_db)
    assert times["/n_%/20240518_043000-0100.wav"] == times["/n_%/20240518_043000-0160.wav"]
    assert times["/n_%/20240518_043000-0100.wav"] == as_name
    assert times["/z/20240518_043000-0100.wav"] == as_zone
    assert times["/h/66480000.WAV"] == (0x66480000 * 1_000, "name in hex, zone given there")
    assert time_recordings(fresh_db) == 0


def test_a_start_that_is_not_understood_is_told(fresh_db: Engine) -> None:
    world = make_world(fresh_db)
    enrolled(world, seen("/a.wav", meta={"recorded_at": "18.05.2024"}))
    time_recordings(fresh_db)
    assert _times(fresh_db)["/a.wav"] == (
        None,
        "not found; manifest's recorded_at not understood",
    )


def test_many_folders_are_read_together(fresh_db: Engine) -> None:
    world = make_world(fresh_db)
    names = ("20240518_0001.wav", "20240518_0002.wav")
    enrolled(world, *(seen(f"/{n}/{name}") for n in range(60) for name in names))
    enrolled(world, seen("/t/20240518_0430.wav"))
    time_recordings(fresh_db)
    told = {path for path, (unix_ms, _) in _times(fresh_db).items() if unix_ms is not None}
    assert told == {"/t/20240518_0430.wav"}


def test_looking_for_new_sources_reads_only_those(fresh_db: Engine) -> None:
    if fresh_db.dialect.name != "sqlite":
        return
    query = "EXPLAIN QUERY PLAN SELECT id FROM sources WHERE id > 5 AND recorded_by IS NULL"
    with reading(fresh_db) as conn:
        (line,) = [row[3] for row in conn.execute(text(f"{query} ORDER BY id LIMIT 9"))]
    assert "ix_sources_untimed" in line
