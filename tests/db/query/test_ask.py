"""Questions with every condition, on a small collection whose answers are known."""

from __future__ import annotations

import glob as globs
import re
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text

from audioset_core.records import Detection
from db.catalog.start_times import SourceTime, store_times
from db.engine import reading
from db.errors import DatabaseUserError
from db.query import find as ask
from db.query.current_labelling import represents_clip
from db.query.find import few_clips, find_clips, find_intervals
from db.query.paths import as_glob, glob_regex
from db.query.question import Question
from db.query.statements import intervals_query
from db.query.subtrees import Subtree
from db.query.time_spans import Span
from db.query.totals import totals_by_mid
from db.schema.base import metadata
from db.types import path_digest
from tests.db.build import INDEX, World, labelled, make_world, sha

HOUR_MS = 3_600_000
DAY = datetime(2024, 5, 18, tzinfo=UTC)
DAY_MS = round(DAY.timestamp() * 1_000)


def _found(mid: str, start: int, end: int, peak: float) -> Detection:
    return Detection(INDEX[mid], start, end, peak, peak, start)


@pytest.fixture
def world(fresh_db: Engine) -> World:
    """Three recordings: dawn and dusk with known starts, lost without."""
    world = make_world(fresh_db)
    labelled(
        world, "dawn", {"/b": 0.9, "/e": 0.4},
        [_found("/b", 0, 0, 0.9), _found("/b", 10, 15, 0.6), _found("/e", 0, 19, 0.4)],
    )  # fmt: skip
    labelled(world, "dusk", {"/b": 0.7, "/c": 0.8},
             [_found("/b", 2, 4, 0.7), _found("/c", 3, 3, 0.8)])  # fmt: skip
    labelled(world, "lost", {"/c": 0.5, "/e": 0.95}, [_found("/c", 0, 1, 0.5),
             _found("/e", 5, 5, 0.95)])  # fmt: skip
    begins = {"dawn": 4 * HOUR_MS + 1_000, "dusk": 20 * HOUR_MS}
    rows = [
        SourceTime(path_digest(f"/audio/{name}.wav".encode()), DAY_MS + ms, 7_200, "name")
        for name, ms in begins.items()
    ]
    store_times(fresh_db, rows)
    return world


def _names(hits: list[Any]) -> list[tuple[str, str, float]]:
    of = {sha(name): name for name in ("dawn", "dusk", "lost")}
    return [(of[hit.clip], hit.mid, hit.score) for hit in hits]


def _daily(first: float, last: float) -> Span:
    return Span(round(first * HOUR_MS), round(last * HOUR_MS), is_daily=True)


