"""Rows for exports: the same as the views tell, whatever the size of a page."""

from __future__ import annotations

import shutil
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, insert, text, update

from audioset_core.records import Detection
from db.engine import open_engine, reading, writing
from db.errors import DatabaseUserError
from db.query.question import Question
from db.reports.export_rows import classes, labelled, paths, recordings, stands_for_clip
from db.schema.tables import clips, detections, labellings, nodes, sites, sources
from tests.db.build import INDEX, MIDS, NOW, World, enrolled, make_world, seen, sha
from tests.db.build import labelled as commit

# /a over /b and /c; /d is below both; /e stands alone.
COPY = b"/audio/sub/copy of one \xff\n.wav"


def _detection(mid: str, first: int, last: int, peak: float) -> Detection:
    return Detection(INDEX[mid], first, last, peak, peak / 2, first)


@pytest.fixture
def world(fresh_db: Engine) -> World:
    world = make_world(fresh_db)
    found = {"/b": 0.9, "/d": 0.5, "/e": 0.3}
    intervals = [
        _detection("/e", 4, 5, 0.3),
        _detection("/b", 0, 2, 0.9),
        _detection("/b", 7, 19, 0.6),
        _detection("/d", 0, 0, 0.5),
    ]
    commit(world, "one", found, intervals)
    commit(world, "two", {"/e": 0.8}, [_detection("/e", 1, 1, 0.8)])
    commit(world, "silent", {})
    commit(world, "gone", {"/d": 0.7}, [_detection("/d", 3, 3, 0.7)])
    enrolled(world, seen(COPY))
    with writing(fresh_db) as conn:
        copied = update(sources).where(sources.c.path == COPY)
        of = conn.execute(text("SELECT id FROM clips WHERE sha256 = :sha"), {"sha": sha("one")})
        conn.execute(copied.values(clip_id=of.scalar_one(), status="identified", user_id="copy"))
        gone = update(sources).where(sources.c.path == b"/audio/gone.wav")
        conn.execute(gone.values(status="missing"))
    return world


def _heard(engine: Engine, page: int = 500, **asked: Any) -> dict[bytes, list[tuple[str, float]]]:
    with reading(engine) as conn:
        rows = labelled(conn, Question(**{"there_only": True} | asked), page)
        return {row.path: [(e.mid, e.peak) for e in events] for row, events in rows}


ONE = [("/b", 0.9), ("/d", 0.5), ("/e", 0.3), ("/b", 0.6)]


@pytest.mark.parametrize("page", [1, 2, 3, 500])
def test_each_present_recording_with_its_detections_by_start(world: World, page: int) -> None:
    assert _heard(world.engine, page) == {
        b"/audio/one.wav": ONE,
        b"/audio/two.wav": [("/e", 0.8)],
        b"/audio/silent.wav": [],
        COPY: ONE,
    }


@pytest.mark.parametrize("page", [1, 2, 500])
def test_events_that_are_not_read_do_not_shift_the_others(world: World, page: int) -> None:
    with reading(world.engine) as conn:
        found = {}
        for row, events in labelled(conn, Question(there_only=True), page):
            first = next(events, None)
            found[row.path] = first and first.mid
    assert found == {
        b"/audio/one.wav": "/b",
        b"/audio/two.wav": "/e",
        b"/audio/silent.wav": None,
        COPY: "/b",
    }


