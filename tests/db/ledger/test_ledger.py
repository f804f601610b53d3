"""Sources, claims, commits and runs: everything is labelled exactly once."""

from __future__ import annotations

import random
import threading
from dataclasses import asdict, replace
from datetime import timedelta

import pytest
from sqlalchemy import Engine, func, select

from audioset_core.records import ClassScore, Detection
from db.catalog.sources import add_to_work_list, iter_items, triage, update_annotations
from db.engine import reading
from db.errors import DatabaseError, InvalidValueError
from db.ledger.claims import (
    claim_clip,
    commit_labellings,
    record_failures,
    release_claims,
    renew_leases,
)
from db.ledger.runs import (
    abandon_run,
    finish_run,
    labelled_by,
    running_runs,
    start_run,
)
from db.records import (
    Claim,
    Failure,
    FileState,
    Lease,
    NotClaimed,
    RunCounts,
    RunOrigin,
    RunStatus,
    Triaged,
)
from db.schema.tables import clip_scores, clips, detections, labellings, runs, sources
from tests.db.build import (
    LEASE_S,
    NOW,
    RUN,
    World,
    claimed,
    clip,
    enrolled,
    labelled,
    labelling,
    make_world,
    other_variant,
    seen,
)

OTHER_RUN = "00000000-0000-0000-0000-000000000002"
PASSING = frozenset({"unreadable"})


@pytest.fixture
def world(fresh_db: Engine) -> World:
    made = make_world(fresh_db)
    start_run(fresh_db, OTHER_RUN, "elsewhere", 2, {}, NOW)
    return made


def _judge(world: World, *files, variant=None) -> list[FileState]:
    with reading(world.engine) as conn:
        return [j.state for j in triage(conn, [variant or world.variant], files, PASSING)]


def _run(world: World):
    with reading(world.engine) as conn:
        return conn.execute(select(runs).where(runs.c.id == RUN)).mappings().one()


def _count(world: World, table) -> int:
    with reading(world.engine) as conn:
        return conn.execute(select(func.count()).select_from(table)).scalar_one()


def _claim(world: World, source_id: int, name: str, now=NOW, run_id=RUN):
    return claim_clip(
        world.engine, source_id, clip(name), world.variant, Lease(run_id, LEASE_S, now)
    )


def test_triage_tells_every_verdict(world: World) -> None:
    labelled(world, "done", {})
    claimed(world, "claimed")
    enrolled(world, seen("/pending"))
    for reason in ("unreadable", "truncated"):
        (item,) = enrolled(world, seen(f"/{reason}"))
        record_failures(world.engine, [Failure(item.source_id, reason)], NOW)
    assert _judge(
        world,
        seen("/audio/done.wav"),
        seen("/nowhere"),
        seen("/audio/claimed.wav"),
        seen("/pending"),
        seen("/unreadable"),
        seen("/truncated"),
        seen("/audio/done.wav", size=1_001),
        seen("/audio/done.wav", mtime=8),
        seen("/truncated", mtime=8),
    ) == [
        FileState.DONE,
        FileState.NEW,
        FileState.UNLABELLED,
        FileState.NEW,
        FileState.RETRY,
        FileState.FAILED,
        FileState.CHANGED,
        FileState.CHANGED,
        FileState.CHANGED,
    ]


def test_an_object_of_the_same_size_and_time_is_another_by_its_version(world: World) -> None:
    address = "s3://bucket/a//b.wav"
    (item,) = enrolled(world, seen(address, etag="one"))
    assert (item.path, item.etag) == (address.encode(), "one")
    claim = _claim(world, item.source_id, "object")
    assert isinstance(claim, Claim)
    assert _judge(world, seen(address, etag="one")) == [FileState.UNLABELLED]
    assert _judge(world, seen(address, etag="two"), seen(address)) == [FileState.CHANGED] * 2
    # What is found unchanged keeps its clip; another version has none yet.
    for etag, has_clip in (("one", True), ("two", False)):
        enrolled(world, seen(address, etag=etag), run_id=OTHER_RUN)
        with reading(world.engine) as conn:
            row = conn.execute(select(sources.c.etag, sources.c.clip_id)).one()
        assert (row.etag, row.clip_id is not None) == (etag, has_clip)