DAWN, DUSK, LOST = ("dawn", "/b", 0.9), ("dusk", "/c", 0.8), ("lost", "/c", 0.5)


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        ({}, [DAWN, DUSK, LOST]),
        ({"under": ("/e", "/c")}, [("lost", "/e", 0.95), DUSK, ("dawn", "/e", 0.4)]),
        ({"under": ("/e", "/c"), "limit": 1}, [("lost", "/e", 0.95)]),
        ({"under": ("/b", "/a", "/b")}, [DAWN, DUSK, LOST]),
        ({"all_of": ("/e",)}, [DAWN, LOST]),
        ({"all_of": ("/e", "/b")}, [DAWN]),
        ({"all_of": ("/b", "/c")}, [DUSK]),
        ({"all_of": ("/e",), "min_score": 0.5}, [LOST]),
        ({"all_of": ("/e",), "not_under": ("/c",)}, [DAWN]),
        ({"not_under": ("/e",), "min_score": 0.5}, [DAWN, DUSK]),
        ({"paths": ("*/d*.wav",)}, [DAWN, DUSK]),
        ({"paths": ("/audio/dusk.wav", "lost.*")}, [DUSK, LOST]),
        ({"paths": ("audio",), "limit": 2}, [DAWN, DUSK]),
        ({"paths": ("*.flac",)}, []),
        # One patch lasts 0.96 s, three 1.92.
        ({"min_duration_s": 1.9}, [("dusk", "/b", 0.7), ("dawn", "/b", 0.6)]),
        ({"min_duration_s": 1.0}, [("dusk", "/b", 0.7), ("dawn", "/b", 0.6), LOST]),
        ({"min_duration_s": 1.0, "limit": 1}, [("dusk", "/b", 0.7)]),
        ({"span": Span(DAY_MS, DAY_MS + 24 * HOUR_MS)}, [DAWN, DUSK]),
        ({"span": Span(DAY_MS + 20 * HOUR_MS + 2_000, 2 * DAY_MS)}, [DUSK]),
        ({"span": Span(DAY_MS, DAY_MS + 4 * HOUR_MS + 1_500)}, [DAWN]),
        # Only the second interval lies there: 10 patches of 0.48 s after 04:00:01 UTC.
        ({"span": Span(DAY_MS + 4 * HOUR_MS + 4_000, DAY_MS + 5 * HOUR_MS)}, [("dawn", "/b", 0.6)]),
        # The recorders' clocks are two hours ahead of UTC.
        ({"span": _daily(6, 7)}, [DAWN]),
        ({"span": _daily(4, 5)}, []),
        ({"span": _daily(21, 3)}, [DUSK]),
        ({"span": _daily(0, 0)}, [DAWN, DUSK]),
        ({"span": _daily(22.0005, 23)}, [("dusk", "/c", 0.8)]),
        ({"span": _daily(6, 7), "paths": ("dusk.wav",)}, []),
        ({"order": "path"}, [DAWN, DUSK, LOST]),
        ({"order": "time", "under": ("/c",)}, [DUSK, LOST]),
        ({"order": "duration", "limit": 2}, [LOST, DAWN]),
    ],
)
def test_clips(world: World, conditions: dict[str, Any], expected: list[Any]) -> None:
    question = Question(**{"under": ("/a",)} | conditions)
    assert _names(find_clips(world.engine, question)) == expected


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        ({}, [("dawn", 0.0), ("dusk", 1.44), ("dusk", 0.96), ("dawn", 4.8), ("lost", 0.0)]),
        ({"limit": 2}, [("dawn", 0.0), ("dusk", 1.44)]),
        ({"min_score": 0.7}, [("dawn", 0.0), ("dusk", 1.44), ("dusk", 0.96)]),
        ({"min_duration_s": 1.9}, [("dusk", 0.96), ("dawn", 4.8)]),
        ({"order": "duration", "limit": 3}, [("dawn", 4.8), ("dusk", 0.96), ("lost", 0.0)]),
        (
            {"order": "time"},
            [("dawn", 0.0), ("dawn", 4.8), ("dusk", 0.96), ("dusk", 1.44), ("lost", 0.0)],
        ),
        ({"order": "path", "limit": 3}, [("dawn", 0.0), ("dawn", 4.8), ("dusk", 0.96)]),
        ({"all_of": ("/e",), "under": ("/b",)}, [("dawn", 0.0), ("dawn", 4.8)]),
    ],
)
def test_intervals(world: World, conditions: dict[str, Any], expected: list[Any]) -> None:
    hits = find_intervals(world.engine, Question(**{"under": ("/a",)} | conditions))
    got = [(name, hit.start_s) for (name, _, _), hit in zip(_names(hits), hits, strict=True)]
    assert got == [(name, pytest.approx(start)) for name, start in expected]


def test_a_hit_tells_the_time_on_the_wall(world: World) -> None:
    hits = find_intervals(world.engine, Question(under=("/b",), order="time"))
    assert [str(hit.heard_at) for hit in hits] == [
        "2024-05-18 06:00:01+02:00",
        "2024-05-18 06:00:05.800000+02:00",
        "2024-05-18 22:00:00.960000+02:00",
    ]
    assert str(hits[1].recorded_at) == "2024-05-18 06:00:01+02:00"
    (lost,) = find_clips(world.engine, Question(under=("/c",), paths=("lost.wav",)))
    assert (lost.recorded_at, lost.heard_at) == (None, None)


def test_intervals_below_what_is_stored_are_refused(world: World) -> None:
    with pytest.raises(DatabaseUserError, match=r"intervals below 0.2 are not stored"):
        find_intervals(world.engine, Question(under=("/a",), min_score=0.1))
    with pytest.raises(DatabaseUserError, match="nothing is asked for"):
        find_clips(world.engine, Question(under=()))


def test_a_length_does_not_depend_on_where_it_begins(fresh_db: Engine) -> None:
    """Products of 0.48 are rounded: some of these intervals come to a little less than 1.44."""
    world = make_world(fresh_db)
    starts = range(0, 120, 3)
    labelled(world, "a", {"/b": 0.9}, [_found("/b", n, n + 1, 0.9) for n in starts],
             duration_s=100.0)  # fmt: skip
    short = [n for n in starts if (n + 1) * 0.48 + 0.96 - n * 0.48 < 1.44]
    assert short
    asked = Question(under=("/b",), min_duration_s=1.44)
    assert len(find_intervals(fresh_db, asked)) == len(starts)
    longer = Question(under=("/b",), min_duration_s=1.441)
    assert find_intervals(fresh_db, longer) == []


