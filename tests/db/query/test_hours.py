from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import Engine

from audioset_core.records import Detection
from db.catalog.start_times import SourceTime, store_times
from db.catalog.vanished_files import mark_missing
from db.ledger.claims import claim_clip
from db.query.hours import hours_heard
from db.query.question import Question
from db.query.time_spans import Span
from db.records import Lease
from db.types import path_digest
from tests.db.build import (
    INDEX,
    LEASE_S,
    NOW,
    RUN,
    World,
    clip,
    enrolled,
    labelled,
    make_world,
    seen,
)

HOUR_MS = 3_600_000
# A quarter of an hour before midnight on the recorder's clock, two hours ahead of UTC.
BEGAN_MS = round(datetime(2024, 5, 18, 21, 45, tzinfo=UTC).timestamp() * 1_000)


def _found(mid: str, start: int, end: int, peak: float = 0.9) -> Detection:
    return Detection(INDEX[mid], start, end, peak, peak, start)


@pytest.fixture
def world(fresh_db: Engine) -> World:
    """/b 0-1.44 and 0.96-1.92 s (overlapping) and 1,000 s later; /c 0.48-1.44; /e alone."""
    world = make_world(fresh_db)
    long = [_found("/b", 0, 1), _found("/b", 2, 2), _found("/b", 2_000, 2_000), _found("/c", 1, 1)]
    labelled(world, "long", {"/b": 0.9, "/c": 0.9}, long, duration_s=1_800.0)
    labelled(world, "short", {"/d": 0.6, "/e": 0.9}, [_found("/d", 0, 19, 0.6),
             _found("/e", 0, 0)], duration_s=5.0)  # fmt: skip
    times = [SourceTime(path_digest(b"/audio/long.wav"), BEGAN_MS, 7_200, "name")]
    store_times(fresh_db, times)
    return world


def _seconds(world: World, by: Any, **conditions: Any) -> list[tuple[str, int, float]]:
    question = Question(**{"under": ("/a", "/e")} | conditions)
    rows = hours_heard(world.engine, question, by)
    return [(row.what, row.n_clips, round(row.hours * 3600, 6)) for row in rows]


def test_by_class_overlapping_intervals_count_once(world: World) -> None:
    assert _seconds(world, "class") == [
        ("name /d", 1, 5.0),
        ("name /b", 1, 2.88),
        ("name /c", 1, 0.96),
        ("name /e", 1, 0.96),
    ]


def test_classes_that_are_not_heard_have_a_row(world: World) -> None:
    assert _seconds(world, "class", min_score=0.7, under=("/a",)) == [
        ("name /b", 1, 2.88),
        ("name /c", 1, 0.96),
        ("name /d", 0, 0.0),
    ]


def test_by_branch_classes_that_overlap_count_once(world: World) -> None:
    # /d is below both /b and /c, and counts in each.
    assert _seconds(world, "second-level", under=("/a",)) == [
        ("name /b", 2, 7.88),
        ("name /c", 2, 5.96),
    ]


def test_by_source(world: World) -> None:
    assert _seconds(world, "source") == [("/audio/short.wav", 1, 5.0), ("/audio/long.wav", 1, 2.88)]
    assert _seconds(world, "source", paths=("long.wav",)) == [("/audio/long.wav", 1, 2.88)]


def test_by_day_on_the_clock_of_the_recorder(world: World) -> None:
    # 2,000 patches of 0.48 s are 960 s: past midnight.
    assert _seconds(world, "day") == [
        ("2024-05-18", 1, 1.92),
        ("2024-05-19", 1, 0.96),
        ("unknown", 1, 5.0),
    ]


def _recorded(world: World, path: str, unix_ms: int, offset_s: int = 7_200) -> None:
    """A further file of the long clip, recorded at another time."""
    (item,) = enrolled(world, seen(path))
    claim_clip(
        world.engine, item.source_id, clip("long", 1_800.0), world.variant, Lease(RUN, LEASE_S, NOW)
    )
    times = [SourceTime(path_digest(path.encode()), unix_ms, offset_s, "name")]
    store_times(world.engine, times)


def test_the_same_bytes_at_two_times_count_on_both_days(world: World) -> None:
    before = _seconds(world, "day")
    _recorded(world, "/backup/long.wav", BEGAN_MS)  # a copy of the same recording
    assert _seconds(world, "day") == before
    _recorded(world, "/audio/again.wav", BEGAN_MS + 48 * HOUR_MS)
    assert _seconds(world, "day") == [
        ("2024-05-18", 1, 1.92),
        ("2024-05-19", 1, 0.96),
        ("2024-05-20", 1, 1.92),
        ("2024-05-21", 1, 0.96),
        ("unknown", 1, 5.0),
    ]
    assert [row[0] for row in _seconds(world, "day", paths=("again.wav",))] == [
        "2024-05-20",
        "2024-05-21",
    ]
    later = Span(BEGAN_MS + 48 * HOUR_MS, BEGAN_MS + 49 * HOUR_MS)
    assert [row[0] for row in _seconds(world, "day", span=later)] == ["2024-05-20", "2024-05-21"]
    # A clip counts once where days are no matter, and a path that is gone tells no time.
    assert _seconds(world, "source")[1] == ("/audio/long.wav", 1, 2.88)
    mark_missing(world.engine, [path_digest(b"/audio/again.wav")], NOW)
    assert _seconds(world, "day") == before


def test_in_a_span_only_what_lies_there(world: World) -> None:
    span = Span(BEGAN_MS + 900_000, BEGAN_MS + HOUR_MS)
    assert _seconds(world, "class", span=span)[0] == ("name /b", 1, 0.96)
    assert _seconds(world, "day", span=span) == [("2024-05-19", 1, 0.96)]


def test_nothing_heard(world: World) -> None:
    assert _seconds(world, "source", min_score=1.0) == []
    assert _seconds(world, "second-level", under=("/a",), min_score=1.0) == [
        ("name /b", 0, 0.0),
        ("name /c", 0, 0.0),
    ]