def test_triage_under_another_or_no_variant_finds_content_unlabelled(world: World) -> None:
    labelled(world, "done", {})
    file = seen("/audio/done.wav")
    assert _judge(world, file, variant=other_variant(world)) == [FileState.UNLABELLED]
    with reading(world.engine) as conn:
        assert triage(conn, (), [file]) == [Triaged(FileState.UNLABELLED)]
        assert triage(conn, (), []) == []


def test_triage_crosses_batches(world: World) -> None:
    files = [seen(f"/many/{number}") for number in range(2_500)]
    add_to_work_list(world.engine, RUN, [(file, 1.0) for file in files[::2]], now=NOW)
    assert _judge(world, *files) == [FileState.NEW] * 2_500


def test_the_work_list_keeps_order_and_takes_a_path_once(world: World) -> None:
    a, b, c = seen("/a"), seen("/b"), seen("/c")
    assert (
        add_to_work_list(world.engine, RUN, [(b, 2.0), (a, 1.0), (b, 2.0)], start=0, now=NOW) == 2
    )
    assert add_to_work_list(world.engine, RUN, [(c, 3.0)], start=2, now=NOW) == 3
    assert add_to_work_list(world.engine, RUN, [], start=3, now=NOW) == 3
    items = list(iter_items(world.engine, RUN, page=2))
    assert [(i.path, i.estimated_s) for i in items] == [(b"/b", 2.0), (b"/a", 1.0), (b"/c", 3.0)]
    assert len(list(iter_items(world.engine, RUN))) == 3
    assert len(list(iter_items(world.engine, OTHER_RUN))) == 0


def test_the_work_list_forgets_the_clip_of_changed_content_only(world: World) -> None:
    labelled(world, "same", {})
    labelled(world, "changed", {})
    enrolled(world, seen("/audio/same.wav"), seen("/audio/changed.wav", size=5))
    query = select(sources.c.status, sources.c.clip_id.is_(None)).order_by(sources.c.id)
    with reading(world.engine) as conn:
        assert [tuple(r) for r in conn.execute(query)] == [("pending", False), ("pending", True)]


def test_annotations_reach_known_files_and_are_never_cleared(world: World) -> None:
    labelled(world, "a", {})
    known = seen("/audio/a.wav", user_id="é'\"%", meta={"k": [1, None, "\n😀"]})
    assert update_annotations(world.engine, [known, seen("/unknown", user_id="x")]) == 1
    assert update_annotations(world.engine, [known, seen("/audio/a.wav")]) == 0
    assert update_annotations(world.engine, [seen("/audio/a.wav", user_id="new")]) == 1
    enrolled(world, seen("/audio/a.wav"))
    with reading(world.engine) as conn:
        row = conn.execute(select(sources.c.user_id, sources.c.meta)).one()
    assert tuple(row) == ("new", {"k": [1, None, "\n😀"]})


def test_a_copy_is_done_without_a_claim(world: World) -> None:
    labelled(world, "a", {})
    (copy,) = enrolled(world, seen("/copy.wav"))
    assert _claim(world, copy.source_id, "a") is NotClaimed.DONE
    assert _judge(world, seen("/copy.wav")) == [FileState.DONE]
    assert _count(world, clips) == 1


def test_two_copies_in_flight_are_claimed_once_even_by_one_run(world: World) -> None:
    claimed(world, "a")
    (copy,) = enrolled(world, seen("/copy.wav"))
    assert _claim(world, copy.source_id, "a") is NotClaimed.COPY
    assert _claim(world, copy.source_id, "a", run_id=OTHER_RUN) is NotClaimed.BUSY
    for part in ("part 1", "part 2"):
        start_run(world.engine, part, "elsewhere", 3, {}, NOW, RunOrigin(parent_id=RUN))
        assert _claim(world, copy.source_id, "a", run_id=part) is NotClaimed.COPY
    claimed_by_part = _claim(world, copy.source_id, "b", run_id="part 1")
    assert isinstance(claimed_by_part, Claim)
    (other,) = enrolled(world, seen("/other.wav"))
    assert _claim(world, other.source_id, "b", run_id="part 2") is NotClaimed.COPY
    assert _claim(world, other.source_id, "b", run_id=OTHER_RUN) is NotClaimed.BUSY


