from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, select, update

from db.catalog.sources import add_to_work_list, iter_items, triage
from db.catalog.vanished_files import (
    copies_elsewhere,
    count_moved,
    mark_missing,
    mark_present,
    mark_waiting,
    present_sources,
)
from db.engine import reading, writing
from db.ledger.claims import claim_clip
from db.ledger.labels_by_branch import clips_by_branch
from db.ledger.runs import (
    ask_to_stop,
    child_runs,
    finish_run,
    is_to_stop,
    note_progress,
    start_run,
    summary_before,
    summary_of,
)
from db.query.ambiguous_classes import SOURCE_AMBIGUOUS_MID
from db.records import (
    Claim,
    FileState,
    KnownSource,
    Lease,
    NotClaimed,
    RunCounts,
    RunOrigin,
    RunStatus,
    Triaged,
)
from db.schema.tables import nodes, sources
from db.types import path_digest
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
    seen,
)

CHILD = "00000000-0000-0000-0000-00000000000c"
LATER = NOW + timedelta(hours=1)


@pytest.fixture
def world(fresh_db: Engine) -> World:
    return make_world(fresh_db)


def _paths(world: World, *roots: bytes) -> list[bytes]:
    return [s.path for page in present_sources(world.engine, roots) for s in page]


def _known(world: World, path: bytes) -> KnownSource:
    (found,) = [s for page in present_sources(world.engine, [path]) for s in page]
    return found


def _judge(world: World, *files) -> list[Triaged]:
    with reading(world.engine) as conn:
        return triage(conn, [world.variant], files)


def test_sources_below_a_root_and_no_neighbour_of_it(world: World) -> None:
    names = ("/in/a", "/in/sub/b", "/in0", "/in-", "/in.wav", "/other/in/c", "/in")
    enrolled(world, *map(seen, names))
    assert sorted(_paths(world, b"/in")) == [b"/in", b"/in/a", b"/in/sub/b"]
    assert sorted(_paths(world, b"/in/")) == [b"/in/", b"/in/a", b"/in/sub/b"][1:]
    assert len(_paths(world, b"/")) == len(names)
    assert _paths(world) == []


def test_names_that_are_not_text_are_found(world: World) -> None:
    path = b"/in/\xff\xfe\n%_'.wav"
    source = seen("/in/x")
    add_to_work_list(world.engine, RUN, [(type(source)(path, 1, 1), 1.0)], now=NOW)
    assert _paths(world, b"/in") == [path]
    assert _paths(world, b"/in/\xff") == []