@pytest.mark.parametrize(
    ("glob", "fitting", "other"),
    [
        ("*.wav", "/a/b.wav", "/a/b.wave"),
        ("site?/x", "/r/site1/x", "/r/site12/x"),
        ("/a", "/a/b/c.wav", "/ab/c.wav"),
        ("/a/", "/a/b.wav", "/b/a/x"),
        ("b[0-9].wav", "/a/b1.wav", "/a/bx.wav"),
        ("b[!0-9].wav", "/a/bx.wav", "/a/b1.wav"),
        ("b[].wav", "/b[].wav", "/b.wav"),
        ("a.b", "/x/a.b", "/x/a+b"),
        ("[^a]^$.(+)", "/^^$.(+)", "/b^$.(+)"),
    ],
)
def test_globs(fresh_db: Engine, glob: str, fitting: str, other: str) -> None:
    assert re.search(glob_regex(glob), fitting)
    assert not re.search(glob_regex(glob), other)
    if fresh_db.dialect.name == "postgresql":
        query = text("SELECT :fitting ~ :glob, :other ~ :glob")
        given = {"glob": glob_regex(glob), "fitting": fitting, "other": other}
        with reading(fresh_db) as conn:
            assert tuple(conn.execute(query, given).one()) == (True, False)


def test_a_range_that_runs_backwards_is_no_glob() -> None:
    with pytest.raises(DatabaseUserError, match=r"'\[z-a\]' is not a valid pattern"):
        glob_regex("[z-a]")


@pytest.mark.parametrize(
    ("path", "glob"),
    [
        ("site-3/*", "site-3/*"),
        ("site-3/", "site-3"),
        ("/data//x/../y", "/data/y"),
        ("./a", "{here}/a"),
        (".", "{here}"),
        ("../b/*.wav", "{above}/b/*.wav"),
        ("~/c?", "/home/o[[]1]/c?"),
        ("~nobody-here/c", "~nobody-here/c"),
        ("rec[[]1].wav", "rec[[]1].wav"),
        ("./rec[1].wav", "{here}/rec[[]1].wav"),
        ("rec[1].wav", "rec[[]1].wav"),
        ("rec[2].wav", "rec[2].wav"),
        ("~/rec*", "/home/o[[]1]/rec*"),
        ("*.w\udcffv", "*.w\\xffv"),
    ],
)
def test_what_a_person_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, glob: str
) -> None:
    here = tmp_path / "in [2024]"
    here.mkdir()
    (here / "rec[1].wav").touch()
    monkeypatch.chdir(here)
    monkeypatch.setenv("HOME", "/home/o[1]")
    places = {"here": globs.escape(str(here)), "above": globs.escape(str(tmp_path))}
    assert as_glob(path) == glob.format(**places)


@pytest.mark.parametrize("find", [find_clips, find_intervals])
@pytest.mark.parametrize("order", ["score", "time", "duration", "path"])
def test_pages_put_together_are_the_whole_answer(world: World, find: Any, order: Any) -> None:
    question = Question(under=("/a", "/e"), order=order)
    whole = find(world.engine, question)
    assert len(whole) >= 3
    for size in (1, 2):
        pages = [
            find(world.engine, replace(question, limit=size, offset=start))
            for start in range(0, len(whole) + size, size)
        ]
        assert [hit for page in pages for hit in page] == whole
        assert pages[-1] == []
    assert find(world.engine, replace(question, limit=None, offset=2)) == whole[2:]


def test_an_order_can_be_of_the_best_alone(world: World) -> None:
    def found(**conditions: Any) -> list[Any]:
        return _names(find_clips(world.engine, Question(under=("/a",), **conditions)))

    assert found(order="time", among=2) == [DAWN, DUSK]
    assert found(order="duration", among=2) == [DAWN, DUSK]
    assert found(order="duration", among=2, limit=1, offset=1) == [DUSK]
    assert found(order="duration", among=3) == found(order="duration", among=9)
    assert found(order="duration", among=9)[0] == LOST
    assert found(order="score", among=1) == [DAWN, DUSK, LOST]