def test_a_claim_records_size_and_time_as_read(world: World) -> None:
    (item,) = enrolled(world, seen("/a", size=1, mtime=1))
    claim_clip(
        world.engine, item.source_id, clip("a"), world.variant, Lease(RUN, 9, NOW), mtime_ns=2
    )
    assert _judge(world, seen("/a", size=1_000, mtime=2)) == [FileState.UNLABELLED]
    with pytest.raises(DatabaseError, match="no source 99"):
        _claim(world, 99, "a")


def test_a_lease_expires_and_the_stale_token_loses(world: World) -> None:
    old = claimed(world, "a")
    at_end = NOW + timedelta(seconds=LEASE_S)
    assert _claim(world, old.source_id, "a", at_end, OTHER_RUN) is NotClaimed.BUSY
    later = at_end + timedelta(seconds=1)
    new = _claim(world, old.source_id, "a", later, OTHER_RUN)
    assert isinstance(new, Claim)
    assert (new.labelling_id, new.token) == (old.labelling_id, old.token + 1)
    stale = labelling(old, "a", {"/b": 0.9})
    fresh = labelling(new, "a", {"/c": 0.8})
    engine, variant = world.engine, world.variant
    assert commit_labellings(engine, variant, [stale], RUN, later) == [False]
    assert _count(world, clip_scores) == 0
    assert commit_labellings(engine, variant, [fresh], OTHER_RUN, later) == [True]
    assert commit_labellings(engine, variant, [fresh, stale], OTHER_RUN, later) == [False, False]
    assert _count(world, clip_scores) == 1


def test_a_clock_that_is_set_back_locks_nobody_out_and_does_nothing_twice(world: World) -> None:
    """Of another host, whose run cannot be asked: it has a claim, and an hour ago begins now."""
    old = claimed(world, "a")
    hosts_differ = NOW - timedelta(seconds=LEASE_S - 1)
    assert _claim(world, old.source_id, "a", hosts_differ, OTHER_RUN) is NotClaimed.BUSY
    set_back = NOW - timedelta(hours=1)
    new = _claim(world, old.source_id, "a", set_back, OTHER_RUN)
    assert isinstance(new, Claim)
    rows = [labelling(new, "a", {"/b": 0.5})]
    assert commit_labellings(world.engine, world.variant, rows, OTHER_RUN, set_back) == [True]
    stale = [labelling(old, "a", {"/c": 0.5})]
    assert commit_labellings(world.engine, world.variant, stale, RUN, set_back) == [False]
    assert _count(world, clip_scores) == 1


def test_renewed_leases_hold_and_released_ones_do_not(world: World) -> None:
    claim = claimed(world, "a")
    (copy,) = enrolled(world, seen("/copy.wav"))
    assert renew_leases(world.engine, Lease(RUN, 1_860, NOW)) == 1
    assert renew_leases(world.engine, Lease(OTHER_RUN, 1_860, NOW)) == 0
    soon = NOW + timedelta(minutes=30)
    assert _claim(world, copy.source_id, "a", soon) is NotClaimed.COPY
    release_claims(world.engine, [claim])
    assert isinstance(_claim(world, claim.source_id, "a", soon), Claim)


def test_abandoning_a_run_frees_its_claims_at_once(world: World) -> None:
    claim = claimed(world, "a")
    assert [run.run_id for run in running_runs(world.engine)] == [RUN, OTHER_RUN]
    assert abandon_run(world.engine, RUN, NOW)
    assert not abandon_run(world.engine, RUN, NOW)
    assert len(list(iter_items(world.engine, RUN))) == 0
    assert [run.run_id for run in running_runs(world.engine)] == [OTHER_RUN]
    assert isinstance(_claim(world, claim.source_id, "a", run_id=OTHER_RUN), Claim)


