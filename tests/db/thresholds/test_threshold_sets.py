from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, text, update

from audioset_core.errors import UserError
from audioset_core.records import Detection, Threshold, ThresholdSet
from db.answer_records import Hit
from db.engine import reading, writing
from db.errors import DatabaseUserError
from db.ledger.claims import commit_labellings
from db.query.question import Question
from db.query.time_spans import Span
from db.schema.tables import labellings, sources
from db.score_files.labelled import (
    ScoredClip,
    commit_intervals,
    count_underived,
    iter_scored,
    iter_underived,
)
from db.thresholds.find import find_clips_of_set, find_intervals_of_set, find_sounds_of_set
from db.thresholds.sets import StoredSet, find_set, list_sets, remove_set, store_set
from tests.db.build import (
    INDEX,
    MIDS,
    MODEL,
    NOW,
    RUN,
    World,
    claimed,
    labelled,
    labelling,
    load,
    make_world,
)

SET = ThresholdSet(
    "tiny", Threshold(0.5, 0.3), {"/b": Threshold(0.4, 0.2)}, 1.0, 0.5, {"by": "hand"}
)


@pytest.fixture
def world(fresh_db: Engine) -> World:
    return make_world(fresh_db)


def by_index(world: World) -> dict[int, dict[int, int]]:
    query = "SELECT model_id, idx, node_id FROM categories"
    found: dict[int, dict[int, int]] = {}
    with reading(world.engine) as conn:
        for model_id, idx, node_id in conn.execute(text(query)):
            found.setdefault(model_id, {})[idx] = node_id
    return found


def found(mid: str, start: int, end: int, peak: float) -> Detection:
    return Detection(INDEX[mid], start, end, peak, peak / 2, start)


def of_set(engine: Engine, stored: StoredSet, *under: str, **more: Any) -> list[Hit]:
    return find_clips_of_set(engine, stored, Question(under=under, **more))


def rows(world: World, query: str) -> list[tuple[object, ...]]:
    with reading(world.engine) as conn:
        return [tuple(row) for row in conn.execute(text(query))]


def pending(world: World, name: str = "s") -> dict[str, ScoredClip]:
    stored = find_set(world.engine, name)
    return {each.clip_sha256: each for each in iter_underived(world.engine, stored)}


class TestSets:
    def test_what_is_stored_is_found(self, world: World) -> None:
        store_set(world.engine, "s", SET, NOW)
        stored = find_set(world.engine, "s")
        assert (stored.title, stored.made_at, stored.values) == ("s@1", NOW, SET)
        assert stored.names == {"/b": "name /b"}

    def test_other_values_make_a_version_and_equal_ones_none(self, world: World) -> None:
        store_set(world.engine, "s", SET, NOW)
        assert store_set(world.engine, "s", replace(SET, how={}), NOW).version == 1
        other = replace(SET, by_mid={"/b": Threshold(0.4, 0.1)})
        assert store_set(world.engine, "s", other, NOW).version == 2
        assert find_set(world.engine, "s").version == 2
        assert find_set(world.engine, "s@1").values == SET
        # Back to the first values is a step too: the newest version is what holds.
        assert store_set(world.engine, "s", SET, NOW).version == 3

    def test_no_default_means_only_what_is_listed(self, world: World) -> None:
        store_set(world.engine, "s", replace(SET, default=None), NOW)
        assert find_set(world.engine, "s").values.default is None

    @pytest.mark.parametrize("name", ["", "a b", "x@1", "-x", "a" * 65, "é"])
    def test_a_name_that_is_none(self, world: World, name: str) -> None:
        with pytest.raises(DatabaseUserError, match="not a valid name for a set"):
            store_set(world.engine, name, SET, NOW)

    def test_a_class_that_is_not_in_the_ontology(self, world: World) -> None:
        with pytest.raises(DatabaseUserError, match="no node '/x'"):
            store_set(world.engine, "s", replace(SET, by_mid={"/x": Threshold(0.5, 0.5)}), NOW)

    def test_a_threshold_that_would_be_stored_as_0_leaves_nothing(self, world: World) -> None:
        tiny = replace(SET, by_mid={"/b": Threshold(0.00004, 0.00004)})
        with pytest.raises(UserError, match="high 0 and low 0"):
            store_set(world.engine, "s", tiny, NOW)
        assert list_sets(world.engine) == []

    @pytest.mark.parametrize("name", ["t", "s@2", "s@x", "s@99999999999999"])
    def test_an_unknown_set_names_those_there_are(self, world: World, name: str) -> None:
        store_set(world.engine, "s", SET, NOW)
        with pytest.raises(DatabaseUserError, match=r"known sets: s@1"):
            find_set(world.engine, name)

    def test_removing_takes_the_intervals_along(self, world: World) -> None:
        labelled(world, "one", {"/b": 0.9})
        stored = store_set(world.engine, "s", SET, NOW)
        (clip,) = pending(world).values()
        batch = [(clip, [found("/b", 0, 1, 0.9)])]
        assert commit_intervals(world.engine, stored, batch, by_index(world), NOW) == 1
        (listed,) = list_sets(world.engine)
        assert (listed.n_classes, listed.n_derived, listed.n_intervals) == (1, 1, 1)
        assert remove_set(world.engine, "s@1") == "s@1"
        for table in ("threshold_sets", "thresholds", "derivations", "intervals"):
            assert rows(world, f"SELECT count(*) FROM {table}") == [(0,)]
        with pytest.raises(DatabaseUserError, match="was removed meanwhile"):
            commit_intervals(world.engine, stored, batch, by_index(world), NOW)


