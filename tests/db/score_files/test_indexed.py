"""Which files an index has to hold, and how those of later runs are found, on both databases."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from sqlalchemy import Engine, update

from db.engine import writing
from db.ledger.runs import finish_run, start_run
from db.records import RunCounts, RunStatus
from db.schema.tables import labellings
from db.score_files.indexed import (
    Series,
    clips_by_labelling,
    finished_runs,
    iter_files,
    iter_files_of_other_runs,
    series_to_compare,
)
from tests.db.build import NOW, RUN, claimed, labelled, make_world, sha

LATER = "00000000-0000-0000-0000-000000000002"
NONE_DONE = RunCounts(0, 0, 0, 0, 0.0)


def _set(engine: Engine, labelling_id: int, **values: object) -> None:
    with writing(engine) as conn:
        conn.execute(update(labellings).where(labellings.c.id == labelling_id).values(values))


def _others(engine: Engine, series: Series, known: Sequence[str]) -> list[tuple[int, str]]:
    found = iter_files_of_other_runs(engine, series, lambda runs: [r in known for r in runs])
    return sorted(found)


def test_files_are_told_by_series_and_by_run(fresh_db: Engine) -> None:
    world = make_world(fresh_db)
    start_run(fresh_db, LATER, "host", 1, {}, NOW)
    ids = [labelled(world, name, {}).labelling_id for name in ("a", "b", "c")]
    claimed(world, "d")
    (scores,) = series_to_compare(fresh_db)
    assert (scores.model, scores.kind, scores.width) == ("tiny@1", "scores", 4)
    paths = [f"tiny/{sha(name)[:2]}/{sha(name)}.npy" for name in ("a", "b", "c")]
    files = list(zip(ids, paths, strict=True))
    assert list(iter_files(fresh_db, scores)) == files
    assert _others(fresh_db, scores, []) == files
    assert _others(fresh_db, scores, [RUN]) == []
    _set(fresh_db, ids[1], run_id=LATER)
    _set(fresh_db, ids[2], run_id=None)
    assert _others(fresh_db, scores, [RUN]) == files[1:]
    assert clips_by_labelling(fresh_db, scores, [*ids[:2], 10**6]) == {
        ids[0]: (sha("a"), paths[0]),
        ids[1]: (sha("b"), paths[1]),
    }
    _set(fresh_db, ids[0], embeddings_path="a.npy")
    embeddings, scores = series_to_compare(fresh_db, "tiny")
    assert (embeddings.kind, list(iter_files(fresh_db, embeddings))) == (
        "embeddings", [(ids[0], "a.npy")],
    )  # fmt: skip
    assert list(iter_files(fresh_db, scores)) == files, "all that have scores"
    _set(fresh_db, ids[0], status="claimed")
    assert clips_by_labelling(fresh_db, scores, ids[:1]) == {}


def test_only_a_run_that_cannot_come_back_is_finished(fresh_db: Engine) -> None:
    make_world(fresh_db)
    start_run(fresh_db, LATER, "host", 1, {}, NOW)
    assert finished_runs(fresh_db, NOW) == []
    finish_run(fresh_db, RUN, RunStatus.COMPLETED, NONE_DONE, {}, NOW)
    finish_run(fresh_db, LATER, RunStatus.CRASHED, NONE_DONE, {}, NOW)
    assert finished_runs(fresh_db, NOW) == [RUN], "one that was given up may commit what it holds"
    assert sorted(finished_runs(fresh_db, NOW + timedelta(days=2))) == [RUN, LATER]