def test_an_abandoned_run_counts_what_it_committed_not_what_it_lived_to_count(world: World) -> None:
    labelled(world, "done", {"/b": 0.5})
    claimed(world, "left")
    assert abandon_run(world.engine, RUN, NOW)
    run = _run(world)
    assert run["status"] == RunStatus.CRASHED
    assert (run["n_labelled"], run["audio_s"]) == labelled_by(world.engine, RUN)
    assert run["n_labelled"] == 1
    assert run["audio_s"] > 0


def test_finishing_a_run_keeps_what_is_done_and_drops_the_rest(world: World) -> None:
    labelled(world, "done", {"/b": 0.5})
    claimed(world, "left")
    counts = RunCounts(n_found=2, n_labelled=1, audio_s=10.0)
    finish_run(world.engine, RUN, RunStatus.COMPLETED, counts, {"note": "ok"}, NOW)
    assert _count(world, labellings) == 1
    assert len(list(iter_items(world.engine, RUN))) == 0
    run = _run(world)
    assert (run["status"], run["ended_at"]) == (RunStatus.COMPLETED, NOW)
    assert RunCounts(**{name: run[name] for name in asdict(counts)}) == counts
    with pytest.raises(DatabaseError, match="no run 'x'"):
        finish_run(world.engine, "x", RunStatus.COMPLETED, counts, None, NOW)


def test_labelling_ids_are_not_reused(world: World) -> None:
    first = claimed(world, "a")
    finish_run(world.engine, RUN, RunStatus.FAILED, RunCounts(), None, NOW)
    again = _claim(world, first.source_id, "a", run_id=OTHER_RUN)
    assert isinstance(again, Claim)
    assert again.labelling_id != first.labelling_id
    stale = labelling(first, "a")
    assert commit_labellings(world.engine, world.variant, [stale], RUN, NOW) == [False]


def test_commit_stores_true_figures_and_rows(world: World) -> None:
    found = Detection(1, 3, 5, 0.9, 0.85, 4)
    labelled(world, "a", {"/b": 0.12345, "/c": 0.9}, [found], duration_s=9.5)
    with reading(world.engine) as conn:
        scores = conn.execute(select(clip_scores.c.peak).order_by(clip_scores.c.node_id)).scalars()
        assert list(scores) == [0.1234, 0.9]
        row = conn.execute(select(detections)).one()
        assert tuple(row)[2:] == (3, 5, 0.9, 0.85, 4)
        assert conn.execute(select(clips.c.duration_s)).scalar_one() == 9.5
        done = conn.execute(select(labellings)).one()
    assert (done.status, done.is_current, done.labelled_at) == ("done", True, NOW)


def test_a_commit_that_fails_in_the_middle_leaves_nothing(world: World, monkeypatch) -> None:
    good = labelling(claimed(world, "good"), "good", {"/b": 0.5})
    bad = labelling(claimed(world, "bad"), "bad")
    bad = replace(bad, class_scores=(ClassScore(77, 0.5, 0.5),))
    with pytest.raises(InvalidValueError, match="no category 77"):
        commit_labellings(world.engine, world.variant, [good, bad], RUN, NOW)
    nan = replace(bad, class_scores=(ClassScore(0, float("nan"), 0.5),))
    with pytest.raises(InvalidValueError, match="nan is not in"):
        commit_labellings(world.engine, world.variant, [good, nan], RUN, NOW)
    twice = replace(bad, class_scores=(ClassScore(0, 0.5, 0.5),) * 2)
    with pytest.raises(Exception, match=r"(?i)unique"):
        commit_labellings(world.engine, world.variant, [good, twice], RUN, NOW)
    assert _count(world, clip_scores) == 0
    with reading(world.engine) as conn:
        statuses = conn.execute(select(labellings.c.status)).scalars().all()
    assert statuses == ["claimed", "claimed"]
    assert commit_labellings(world.engine, world.variant, [good], RUN, NOW) == [True]


