"""The best or random sounds of each class, on both databases."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import Engine, update

from audioset_core.records import Detection
from db.answer_records import HeardSound
from db.engine import writing
from db.query.find import find_sounds
from db.query.question import Question
from db.query.time_spans import Span
from db.schema.tables import sources
from tests.db.build import INDEX, World, labelled, make_world, sha


def _found(mid: str, start: int, end: int, peak: float) -> Detection:
    return Detection(INDEX[mid], start, end, peak, peak, start)


@pytest.fixture
def world(fresh_db: Engine) -> World:
    """Patches of 0.96 s every 0.48 s: two detections with one patch between them touch."""
    world = make_world(fresh_db)
    labelled(
        world, "one", {"/b": 0.9, "/c": 0.6},
        [_found("/b", 0, 1, 0.5), _found("/b", 3, 4, 0.9), _found("/b", 7, 7, 0.7),
         _found("/c", 3, 19, 0.6)],
    )  # fmt: skip
    labelled(
        world, "two", {"/b": 0.8, "/d": 0.8}, [_found("/b", 0, 0, 0.8), _found("/d", 2, 2, 0.8)]
    )
    return world


def _sounds(world: World, most: int = 9, *how: Any, **more: Any) -> list[tuple[Any, ...]]:
    question = Question(**{"under": ("/a",), **more})
    names = {sha(name): name for name in ("one", "two")}
    return [
        (s.mid, names[s.clip], s.score, s.start_s, s.end_s)
        for s in find_sounds(world.engine, question, most, *how)
    ]


B1, B2 = ("/b", "one", 0.9, 0.0, 2.88), ("/b", "one", 0.7, 3.36, 4.32)
B3 = ("/b", "two", 0.8, 0.0, 0.96)
C, D = ("/c", "one", 0.6, 1.44, 10.0), ("/d", "two", 0.8, 0.96, 1.92)


def test_detections_that_touch_are_one_sound(world: World) -> None:
    assert set(_sounds(world)) == {B1, B2, B3, C, D}
    assert _sounds(world) == sorted(_sounds(world), key=lambda s: (s[0], sha(s[1]), s[3]))
    # Where one of the two does not reach the score, it is no part of the sound.
    assert set(_sounds(world, min_score=0.75)) == {("/b", "one", 0.9, 1.44, 2.88), B3, D}


@pytest.mark.slow
def test_the_best_of_each_class(world: World) -> None:
    assert set(_sounds(world, 1)) == {B1, C, D}
    assert set(_sounds(world, 2)) == {B1, B3, C, D}


@pytest.mark.slow
def test_random_ones_are_the_same_for_a_seed(world: World) -> None:
    drawn = [_sounds(world, 1, "random", seed) for seed in range(12)]
    assert drawn == [_sounds(world, 1, "random", seed) for seed in range(12)]
    assert {sounds[0] for sounds in drawn} == {B1, B2, B3}
    assert all({C, D} < set(sounds) for sounds in drawn)


@pytest.mark.slow
def test_with_other_conditions(world: World) -> None:
    assert _sounds(world, min_duration_s=5.0) == [C]
    assert set(_sounds(world, paths=("two.wav",))) == {B3, D}
    with writing(world.engine) as conn:
        conn.execute(update(sources).where(sources.c.path_text.like("%one%"))
                     .values(recorded_unix_ms=1_000_000))  # fmt: skip
    assert set(_sounds(world, span=Span(1_003_400, 1_004_000))) == {B2, C}


@pytest.mark.slow
def test_what_is_told_of_the_recording(world: World) -> None:
    question = Question(under=("/d",))
    assert find_sounds(world.engine, question, 1) == [
        HeardSound(sha("two"), "/d", "name /d", 0.8, 0.96, 1.92, 160_000, 16_000, 1, "wav",
                   "tiny", "1", False, "default")
    ]  # fmt: skip