class TestDerivations:
    def test_a_clip_is_pending_until_its_intervals_are_committed(self, world: World) -> None:
        labelled(world, "one", {"/b": 0.9})
        labelled(world, "two", {"/b": 0.9})
        stored = store_set(world.engine, "s", SET, NOW)
        assert count_underived(world.engine, stored) == 2
        first, second = pending(world).values()
        assert (first.patch_hop_s, first.window_s, first.n_patches) == (0.48, 0.96, 20)
        # No interval at all is an answer too.
        commit_intervals(world.engine, stored, [(first, [])], by_index(world), NOW)
        assert pending(world) == {second.clip_sha256: second}

    def test_intervals_again_are_the_same_rows(self, world: World) -> None:
        labelled(world, "one", {"/b": 0.9})
        stored = store_set(world.engine, "s", SET, NOW)
        (clip,) = pending(world).values()
        for intervals in ([found("/b", 0, 1, 0.9), found("/d", 3, 4, 0.7)], [found("/b", 2, 3, 1)]):
            commit_intervals(world.engine, stored, [(clip, intervals)], by_index(world), NOW)
        assert rows(world, "SELECT start_patch, peak FROM intervals") == [(2, 10_000)]
        assert rows(world, "SELECT n_intervals FROM derivations") == [(1,)]

    def test_other_scores_make_intervals_stale(self, world: World) -> None:
        labelled(world, "one", {"/b": 0.9})
        stored = store_set(world.engine, "s", SET, NOW)
        (clip,) = pending(world).values()
        commit_intervals(
            world.engine, stored, [(clip, [found("/b", 0, 1, 0.9)])], by_index(world), NOW
        )
        assert len(rows(world, "SELECT * FROM interval_times")) == 1
        with writing(world.engine) as conn:
            conn.execute(update(labellings).values(scores_sha256="f" * 64))
        assert rows(world, "SELECT * FROM interval_times") == []
        assert of_set(world.engine, stored, "/b") == []
        assert list(pending(world)) == [clip.clip_sha256]
        # What was read of the old file is not stored for the new one.
        assert commit_intervals(world.engine, stored, [(clip, [])], by_index(world), NOW) == 0

    def test_a_set_is_for_the_scores_of_its_model(self, world: World) -> None:
        labelled(world, "one", {"/b": 0.9})
        stored = store_set(world.engine, "s", replace(SET, model="other"), NOW)
        with pytest.raises(DatabaseUserError, match="no labels by a model called 'other'"):
            count_underived(world.engine, stored)
        store_set(world.engine, "any", replace(SET, model=None), NOW)
        assert len(pending(world, "any")) == 1

    def test_what_is_claimed_but_not_done_is_not_looked_at(self, world: World) -> None:
        claimed(world, "one")
        store_set(world.engine, "s", SET, NOW)
        store_set(world.engine, "any", replace(SET, model=None), NOW)
        assert pending(world) == pending(world, "any") == {}

    def test_pages_give_every_clip_once(self, world: World) -> None:
        for n in range(7):
            labelled(world, str(n), {"/b": 0.9}, now=NOW + timedelta(seconds=n))
        every = list(iter_scored(world.engine, "tiny"))
        assert len(every) == 7
        assert list(iter_scored(world.engine, "tiny", page=2)) == every
        assert list(iter_scored(world.engine, None, page=3)) == every