def test_the_newest_labelling_is_current(world: World) -> None:
    first = labelled(world, "a", {"/b": 0.5})
    second = replace(world, variant=other_variant(world))
    newer = _claim(second, first.source_id, "a")
    commit_labellings(
        world.engine, second.variant, [labelling(newer, "a")], RUN, NOW + timedelta(days=1)
    )
    query = select(labellings.c.id, labellings.c.is_current).order_by(labellings.c.id)
    with reading(world.engine) as conn:
        rows = [tuple(row) for row in conn.execute(query)]
    assert rows == [(first.labelling_id, False), (newer.labelling_id, True)]
    # The older labelling and its rows stay.
    assert _count(world, clip_scores) == 1


def test_a_failure_gives_the_claim_back_and_removes_the_clip(world: World) -> None:
    claim = claimed(world, "a")
    failure = Failure(claim.source_id, "truncated", "'; DROP TABLE clips; --", claim)
    record_failures(world.engine, [failure], NOW)
    record_failures(world.engine, [], NOW)
    assert (_count(world, clips), _count(world, labellings)) == (0, 0)
    with reading(world.engine) as conn:
        row = conn.execute(select(sources.c.status, sources.c.reason, sources.c.reason_detail))
        assert tuple(row.one()) == ("failed", "truncated", "'; DROP TABLE clips; --")


def test_a_failure_keeps_a_clip_that_others_need(world: World) -> None:
    done = labelled(world, "a", {})
    (copy,) = enrolled(world, seen("/copy.wav"))
    _claim(world, copy.source_id, "a")
    stale = replace(done, token=0, source_id=copy.source_id)
    record_failures(world.engine, [Failure(copy.source_id, "unreadable", claim=stale)], NOW)
    assert (_count(world, clips), _count(world, labellings)) == (1, 1)
    assert _judge(world, seen("/audio/a.wav"), seen("/copy.wav")) == [
        FileState.DONE,
        FileState.RETRY,
    ]


def _failed(world: World) -> dict[bytes, tuple[str | None, str | None]]:
    query = select(sources.c.path, sources.c.reason, sources.c.reason_detail)
    with reading(world.engine) as conn:
        return {r[0]: (r[1], r[2]) for r in conn.execute(query.where(sources.c.status == "failed"))}


@pytest.mark.parametrize("labelling_run", [RUN, "part"])
def test_copies_left_to_a_claim_that_fails_fail_with_it(world: World, labelling_run: str) -> None:
    start_run(world.engine, "part", "elsewhere", 3, {}, NOW, RunOrigin(parent_id=RUN))
    files = [seen(f"/{name}.wav") for name in ("first", "second", "third", "later", "good")]
    first, second, third, later, good = enrolled(world, *files)
    (foreign,) = enrolled(world, seen("/foreign.wav"), run_id=OTHER_RUN)
    claim = _claim(world, first.source_id, "a", run_id=labelling_run)
    for item in (second, third):
        assert _claim(world, item.source_id, "a") is NotClaimed.COPY
    assert _claim(world, foreign.source_id, "a", run_id=OTHER_RUN) is NotClaimed.BUSY
    _claim(world, good.source_id, "b")
    failure = Failure(first.source_id, "damaged", "at 3 s", claim)
    copies = record_failures(world.engine, [failure], NOW, labelling_run)
    assert sorted(copy.path for copy in copies) == [b"/second.wav", b"/third.wav"]
    why = ("damaged", "at 3 s; as its copy /first.wav")
    assert _failed(world) == {
        b"/first.wav": ("damaged", "at 3 s"), b"/second.wav": why, b"/third.wav": why,
    }  # fmt: skip
    # The other run's file, and what this one has not come to, are judged by their own reading.
    assert isinstance(_claim(world, foreign.source_id, "a", run_id=OTHER_RUN), Claim)
    assert _judge(world, files[3]) == [FileState.NEW]
    assert later.path == b"/later.wav"


