from __future__ import annotations

import pytest
from sqlalchemy import Engine

from audioset_core.records import Detection
from db.catalog.start_times import SourceTime, store_times
from db.ledger.claims import claim_clip
from db.records import Lease
from db.reports.collection import (
    branch_days,
    failure_reasons,
    node_hours,
    ontology_edges,
    places,
    recorded_days,
)
from db.reports.score_curves import score_curves
from db.types import path_digest
from tests.db.build import (
    EDGES,
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
    sha,
)


@pytest.fixture
def world(fresh_db: Engine) -> World:
    return make_world(fresh_db)


def _heard(mid: str, start: int, end: int, peak: float) -> Detection:
    return Detection(INDEX[mid], start, end, peak, peak / 2, start)


def _two_clips(world: World) -> None:
    labelled(
        world, "one", {"/b": 0.9, "/d": 0.8},
        [_heard("/b", 0, 4, 0.9), _heard("/d", 3, 8, 0.8), _heard("/d", 15, 19, 0.3)],
    )  # fmt: skip
    labelled(world, "two", {"/c": 0.6}, [_heard("/c", 0, 0, 0.6)])


def test_hours_below_a_node_are_the_union_of_its_intervals(world: World) -> None:
    _two_clips(world)
    found = {n.mid: (round(n.hours * 3600, 6), n.n_clips) for n in node_hours(world.engine, 0.5)}
    # Patch k covers 0.48 k to 0.48 k + 0.96; /d is below /b and /c, all below /a.
    assert found == {"/a": (5.76, 2), "/b": (4.8, 1), "/c": (4.32, 2), "/d": (3.36, 1)}
    low = {n.mid: round(n.hours * 3600, 6) for n in node_hours(world.engine, 0.2)}
    assert low["/d"] == 6.16  # the second interval ends with the clip, at 10 s


def test_days_by_time_of_change(world: World) -> None:
    _two_clips(world)
    (day,) = recorded_days(world.engine)
    assert (day.day, day.n_clips) == (0, 2)
    assert day.hours == pytest.approx(20 / 3600)
    assert branch_days(world.engine, ["/a", "/d", "/e"], 0.5) == {
        "/a": [(0, 2)], "/d": [(0, 1)], "/e": []
    }  # fmt: skip


def test_a_clip_recorded_at_two_times_counts_on_both_days(world: World) -> None:
    _two_clips(world)
    day_ms = 86_400_000
    for path, at_ms in (("/audio/one.wav", 3 * day_ms), ("/copy/one.wav", 3 * day_ms),
                        ("/audio/again.wav", 5 * day_ms + 1)):  # fmt: skip
        (item,) = enrolled(world, seen(path))
        claim_clip(
            world.engine, item.source_id, clip("one"), world.variant, Lease(RUN, LEASE_S, NOW)
        )
        store_times(world.engine, [SourceTime(path_digest(path.encode()), at_ms, 0, "name")])
    found = [(day.day, day.n_clips) for day in recorded_days(world.engine)]
    assert found == [(0, 1), (3, 1), (5, 1)]
    assert branch_days(world.engine, ["/d"], 0.5) == {"/d": [(3, 1), (5, 1)]}


def test_places_edges_and_no_failures(world: World) -> None:
    _two_clips(world)
    (place,) = places(world.engine, sha("one"))
    assert (place.path, place.size_bytes, place.mtime_ns) == (b"/audio/one.wav", 1_000, 7)
    assert set(ontology_edges(world.engine)) == set(EDGES)
    assert failure_reasons(world.engine) == []


def test_curves_count_clips_per_score(world: World) -> None:
    _two_clips(world)
    labelled(world, "three", {"/d": 0.6})
    whole, *classes = score_curves(world.engine, "/a", 0.5)
    assert (whole.scores, whole.n_clips) == ((0.9, 0.6), (1, 2))
    assert [(c.mid, c.scores, c.n_clips) for c in classes] == [
        ("/d", (0.8, 0.6), (1, 1)), ("/b", (0.9,), (1,)), ("/c", (0.6,), (1,)),
    ]  # fmt: skip
    assert classes[1].hours == pytest.approx(2.88 / 3600)
    assert whole.clips_at_least(0.7) == 1