def test_clips_are_counted_by_hundredths_of_the_score(world: World) -> None:
    counted = totals_by_mid(world.engine, ["/a", "/e", "/d", "/none"], 0.5)
    assert {mid: (total.n_clips, total.is_least) for mid, total in counted.items()} == {
        "/a": (3, False), "/e": (1, False), "/d": (0, False),
    }  # fmt: skip
    between = totals_by_mid(world.engine, ["/a", "/d"], 0.4999)
    assert between["/a"] == replace(counted["/a"], is_least=True)
    assert between["/d"].is_least


def test_days_can_be_narrowed_to_times_of_the_day(world: World) -> None:
    days = Span(DAY_MS, DAY_MS + 24 * HOUR_MS)
    for daily, expected in ((_daily(6, 7), [DAWN]), (_daily(21, 3), [DUSK]), (_daily(8, 9), [])):
        span = replace(days, each_day=daily)
        assert _names(find_clips(world.engine, Question(under=("/a",), span=span))) == expected
        other_days = Span(0, DAY_MS, each_day=daily)
        assert not find_clips(world.engine, Question(under=("/a",), span=other_days))


def test_an_empty_path_means_no_file() -> None:
    with pytest.raises(DatabaseUserError, match="an empty path means no file"):
        as_glob("")


def test_intervals_are_sought_by_index(world: World) -> None:
    if world.engine.dialect.name != "sqlite":
        pytest.skip("the plan is SQLite's; PostgreSQL reads a small table whole")
    question = Question(under=("/a",), span=Span(0, 1), min_duration_s=1.0)
    query = intervals_query(Subtree((1, 2, 3)), 0.5, represents_clip(None), question)
    compiled = query.compile(world.engine, compile_kwargs={"literal_binds": True})
    with reading(world.engine) as conn:
        plan = [row[3] for row in conn.execute(text(f"EXPLAIN QUERY PLAN {compiled}"))]
    index = "ix_clip_scores_node_id_peak_labelling_id (node_id=? AND peak>?)"
    assert sum(index in line for line in plan) == 1
    scanned = {line.split()[1] for line in plan if line.startswith("SCAN")}
    assert not scanned & set(metadata.tables)


def test_a_short_span_is_sought_by_the_time_of_recording(world: World) -> None:
    if world.engine.dialect.name != "sqlite":
        pytest.skip("the plan is SQLite's; PostgreSQL reads a small table whole")
    question = Question(under=("/a",), span=Span(DAY_MS, DAY_MS + HOUR_MS))
    with reading(world.engine) as conn:
        within = few_clips(conn, question)
        assert within is not None
        query = intervals_query(Subtree((1, 2, 3)), 0.5, represents_clip(None), question, within)
        compiled = query.compile(world.engine, compile_kwargs={"literal_binds": True})
        plan = [row[3] for row in conn.execute(text(f"EXPLAIN QUERY PLAN {compiled}"))]
    lines = "\n".join(plan)
    assert (
        "ix_sources_recorded_unix_ms_clip_id (recorded_unix_ms>? AND recorded_unix_ms<?)" in lines
    )
    assert "ix_clip_scores_node_id" not in lines
    scanned = {line.split()[1] for line in plan if line.startswith("SCAN")}
    assert not scanned & set(metadata.tables)


@pytest.mark.parametrize("most", [0, 1, 10])
def test_few_clips_or_many_the_answer_is_the_same(
    world: World, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    monkeypatch.setattr(ask, "_FEW_CLIPS", most)
    day = Span(DAY_MS, DAY_MS + 24 * HOUR_MS)
    assert _names(find_clips(world.engine, Question(under=("/a",), span=day))) == [DAWN, DUSK]
    # A recording that began before the span reaches into it.
    late = Span(DAY_MS + 4 * HOUR_MS + 10_000, DAY_MS + 5 * HOUR_MS)
    (hit,) = find_clips(world.engine, Question(under=("/e",), span=late))
    assert hit.path_text == "/audio/dawn.wav"


def test_an_older_model_can_be_asked(world: World) -> None:
    question = Question(under=("/a",), model="tiny", span=Span(DAY_MS, 2 * DAY_MS))
    assert _names(find_clips(world.engine, question)) == [DAWN, DUSK]
    with pytest.raises(DatabaseUserError, match="known models: tiny"):
        find_clips(world.engine, replace(question, model="other"))