def test_times_and_scores_are_those_of_the_view(world: World) -> None:
    with reading(world.engine) as conn:
        found = [
            (row.clip, e.mid, e.name, e.start_s, e.end_s, e.peak, e.peak_s, row.model)
            for row, events in labelled(conn, Question())
            for e in events
            if row.path != COPY
        ]
        query = "SELECT clip, mid, name, start_s, end_s, peak, peak_s, model FROM detection_times"
        expected = [tuple(row) for row in conn.execute(text(query))]
    assert len(found) == 6
    assert sorted(found) == sorted(expected)


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"under": ("/e",)}, {b"/audio/one.wav": 1, b"/audio/two.wav": 1, COPY: 1}),
        ({"under": ("/c",)}, {b"/audio/one.wav": 1, COPY: 1}),
        ({"under": ("/c", "/e")}, {b"/audio/one.wav": 2, b"/audio/two.wav": 1, COPY: 2}),
        ({"min_score": 0.6}, {b"/audio/one.wav": 2, b"/audio/two.wav": 1, COPY: 2}),
        ({"not_under": ("/b",)}, {b"/audio/two.wav": 1}),
        ({"not_under": ("/e",), "min_score": 0.5}, {b"/audio/one.wav": 3, COPY: 3}),
        ({"paths": ("/audio/sub/*",)}, {COPY: 4}),
        ({"paths": ("*two*", "sub/*")}, {b"/audio/two.wav": 1, COPY: 4}),
        ({"there_only": False, "under": ("/c",)}, {b"/audio/one.wav": 1, COPY: 1,
                                                    b"/audio/gone.wav": 1}),
        ({"model": "tiny", "under": ("/c",)}, {b"/audio/one.wav": 1, COPY: 1}),
        ({"under": ("/a",), "min_score": 0.95}, {}),
    ],
)  # fmt: skip
def test_conditions(world: World, asked: dict[str, Any], expected: dict[bytes, int]) -> None:
    found = {path: len(events) for path, events in _heard(world.engine, 2, **asked).items()}
    assert {path: n for path, n in found.items() if n} == expected


@pytest.mark.past_ledger
def test_ambiguous_classes_need_company(world: World) -> None:
    """/d stands for Hiss: ambiguous by being below the node of that MID too."""
    with writing(world.engine) as conn:
        conn.execute(update(nodes).where(nodes.c.mid == "/b").values(mid="/t/dd00098"))
    alone = {"under": ("/c",), "paths": ("/audio/one.wav",)}
    assert _heard(world.engine, **alone) == {b"/audio/one.wav": []}
    assert _heard(world.engine, **alone, with_ambiguous=True) == {b"/audio/one.wav": [("/d", 0.5)]}


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"min_score": 0.1}, "ask for at least 0.2"),
        ({"under": ("/zz",)}, "no node '/zz'"),
        ({"not_under": ("/zz",)}, "no node '/zz'"),
        ({"model": "other"}, "no labels by a model called 'other'"),
    ],
)
def test_mistakes(world: World, asked: dict[str, Any], message: str) -> None:
    with pytest.raises(DatabaseUserError, match=message):
        _heard(world.engine, **asked)


def test_classes_are_what_the_model_predicts(world: World) -> None:
    with reading(world.engine) as conn:
        assert classes(conn, Question()) == [(mid, f"name {mid}") for mid in MIDS[1:]]
        assert classes(conn, Question(under=("/b",))) == [("/b", "name /b"), ("/d", "name /d")]
        assert list(paths(conn, Question())) == [row.path for row in recordings(conn, Question())]


def test_parameters_are_json(world: World) -> None:
    with reading(world.engine) as conn:
        row = next(recordings(conn, Question()))
    assert '"patch_hop_s":0.48' in row.parameters
    assert (row.model, row.model_version, row.n_patches) == ("tiny", "1", 20)


