"""Questions about day, dawn, dusk and night, on both databases."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, func, select, text, update

from audioset_core.records import Detection, Site
from db.catalog.sites import change_sites, stored_sites
from db.catalog.start_times import SourceTime, store_times
from db.catalog.sun_periods import days_without_sun
from db.engine import reading, writing
from db.query.find import find_clips, find_intervals, find_sounds
from db.query.hours import hours_heard
from db.query.question import Question, file_conditions
from db.query.sun import count_without_sun
from db.query.time_spans import Span
from db.reports.export_rows import labelled as exported
from db.schema.tables import clips, sun_periods
from db.score_files.ranked import score_files
from db.types import path_digest
from tasks.labelling.sun import extend_sun
from tests.db.build import INDEX, NOW, World, labelled, make_world, sha

HOUR_MS = 3_600_000


def _ms(moment: str) -> int:
    return round(datetime.fromisoformat(moment).replace(tzinfo=UTC).timestamp() * 1_000)


# Greenwich on 20 June 2024: day from 03:42:38 to 20:20:48, night until 02:54:56 and from 21:08:31.
STARTS = {
    "night": "2024-06-20T01:00", "dawn": "2024-06-20T03:00", "day": "2024-06-20T12:00",
    "dusk": "2024-06-20T20:30", "long": "2024-06-20T03:30", "own": "2024-06-20T12:00",
    "lost": "2024-06-20T12:00",
}  # fmt: skip
LONG_S = 3_000.0
"""From dawn into the day, which begins 758 s after the recording."""


@pytest.fixture
def world(fresh_db: Engine) -> World:
    """Recordings at Greenwich; `own` states 180 degrees east of it, `lost` nothing."""
    world = make_world(fresh_db)
    for name in STARTS:
        spots = [(0, 1), (2_000, 2_001)] if name == "long" else [(0, 1)]
        found = [Detection(INDEX["/b"], a, b, 0.9, 0.9, a) for a, b in spots]
        length = {"duration_s": LONG_S} if name == "long" else {}
        labelled(world, name, {"/b": 0.9}, found, **length)
    change_sites(fresh_db, lambda _: [Site("Greenwich", 51.4779, 0.0)], NOW)
    (site,) = stored_sites(fresh_db)
    store_times(
        fresh_db,
        [
            SourceTime(path_digest(f"/audio/{name}.wav".encode()), _ms(start), 0, "name",
                       None if name in ("own", "lost") else site.id)
            for name, start in STARTS.items()
        ],
    )  # fmt: skip
    with writing(fresh_db) as conn:
        its = update(clips).where(clips.c.sha256 == sha("own"))
        conn.execute(its.values(latitude_deg=-51.4779, longitude_deg=179.999))
    extend_sun(fresh_db)
    return world


def _names(world: World, *sun: str, **asked: Any) -> str:
    """The names of what every kind of question finds, which has to be the same."""
    of = {sha(name): name for name in STARTS}
    question = Question(under=("/b",), sun=sun, **asked)
    answers = [
        {of[hit.clip] for hit in find(world.engine, question)}
        for find in (find_clips, find_intervals)
    ]
    answers.append({of[sound.clip] for sound in find_sounds(world.engine, question, 99)})
    with reading(world.engine) as conn:
        rows = [(row.clip, list(events)) for row, events in exported(conn, question)]
    answers.append({of[clip] for clip, events in rows if events})
    by_file = hours_heard(world.engine, question, "source")
    answers.append({row.what.removeprefix("/audio/")[:-4] for row in by_file})
    assert all(answer == answers[0] for answer in answers)
    return " ".join(sorted(answers[0]))


def test_each_phase(world: World) -> None:
    assert _names(world, "night") == "night own"
    assert _names(world, "dawn") == "dawn long"
    assert _names(world, "day") == "day long"
    assert _names(world, "dusk") == "dusk"
    assert _names(world, "dawn", "dusk") == "dawn dusk long"
    assert _names(world) == "dawn day dusk long lost night own"


def test_the_sound_counts_and_not_its_recording(world: World) -> None:
    found = find_intervals(world.engine, Question(under=("/b",), sun=("dawn",)))
    assert [hit.start_s for hit in found if hit.clip == sha("long")] == [0.0]
    (day,) = hours_heard(world.engine, Question(under=("/b",), sun=("day",)), "day")
    assert (day.what, day.n_clips) == ("2024-06-20", 2)


@pytest.mark.slow
def test_together_with_other_conditions(world: World) -> None:
    before_noon = Span(0, 12 * HOUR_MS - 1, is_daily=True)
    assert _names(world, "day", span=before_noon) == "long"
    assert _names(world, "night", sites=("Greenwich",)) == "night"
    assert _names(world, "night", paths=("own.wav",)) == "own"


def test_what_has_no_place_or_start_is_counted(world: World) -> None:
    at_greenwich = file_conditions(Question(sites=("Greenwich",)))
    with reading(world.engine) as conn:
        assert count_without_sun(conn) == 1
        assert count_without_sun(conn, *at_greenwich) == 0
    store_times(world.engine, [SourceTime(path_digest(b"/audio/own.wav"), None, None, "not found")])
    with reading(world.engine) as conn:
        assert count_without_sun(conn) == 2


def test_only_what_is_missing_is_computed(world: World) -> None:
    assert days_without_sun(world.engine) == []
    with reading(world.engine) as conn:
        before = conn.execute(select(func.count()).select_from(sun_periods)).scalar_one()
    (site,) = stored_sites(world.engine)
    later = SourceTime(path_digest(b"/audio/long.wav"), _ms("2024-06-21T23:50"), 0, "name", site.id)
    store_times(world.engine, [later])
    assert [day - days_without_sun(world.engine)[0][2] for *_, day in
            days_without_sun(world.engine)] == [0, 1]  # fmt: skip
    extend_sun(world.engine)
    assert days_without_sun(world.engine) == []
    with reading(world.engine) as conn:
        assert conn.execute(select(func.count()).select_from(sun_periods)).scalar_one() > before


def test_sites_that_move_are_computed_anew(world: World) -> None:
    (site,) = stored_sites(world.engine)
    moved = Site("Greenwich", -51.48, 179.99, id=site.id)
    change_sites(world.engine, lambda _: [moved], NOW)
    extend_sun(world.engine)
    assert _names(world, "night") == "day own"


def test_hours_by_sun(world: World) -> None:
    store_times(world.engine, [SourceTime(path_digest(b"/audio/day.wav"), None, None, "not found")])
    rows = hours_heard(world.engine, Question(under=("/b",)), "sun")
    assert {row.what: row.n_clips for row in rows} == {
        "night": 2, "dawn": 2, "day": 1, "dusk": 1, "unknown": 2,
    }  # fmt: skip
    (only,) = hours_heard(world.engine, Question(under=("/b",), sun=("dusk",)), "sun")
    assert only.what == "dusk"


def test_the_sun_of_each_sound_in_sql(world: World) -> None:
    query = text("SELECT path, start_s, sun FROM sound_times")
    with reading(world.engine) as conn:
        found = {(row.path[7:-4], row.start_s > 0): row.sun for row in conn.execute(query)}
    assert found == {
        ("night", False): "night", ("dawn", False): "dawn", ("day", False): "day",
        ("dusk", False): "dusk", ("long", False): "dawn", ("long", True): "day",
        ("own", False): "night", ("lost", False): None,
    }  # fmt: skip


@pytest.mark.slow
def test_score_files_know_where_the_sun_is_right(world: World) -> None:
    files = {f.path_text: f.spans_s for f in score_files(world.engine, Question(under=("/b",)))}
    assert set(files.values()) == {None}
    asked = Question(under=("/b",), sun=("day",))
    spans = {f.path_text: f.spans_s for f in score_files(world.engine, asked)}
    assert set(spans) == {"/audio/day.wav", "/audio/long.wav"}
    ((begin, end),) = spans["/audio/long.wav"] or ()
    assert begin == 758.0
    assert end > LONG_S


def test_the_query_of_the_documentation(world: World) -> None:
    page = (Path(__file__).parents[3] / "docs" / "sites.md").read_text(encoding="utf-8")
    ((query),) = re.findall(r"```sql\n(.*?)```", page, re.DOTALL)
    with reading(world.engine) as conn:
        hours = {row.phase: float(row.hours) for row in conn.execute(text(query))}
    assert sum(hours.values()) == pytest.approx(24)
    assert hours["day"] == pytest.approx(16.636, abs=0.01)