def test_a_claim_that_was_lost_fails_no_copy(world: World) -> None:
    first, second = enrolled(world, seen("/first.wav"), seen("/second.wav"))
    claim = _claim(world, first.source_id, "a")
    assert _claim(world, second.source_id, "a") is NotClaimed.COPY
    abandon_run(world.engine, RUN, NOW)
    (foreign,) = enrolled(world, seen("/foreign.wav"), run_id=OTHER_RUN)
    taken = _claim(world, foreign.source_id, "a", NOW + timedelta(hours=1), OTHER_RUN)
    assert isinstance(taken, Claim)
    failure = Failure(first.source_id, "damaged", "", claim)
    assert record_failures(world.engine, [failure], NOW, RUN) == []
    assert list(_failed(world)) == [b"/first.wav"]


def test_concurrent_workers_label_each_clip_exactly_once(world: World) -> None:
    """Eight threads over the same files (two copies of each clip), some giving up midway."""
    names = [f"clip{number}" for number in range(12)]
    files = [seen(f"/{copy}/{name}") for name in names for copy in ("x", "y")]
    items = enrolled(world, *files)
    work = [(item.source_id, item.path.decode().rsplit("/")[-1]) for item in items]
    commits: list[str] = []
    errors: list[BaseException] = []

    def worker(seed: int) -> None:
        choice = random.Random(seed)
        mine = work * 2
        choice.shuffle(mine)
        try:
            for source_id, name in mine:
                claim = _claim(world, source_id, name, run_id=choice.choice([RUN, OTHER_RUN]))
                if not isinstance(claim, Claim):
                    continue
                if choice.random() < 0.3:
                    release_claims(world.engine, [claim])
                    continue
                row = labelling(claim, name, {"/b": choice.random(), "/c": 0.5})
                if commit_labellings(world.engine, world.variant, [row], RUN, NOW) == [True]:
                    commits.append(name)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=worker, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len(commits) == len(set(commits))
    for source_id, name in work:  # what every worker gave up
        claim = _claim(world, source_id, name)
        if isinstance(claim, Claim):
            commits.append(name)
            rows = [labelling(claim, name, {"/b": 0.1, "/c": 0.5})]
            commit_labellings(world.engine, world.variant, rows, RUN, NOW)
    assert sorted(commits) == sorted(names)
    assert _count(world, clip_scores) == 2 * len(names)


def test_writers_in_opposite_orders_do_not_deadlock(world: World) -> None:
    held = [claimed(world, f"clip{number}") for number in range(20)]
    failing = [claimed(world, f"fail{number}") for number in range(20)]
    rows = [labelling(claim, f"clip{number}", {"/b": 0.5}) for number, claim in enumerate(held)]
    failed = [Failure(claim.source_id, "damaged", claim=claim) for claim in failing]
    again = [(seen(f"/audio/fail{number}.wav"), 1.0) for number in range(20)]
    errors: list[BaseException] = []

    def call(function, *arguments, **keywords) -> None:
        try:
            function(world.engine, *arguments, **keywords)
        except BaseException as error:
            errors.append(error)

    jobs = [
        (commit_labellings, (world.variant, rows, RUN, NOW)),
        (commit_labellings, (world.variant, rows[::-1], RUN, NOW)),
        (renew_leases, (Lease(RUN, 3600, NOW),)),
        (record_failures, (failed, NOW)),
        (record_failures, (failed[::-1], NOW)),
        (add_to_work_list, (OTHER_RUN, again[::-1])),
    ]
    threads = [threading.Thread(target=call, args=(job, *args)) for job, args in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert _count(world, clip_scores) == 20


def test_select_then_insert_would_be_caught(world: World) -> None:
    """The unique key, not a look beforehand, keeps two claims on one clip apart."""
    items = enrolled(world, *(seen(f"/{number}") for number in range(6)))
    barrier = threading.Barrier(6)
    outcomes: list[object] = []

    def work(source_id: int) -> None:
        barrier.wait()
        outcomes.append(_claim(world, source_id, "a"))

    threads = [threading.Thread(target=work, args=(item.source_id,)) for item in items]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(isinstance(outcome, Claim) for outcome in outcomes) == 1
    assert outcomes.count(NotClaimed.COPY) == 5