def _fill(engine: Engine, n_clips: int, n_detections: int) -> None:
    """Clips of which the first is long: it alone has half of all detections."""
    world = make_world(engine)
    commit(world, "seed", {"/b": 0.9})
    with writing(engine) as conn:
        clip, source, labelling = (
            dict(conn.execute(table.select()).mappings().one())
            for table in (clips, sources, labellings)
        )
        node = conn.execute(nodes.select().where(nodes.c.mid == "/b")).one().id
        ids = range(10, 10 + n_clips)
        conn.execute(insert(clips), [clip | {"id": n, "sha256": sha(str(n))} for n in ids])
        conn.execute(
            insert(sources),
            [
                source | {"id": n, "clip_id": n, "path": b"/x/%d.wav" % n,
                          "path_digest": b"%016d" % n, "path_text": f"/x/{n}.wav"}
                for n in ids
            ],
        )  # fmt: skip
        conn.execute(insert(labellings), [labelling | {"id": n, "clip_id": n} for n in ids])
        shares = [n_detections // 2, *[n_detections // 2 // (n_clips - 1)] * (n_clips - 1)]
        rows = [
            {"labelling_id": n, "node_id": node, "start_patch": k, "end_patch": k,
             "peak": 0.5, "mean": 0.5, "peak_patch": k}
            for n, share in zip(ids, shares, strict=True)
            for k in range(share)
        ]  # fmt: skip
        conn.execute(insert(detections), rows)


@pytest.fixture
def two_engines(sqlite_template: Path, tmp_path: Path) -> Iterator[list[Engine]]:
    """SQLite: tracemalloc sees what the driver of PostgreSQL holds no better."""
    found = []
    for name in ("small", "large"):
        shutil.copy(sqlite_template, tmp_path / name)
        found.append(open_engine(f"sqlite:///{tmp_path / name}"))
    yield found
    for engine in found:
        engine.dispose()


@pytest.mark.slow
def test_memory_does_not_grow_with_the_collection(two_engines: list[Engine]) -> None:
    """Ten times the recordings and detections, the same memory (the first recording has half)."""
    from audioset_core.export_formats.delimited import csv_texts, dcase_texts
    from audioset_core.export_formats.file_names import common_folder

    peaks, n_lines = [], []
    for engine, times in zip(two_engines, (1, 10), strict=True):
        _fill(engine, 600 * times, 6_000 * times)
        for texts in (csv_texts, dcase_texts):
            tracemalloc.start()
            with reading(engine) as conn:
                root = common_folder(paths(conn, Question()))
                n_lines.append(sum(1 for _ in texts(labelled(conn, Question()), root)))
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
    assert n_lines[2] > 9 * n_lines[0]
    # One page of recordings and one of rows; the first run also fills caches.
    assert max(peaks[2:]) < max(peaks[:2]) + 2**20


def test_the_first_file_with_a_site_and_a_start_stands_for_its_clip(world: World) -> None:
    with writing(world.engine) as conn:
        names = [{"id": n, "name": f"site {n}"} for n in (1, 2)]
        where = {"latitude_deg": 1.5, "longitude_deg": 2.5, "added_at": NOW}
        conn.execute(insert(sites), [each | where for each in names])

    def place(path: bytes, site: int | None, start: int | None) -> None:
        with writing(world.engine) as conn:
            its = update(sources).where(sources.c.path == path)
            conn.execute(its.values(site_id=site, recorded_unix_ms=start))

    def chosen(is_true: bool, **asked: Any) -> list[tuple[bytes, str | None]]:
        question = Question(**asked)
        only = stands_for_clip(question, is_true=is_true)
        with reading(world.engine) as conn:
            return [(row.path, row.site) for row in recordings(conn, question, only=only)]

    one, two, silent = b"/audio/one.wav", b"/audio/two.wav", b"/audio/silent.wav"
    gone = b"/audio/gone.wav"
    assert chosen(True) == []
    place(one, 1, None)
    place(COPY, 2, 1_000)
    place(two, None, 1_000)
    place(gone, 1, 1_000)
    assert chosen(True) == [(gone, "site 1"), (COPY, "site 2")]
    assert chosen(False) == [(one, "site 1"), (two, None), (silent, None)]
    place(one, 1, 2_000)
    assert chosen(True) == [(one, "site 1"), (gone, "site 1")]
    assert chosen(True, sites=("site 2",)) == [(COPY, "site 2")]
    place(one, 99, 2_000)  # a site that was removed
    assert chosen(True) == [(gone, "site 1"), (COPY, "site 2")]


def test_each_detection_tells_who_heard_it(world: World) -> None:
    with reading(world.engine) as conn:
        events = [event for _, its in labelled(conn, Question()) for event in its]
    assert {(e.model, e.model_version, e.labelled_at) for e in events} == {("tiny", "1", NOW)}
