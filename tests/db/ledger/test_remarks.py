"""Remarks of a labelling: stored with it, shown, exported, and gone with it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from sqlalchemy import Engine, delete, func, select, text

from audioset_core.records import Detection
from db.catalog.sources import triage
from db.engine import reading, writing
from db.ledger.claims import commit_labellings
from db.query.question import Question
from db.records import Failure, FileState, Remark, Triaged
from db.reports import clip as reports
from db.reports import export_rows as exports
from db.schema.tables import labelling_remarks, labellings, sources
from tests.db.build import INDEX, NOW, RUN, World, claimed, labelling, make_world, seen, sha

GAP = Remark("gap", "nothing is there; silence stands for it", 5.0, 9.5)
TRACKS = Remark("tracks", "track 1 of 2 is labelled, not 2 (aac)")
DETECTION = Detection(INDEX["/b"], 0, 2, 0.9, 0.5, 1)


@pytest.fixture
def world(fresh_db: Engine) -> World:
    made = make_world(fresh_db)
    batch = [
        replace(
            labelling(claimed(made, "partial"), "partial", {"/b": 0.9}, [DETECTION]),
            is_partial=True,
            remarks=(GAP, TRACKS),
        ),
        labelling(claimed(made, "whole"), "whole", {"/b": 0.9}, [DETECTION]),
    ]
    assert commit_labellings(fresh_db, made.variant, batch, RUN, NOW) == [True, True]
    return made


def test_the_view_tells_each_remark_of_each_file(world: World) -> None:
    with reading(world.engine) as conn:
        rows = conn.execute(text("SELECT * FROM remarks ORDER BY start_s IS NULL")).mappings().all()
    path, clip = "/audio/partial.wav", sha("partial")
    about = {"path": path, "clip": clip, "model": "tiny"}
    assert [{**row, "is_partial": bool(row["is_partial"])} for row in rows] == [
        {**about, "kind": r.kind, "detail": r.detail, "start_s": r.start_s, "end_s": r.end_s,
         "is_partial": True}
        for r in (GAP, TRACKS)
    ]  # fmt: skip


def test_reports_and_exports_tell_them(world: World) -> None:
    report = reports.clip_by_ref(world.engine, sha("partial"))
    assert (report.remarks, report.labellings[0].is_partial) == ((GAP, TRACKS), True)
    assert reports.clip_by_ref(world.engine, sha("whole")).remarks == ()
    predicted = {row.clip: row for row in reports.prediction_rows(world.engine)}
    assert (predicted[sha("partial")].remarks, predicted[sha("whole")].remarks) == (
        (GAP, TRACKS),
        (),
    )
    assert not predicted[sha("whole")].is_partial
    with reading(world.engine) as conn:
        rows = {row.clip: row for row in exports.recordings(conn, Question())}
    assert rows[sha("partial")].is_partial
    assert rows[sha("partial")].remarks == (
        "gap at 5.00-9.50 s: nothing is there; silence stands for it; "
        "tracks: track 1 of 2 is labelled, not 2 (aac)"
    )
    assert (rows[sha("whole")].is_partial, rows[sha("whole")].remarks) == (False, "")


@pytest.mark.past_ledger
def test_they_go_with_their_labelling(world: World) -> None:
    with writing(world.engine) as conn:
        conn.execute(delete(labellings))
        assert conn.execute(select(func.count()).select_from(labelling_remarks)).scalar() == 0


def test_what_who_is_strict_refused_is_worth_another_try(world: World) -> None:
    from db.ledger.claims import record_failures

    claims = {end: claimed(world, f"refused{end}") for end in ("; refused by --strict", "")}
    record_failures(
        world.engine,
        [Failure(c.source_id, "damaged", f"spoilt{end}", c) for end, c in claims.items()],
        NOW,
    )
    with reading(world.engine) as conn:
        assert conn.execute(select(func.count()).where(sources.c.status == "failed")).scalar() == 2
        for ending, expected in (
            (None, FileState.FAILED),
            ("; refused by --strict", FileState.RETRY),
        ):
            found = triage(
                conn,
                [world.variant],
                [seen(f"/audio/refused{end}.wav") for end in claims],
                frozenset(),
                ending,
            )
            assert found == [Triaged(expected), Triaged(FileState.FAILED)]