class TestQueries:
    @pytest.fixture
    def stored(self, world: World) -> StoredSet:
        for name in ("one", "two", "three"):
            labelled(world, name, {"/e": 0.9})
        stored = store_set(world.engine, "s", SET, NOW)
        clips = list(pending(world).values())
        intervals = [
            [found("/b", 0, 1, 0.6), found("/d", 4, 30, 0.8)],
            [found("/c", 2, 2, 0.7), found("/e", 0, 1, 0.9)],
            [found("/e", 0, 1, 0.5)],
        ]
        batch = list(zip(clips, intervals, strict=True))
        assert commit_intervals(world.engine, stored, batch, by_index(world), NOW) == 3
        return stored

    def test_the_best_interval_below_a_node_by_clip(self, world: World, stored: StoredSet) -> None:
        first, second = of_set(world.engine, stored, "/a")
        assert (first.mid, first.score, first.start_s, first.end_s) == ("/d", 0.8, 1.92, 10.0)
        assert (second.mid, second.score, second.path_text) == ("/c", 0.7, "/audio/two.wav")
        assert [hit.mid for hit in of_set(world.engine, stored, "/a", limit=1)] == ["/d"]
        assert of_set(world.engine, stored, "/a", not_under=("/e",)) == [first]

    def test_more_than_one_class(self, world: World, stored: StoredSet) -> None:
        hits = of_set(world.engine, stored, "/d", "/e")
        assert [(hit.mid, hit.score) for hit in hits] == [("/e", 0.9), ("/d", 0.8), ("/e", 0.5)]
        both = of_set(world.engine, stored, "/e", all_of=("/c",))
        assert [hit.path_text for hit in both] == ["/audio/two.wav"]

    def test_the_sets_thresholds_decide_whatever_the_least_score(
        self, world: World, stored: StoredSet
    ) -> None:
        assert of_set(world.engine, stored, "/a", min_score=1.0) == of_set(
            world.engine, stored, "/a"
        )

    def test_the_sounds_of_each_class(self, world: World, stored: StoredSet) -> None:
        asked = Question(under=("/a", "/e"), min_score=1.0)
        sounds = find_sounds_of_set(world.engine, stored, asked, 1)
        assert [(sound.mid, sound.score, sound.start_s) for sound in sounds] == [
            ("/b", 0.6, 0.0), ("/c", 0.7, 0.96), ("/d", 0.8, 1.92), ("/e", 0.9, 0.0),
        ]  # fmt: skip

    def test_how_long_and_which_files(self, world: World, stored: StoredSet) -> None:
        (long,) = of_set(world.engine, stored, "/a", "/e", min_duration_s=5.0)
        assert (long.mid, long.start_s) == ("/d", 1.92)
        by_path = of_set(world.engine, stored, "/a", "/e", paths=("t*.wav",), order="path")
        assert [hit.path_text for hit in by_path] == ["/audio/three.wav", "/audio/two.wav"]

    def test_when(self, world: World, stored: StoredSet) -> None:
        began_ms = 1_000_000_000_000
        with writing(world.engine) as conn:
            one = sources.c.path_text == "/audio/one.wav"
            conn.execute(update(sources).where(one).values(recorded_unix_ms=began_ms))
        for from_s, to_s, mids in (
            (-9, 0, []), (-9, 1, ["/b"]), (-9, 9, ["/d"]), (5, 9, ["/d"]), (10, 99, []),
        ):  # fmt: skip
            span = Span(began_ms + from_s * 1_000, began_ms + to_s * 1_000)
            found = of_set(world.engine, stored, "/a", "/e", span=span)
            assert [hit.mid for hit in found] == mids

    def test_every_interval(self, world: World, stored: StoredSet) -> None:
        question = Question(under=("/a", "/e"), order="path")
        hits = find_intervals_of_set(world.engine, stored, question)
        assert [(hit.path_text, hit.mid, hit.start_s) for hit in hits] == [
            ("/audio/one.wav", "/b", 0.0),
            ("/audio/one.wav", "/d", 1.92),
            ("/audio/three.wav", "/e", 0.0),
            ("/audio/two.wav", "/e", 0.0),
            ("/audio/two.wav", "/c", 0.96),
        ]

    def test_the_view_says_the_same(self, world: World, stored: StoredSet) -> None:
        query = (
            "SELECT start_s, end_s, peak, model FROM interval_times WHERE name = 'name /d' AND "
            "threshold_set = 's' AND set_version = 1"
        )
        assert rows(world, query) == [(pytest.approx(1.92), 10.0, 0.8, MODEL.name)]

    def test_an_unknown_node(self, world: World, stored: StoredSet) -> None:
        with pytest.raises(DatabaseUserError, match="no node"):
            of_set(world.engine, stored, "/x")


def test_an_ambiguous_class_counts_in_company_only(fresh_db: Engine) -> None:
    ambiguous = "/t/dd00098"
    mids, edges = (*MIDS, ambiguous), (("/a", "/b"), ("/a", "/c"), (ambiguous, "/c"))
    world = make_world(fresh_db, mids, edges)
    load(fresh_db, mids, edges)
    for name in ("alone", "with another"):
        labelled(world, name, {})
    stored = store_set(fresh_db, "s", SET, NOW)
    alone, company = pending(world).values()
    batch = [(alone, [found("/c", 0, 1, 0.9)]), (company, [found("/c", 0, 1, 0.9)])]
    batch[1][1].append(found("/b", 5, 5, 0.6))
    commit_intervals(fresh_db, stored, batch, by_index(world), NOW)
    clips = [hit.clip for hit in of_set(fresh_db, stored, "/a")]
    assert clips == [company.clip_sha256]
    assert len(of_set(fresh_db, stored, "/a", with_ambiguous=True)) == 2
    assert len(of_set(fresh_db, stored, "/c")) == 2


def test_a_clip_without_a_patch_is_done_once(world: World) -> None:
    claim = claimed(world, "short")
    short = replace(labelling(claim, "short"), n_patches=0, scores_path=None, scores_sha256=None)
    assert commit_labellings(world.engine, world.variant, [short], RUN, NOW) == [True]
    stored = store_set(world.engine, "s", SET, NOW)
    (clip,) = pending(world).values()
    assert commit_intervals(world.engine, stored, [(clip, [])], by_index(world), NOW) == 1
    assert pending(world) == {}