def test_sources_come_in_pages(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("db.catalog.vanished_files._PAGE", 2)
    enrolled(world, *(seen(f"/in/{n}") for n in range(5)))
    pages = list(present_sources(world.engine, [b"/in"]))
    assert [len(page) for page in pages] == [2, 2, 1]


def test_missing_keeps_what_is_known_and_back_restores_it(world: World) -> None:
    labelled(world, "a", {"/b": 0.5})
    source = _known(world, b"/audio/a.wav")
    assert mark_missing(world.engine, [source.path_digest], LATER) == 1
    assert mark_missing(world.engine, [source.path_digest], LATER) == 0
    assert _paths(world, b"/audio") == []
    file = seen("/audio/a.wav")
    assert _judge(world, file) == [Triaged(FileState.DONE, is_back=True)]
    assert mark_present(world.engine, [file]) == 1
    assert _judge(world, file) == [Triaged(FileState.DONE)]
    with reading(world.engine) as conn:
        row = conn.execute(select(sources.c.status, sources.c.missing_at)).one()
    assert tuple(row) == ("identified", None)


def test_waiting_since_lasts_while_nothing_changes(world: World) -> None:
    file = seen("/in/a")
    mark_waiting(world.engine, [file], NOW)
    mark_waiting(world.engine, [file], LATER)
    assert _judge(world, file) == [Triaged(FileState.NEW, waiting_since=NOW)]
    grown = seen("/in/a", size=2_000)
    assert _judge(world, grown) == [Triaged(FileState.CHANGED)]
    mark_waiting(world.engine, [grown], LATER)
    assert _judge(world, grown) == [Triaged(FileState.NEW, waiting_since=LATER)]
    enrolled(world, grown)
    assert _judge(world, grown) == [Triaged(FileState.NEW)]


def test_a_moved_file_is_one_whose_content_is_elsewhere_now(world: World) -> None:
    labelled(world, "a", {})
    labelled(world, "gone", {})
    (moved,) = enrolled(world, seen("/new/a.wav"))
    outcome = claim_clip(
        world.engine, moved.source_id, clip("a"), world.variant, Lease(RUN, LEASE_S, NOW)
    )
    assert outcome is NotClaimed.DONE
    digests = [_known(world, path).path_digest for path in (b"/audio/a.wav", b"/audio/gone.wav")]
    assert mark_missing(world.engine, digests, LATER) == 2
    assert count_moved(world.engine, NOW) == 1
    assert count_moved(world.engine, LATER + timedelta(hours=1)) == 0


def test_the_same_run_takes_its_claim_over_for_the_same_source_only(world: World) -> None:
    first = claimed(world, "a")
    (copy,) = enrolled(world, seen("/copy.wav"))

    def again(source_id: int):
        return claim_clip(
            world.engine, source_id, clip("a"), world.variant, Lease(RUN, LEASE_S, NOW)
        )

    assert again(copy.source_id) is NotClaimed.COPY
    second = again(first.source_id)
    assert isinstance(second, Claim)
    assert second.token == first.token + 1
    from db.ledger.claims import commit_labellings

    rows = [labelling(first, "a", {"/b": 0.5})]
    assert commit_labellings(world.engine, world.variant, rows, RUN, NOW) == [False]
    rows = [labelling(second, "a", {"/b": 0.5})]
    assert commit_labellings(world.engine, world.variant, rows, RUN, NOW) == [True]
    assert again(first.source_id) is NotClaimed.AGAIN
    assert again(copy.source_id) is NotClaimed.DONE


def test_a_part_of_a_work_list_and_what_is_left_of_it(world: World) -> None:
    enrolled(world, *(seen(f"/{n}") for n in range(5)))
    paths = [i.path for i in iter_items(world.engine, RUN, page=2, first=1, end=4)]
    assert paths == [b"/1", b"/2", b"/3"]
    assert len(list(iter_items(world.engine, RUN, first=3))) == 2
    labelled(world, "done", {})
    left = iter_items(world.engine, RUN, page=2, unlabelled_by=[world.variant])
    assert [i.path for i in left] == [b"/0", b"/1", b"/2", b"/3", b"/4"]


def test_a_child_stops_with_its_parent(world: World) -> None:
    start_run(world.engine, CHILD, "host", 2, {}, NOW, RunOrigin(parent_id=RUN, flow_run_id="f"))
    assert not is_to_stop(world.engine, CHILD)
    ask_to_stop(world.engine, RUN, NOW)
    assert is_to_stop(world.engine, RUN)
    assert is_to_stop(world.engine, CHILD)
    (child,) = child_runs(world.engine, RUN)
    assert (child.run_id, child.parent_id, child.flow_run_id) == (CHILD, RUN, "f")


def test_a_child_stops_when_its_parent_has_ended(world: World) -> None:
    start_run(world.engine, CHILD, "host", 2, {}, NOW, RunOrigin(parent_id=RUN))
    finish_run(world.engine, RUN, RunStatus.FAILED, RunCounts(), None, NOW)
    assert is_to_stop(world.engine, CHILD)


def test_progress_is_in_the_row_before_the_end(world: World) -> None:
    note_progress(world.engine, RUN, RunCounts(n_labelled=7, audio_s=1.5), LATER)
    start_run(world.engine, CHILD, "host", 2, {}, NOW, RunOrigin(parent_id=RUN))
    note_progress(world.engine, CHILD, RunCounts(n_labelled=3), LATER)
    (child,) = child_runs(world.engine, RUN)
    assert (child.counts.n_labelled, child.seen_at) == (3, LATER)
    assert summary_of(world.engine, CHILD) is None


HERE: dict[str, Any] = {"flow": "ingest-new", "paths": ["/a", "/b"], "model": "yamnet"}


def _ended(world: World, run_id: str, minute: int, n: int, **other: Any) -> None:
    start = NOW + timedelta(minutes=minute)
    parent = other.pop("parent_id", None)
    start_run(world.engine, run_id, "host", 2, HERE | other, start, RunOrigin(parent_id=parent))
    counts, summary = RunCounts(n_labelled=n), {"labels": {run_id: n}}
    finish_run(world.engine, run_id, RunStatus.COMPLETED, counts, summary, LATER)


def test_the_summary_to_compare_with_is_the_last_one_that_labelled_something(world: World) -> None:
    assert summary_before(world.engine, LATER, HERE) is None
    _ended(world, "one", 0, 5)
    _ended(world, "two", 1, 0)
    _ended(world, "part", 2, 9, parent_id="one")
    assert summary_before(world.engine, LATER, HERE) == {"labels": {"one": 5}}
    assert summary_before(world.engine, NOW, HERE) is None


@pytest.mark.parametrize(
    ("other", "is_alike"),
    [
        ({"paths": ["/b", "/a", "/a"]}, True),
        ({"settle_s": 3, "execution": {"partitions": 2}}, True),
        ({"paths": ["/a"]}, False),
        ({"flow": "label-audio"}, False),
        ({"model": "pocket"}, False),
        ({"manifest": "/list.csv"}, False),
    ],
)
def test_only_runs_of_the_same_flow_folders_and_model_are_compared(
    world: World, other: dict[str, Any], is_alike: bool
) -> None:
    _ended(world, "one", 0, 5)
    _ended(world, "other", 1, 7, **other)
    expected = "other" if is_alike else "one"
    found = summary_before(world.engine, LATER, HERE)
    assert found is not None
    assert list(found["labels"]) == [expected]


def test_clips_by_branch_counts_a_clip_once_per_branch(world: World) -> None:
    labelled(world, "x", {"/b": 0.9, "/c": 0.8})
    labelled(world, "y", {"/c": 0.7})
    labelled(world, "quiet", {"/c": 0.2})
    found = clips_by_branch(world.engine, RUN)
    assert found
    assert all(count <= 2 for count in found.values())
    assert max(found.values()) == 2
    assert clips_by_branch(world.engine, "no such run") == {}


def test_clips_by_branch_counts_ambiguous_classes_in_company(world: World) -> None:
    """/d stands for Hiss: ambiguous by being below the node of that MID too."""
    with writing(world.engine) as conn:
        conn.execute(update(nodes).where(nodes.c.mid == "/b").values(mid=SOURCE_AMBIGUOUS_MID))
    labelled(world, "alone", {"/d": 0.9})
    labelled(world, "in company", {"/d": 0.9, "/c": 0.2})
    labelled(world, "without", {"/e": 0.9})
    assert clips_by_branch(world.engine, RUN) == {"name /b": 2, "name /c": 1, "name /e": 1}


def test_paths_whose_content_lies_elsewhere(world: World) -> None:
    labelled(world, "a", {})
    labelled(world, "b", {})
    (copy, pending, other) = enrolled(
        world, seen("/new/a.wav"), seen("/new/c.wav"), seen("/elsewhere/b.wav")
    )
    for item, name in ((copy, "a"), (other, "b")):
        claim_clip(
            world.engine, item.source_id, clip(name), world.variant, Lease(RUN, LEASE_S, NOW)
        )

    def found(roots: list[bytes], run_id: str | None = None) -> list[bytes]:
        pages = copies_elsewhere(world.engine, roots, run_id)
        return sorted(source.path for page in pages for source in page)

    assert pending.path == b"/new/c.wav"
    assert found([b"/new"]) == [b"/audio/a.wav"]
    assert found([b"/new/a.wav", b"/ne"]) == [b"/audio/a.wav"]
    assert found([]) == []
    # Everything is on this run's list: each path has its content elsewhere too.
    both = [b"/audio/a.wav", b"/audio/b.wav", b"/elsewhere/b.wav", b"/new/a.wav"]
    assert found([], RUN) == both
    mark_missing(world.engine, [path_digest(b"/audio/a.wav")], NOW)
    assert found([b"/new", b"/audio"]) == [b"/elsewhere/b.wav"]
