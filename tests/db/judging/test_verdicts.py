"""Verdicts and their history; samples and what the verdicts say of them; on both databases."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from statistics import mean, stdev

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, func, select, text

from audioset_core.records import Detection
from db.engine import reading
from db.errors import DatabaseUserError
from db.judging.review_sample import ReviewSample, review_sample, score_bin
from db.judging.reviews import judged_reviews, store_review
from db.judging.verdicts import (
    UNKNOWN,
    Verdict,
    VerdictFile,
    clip_facts,
    find_verdicts,
    imported_files,
    iter_recordings,
    store_verdicts,
)
from db.query.per_class import random_rank
from db.query.question import Question
from db.schema.verdict_tables import review_items, reviews, verdicts
from tests.db.build import INDEX, NOW, World, labelled, make_world, sha

FILE = VerdictFile("f" * 64, "/x/v.csv", "table")


@pytest.fixture
def world(fresh_db: Engine) -> World:
    return make_world(fresh_db)


def _verdict(
    clip: str, mid: str, verdict: str, by: str = "anna", at: datetime = NOW,
    span_ms: tuple[int, int] | None = None, place: str = "line 2",
) -> Verdict:  # fmt: skip
    return Verdict(sha(clip), mid, span_ms, verdict, by, at, place)


def _store(world: World, *said: Verdict, file: str = "f") -> int:
    own = VerdictFile(file * 64, f"/x/{file}.csv", "table")
    return store_verdicts(world.engine, own, said, NOW)


def _now(world: World) -> list[tuple[object, ...]]:
    query = "SELECT mid, start_s, end_s, verdict, judged_by, file FROM verdicts_now"
    with world.engine.connect() as conn:
        return [tuple(row) for row in conn.execute(text(query))]


class TestHistory:
    def test_the_newest_of_a_person_class_and_span_speaks(self, world: World) -> None:
        labelled(world, "one", {"/b": 0.9})
        later = NOW + timedelta(hours=1)
        _store(
            world,
            _verdict("one", "/b", "absent"),
            _verdict("one", "/b", "present", span_ms=(0, 1500)),
            _verdict("one", "/b", "unsure", by="bo"),
            file="a",
        )
        # A file that is imported later but was judged earlier changes nothing.
        _store(world, _verdict("one", "/b", "present", at=NOW - timedelta(days=1)), file="b")
        assert {(r[1], r[3], r[4]) for r in _now(world)} == {
            (None, "absent", "anna"), (0.0, "present", "anna"), (None, "unsure", "bo"),
        }  # fmt: skip
        _store(world, _verdict("one", "/b", "present", at=later), file="c")
        assert (("/b", None, None, "present", "anna", "/x/c.csv")) in _now(world)
        history = find_verdicts(world.engine, history=True)
        assert len(history) == 5
        assert Counter(each.is_newest for each in history) == {True: 3, False: 2}
        newest = {(e.start_s, e.verdict, e.judged_by) for e in find_verdicts(world.engine)}
        assert newest == {(r[1], r[3], r[4]) for r in _now(world)}
        assert {e.path_text for e in history} == {"/audio/one.wav"}

    def test_the_same_file_again_adds_nothing(self, world: World) -> None:
        labelled(world, "one", {"/b": 0.9})
        said = [_verdict("one", "/b", "absent"), _verdict("one", "/c", "present", by=UNKNOWN)]
        assert _store(world, *said) == 2
        assert _store(world, *said) == 0
        # Who does not say who judged says nothing new; who does may say it.
        assert _store(world, _verdict("one", "/b", "absent", by=UNKNOWN)) == 0
        assert _store(world, _verdict("one", "/c", "present", by="bo")) == 1
        # What could not be matched before comes in.
        labelled(world, "two", {"/b": 0.9})
        assert _store(world, *said, _verdict("two", "/b", "absent")) == 1
        (file,) = imported_files(world.engine)
        assert (file.n_present, file.n_absent, file.n_unsure, file.n_clips) == (2, 2, 0, 2)
        assert file.name == "/x/f.csv"

    def test_imports_at_the_same_time(self, world: World) -> None:
        for n in range(20):
            labelled(world, f"k{n}", {"/b": 0.9})
        said = [_verdict(f"k{n}", "/b", "absent") for n in range(20)]
        with ThreadPoolExecutor(4) as threads:
            stored = list(threads.map(lambda _: _store(world, *said), range(4)))
        assert sorted(stored) == [0, 0, 0, 20]
        assert len(find_verdicts(world.engine, history=True)) == 20

    def test_recordings_to_match_come_in_pages(self, world: World) -> None:
        for n in range(5):
            labelled(world, f"k{n}", {"/b": 0.9})
        found = list(iter_recordings(world.engine, page=2))
        assert [(clip, path) for _, clip, path, _ in found] == [
            (sha(f"k{n}"), b"/audio/k%d.wav" % n) for n in range(5)
        ]
        facts = clip_facts(world.engine, [clip_id for clip_id, *_ in found])
        assert facts == {clip_id: (clip, 10.0) for clip_id, clip, *_ in found}
        # What is stored in parts is stored.
        said = [_verdict(f"k{n}", "/b", "absent") for n in range(5)]
        assert (_store(world, *said), _store(world, *said)) == (5, 0)

    def test_below_a_node_and_of_a_clip(self, world: World) -> None:
        labelled(world, "one", {"/b": 0.9})
        labelled(world, "two", {"/b": 0.9})
        _store(world, _verdict("one", "/d", "absent"), _verdict("two", "/e", "present"))
        assert [v.mid for v in find_verdicts(world.engine, under="/a")] == ["/d"]
        assert [v.mid for v in find_verdicts(world.engine, clip=sha("two"))] == ["/e"]
        with pytest.raises(DatabaseUserError, match="no node '/x'"):
            find_verdicts(world.engine, under="/x")
        with pytest.raises(DatabaseUserError, match="no node '/x'"):
            _store(world, _verdict("one", "/x", "absent"))

    @settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(
        said=st.lists(
            st.tuples(
                st.sampled_from(["/b", "/c"]), st.sampled_from(["present", "absent", "unsure"]),
                st.sampled_from(["anna", "bo"]), st.integers(0, 3),
                st.sampled_from([None, (0, 1000), (500, 1000)]),
            ),
            min_size=1, max_size=12,
        ),
    )  # fmt: skip
    def test_the_view_is_what_replaying_gives(
        self, world: World, said: list[tuple[str, str, str, int, tuple[int, int] | None]]
    ) -> None:
        with world.engine.begin() as conn:
            conn.execute(text("DELETE FROM verdicts"))
        if not _has_clip(world):
            labelled(world, "one", {"/b": 0.9})
        expected: dict[tuple[object, ...], tuple[int, str]] = {}
        for n, (mid, verdict, by, hours, span_ms) in enumerate(said):
            at = NOW + timedelta(hours=hours)
            _store(
                world,
                _verdict("one", mid, verdict, by, at, span_ms, f"line {n}"),
                file="abcdef"[n % 6],
            )
            start = None if span_ms is None else span_ms[0] / 1000
            key = (mid, by, start)
            if hours >= expected.get(key, (-1, ""))[0]:
                expected[key] = hours, verdict
        found = {(r[0], r[4], r[1]): r[3] for r in _now(world)}
        assert found == {key: verdict for key, (_, verdict) in expected.items()}


def _has_clip(world: World) -> bool:
    with reading(world.engine) as conn:
        return bool(conn.execute(text("SELECT COUNT(*) FROM clips")).scalar())


def _heard(mid: str, start: int, end: int, peak: float) -> Detection:
    return Detection(INDEX[mid], start, end, peak, peak / 2, start)


def _many(world: World) -> None:
    """/b 12 clips, /c 6, /d 3; scores from 0.21 up; /b's clips with 0.96 s, /c's with 1.92 s."""
    for mid, n_clips, last in (("/b", 12, 0), ("/c", 6, 2), ("/d", 3, 0)):
        for n in range(n_clips):
            score = round(0.21 + 0.75 * n / n_clips, 4)
            labelled(world, f"{mid}{n}", {mid: score, "/e": 0.5}, [_heard(mid, 0, last, score)])


def _drawn(world: World, size: int, per_class: int, seed: int = 0, **more: object) -> ReviewSample:
    question = Question(under=("/a",), **more)  # type: ignore[arg-type]
    return review_sample(world.engine, question, size, per_class=per_class, seed=seed)


class TestSample:
    def test_the_best_class_is_asked_about_and_its_best_interval(self, world: World) -> None:
        labelled(
            world, "one", {"/b": 0.9, "/d": 0.8},
            [_heard("/b", 0, 4, 0.9), _heard("/d", 3, 8, 0.8), _heard("/d", 15, 19, 0.3)],
        )  # fmt: skip
        labelled(world, "two", {"/c": 0.6}, [_heard("/c", 0, 0, 0.6)])
        labelled(world, "three", {"/d": 0.07})
        sample = _drawn(world, 10, 1)
        found = {
            i.clip: (i.mid, i.score, i.start_s, i.end_s, i.peak_s, i.heard_s) for i in sample.items
        }
        # The union of what is heard below /a: 0 to 4.8 s and 7.2 s to the clip's end at 10 s.
        assert found == {
            sha("one"): ("/b", 0.9, 0.0, pytest.approx(2.88), 0.0, pytest.approx(7.6)),
            sha("two"): ("/c", 0.6, 0.0, pytest.approx(0.96), 0.0, pytest.approx(0.96)),
            sha("three"): ("/d", 0.07, None, None, None, 0.0),
        }
        assert sample.root == ("/a", "name /a")
        assert sample.question.min_score == 0.05
        with pytest.raises(DatabaseUserError, match="no node '/x'"):
            review_sample(world.engine, Question(under=("/x",)), 10, per_class=1, seed=0)

    def test_each_class_that_is_asked_about_has_enough(self, world: World) -> None:
        _many(world)
        sample = _drawn(world, 12, 6)
        # Two groups of six: /b, and the rest as the node itself.
        assert dict(sample.n_asked) == {"name /b": 6, "name /a": 6}
        assert sample.pooled == ("name /c", "name /d")
        n_clips = {
            mid: sum(s.n_clips for s in sample.strata if s.mid == mid) for mid in ("/b", None)
        }
        assert n_clips == {"/b": 12, None: 9}
        heard = {mid: sum(s.heard_s for s in sample.strata if s.mid == mid) for mid in ("/b", None)}
        assert heard == {"/b": pytest.approx(12 * 0.96), None: pytest.approx(6 * 1.92 + 3 * 0.96)}
        lows = sorted({s.low for s in sample.strata})
        assert lows == pytest.approx([0.05, 0.3667, 0.6833], abs=1e-4)
        for item in sample.items:
            stratum = sample.strata[item.stratum]
            assert item.mid == (stratum.mid or "/a")
            assert lows[score_bin(item.score, 0.05, 3)] == stratum.low
        assert Counter(i.stratum for i in sample.items if i.mid == "/b") == {0: 2, 1: 2, 2: 2}

    def test_all_classes_are_asked_about_if_there_are_enough_clips_to_draw(
        self, world: World
    ) -> None:
        _many(world)
        sample = _drawn(world, 100, 4)
        assert dict(sample.n_asked) == {"name /b": 12, "name /c": 6, "name /d": 3}
        assert sample.pooled == ()
        assert len({item.clip for item in sample.items}) == 21

    def test_one_group_asks_about_the_node_itself(self, world: World) -> None:
        _many(world)
        sample = _drawn(world, 6, 10)
        assert dict(sample.n_asked) == {"name /a": 6}
        assert sample.pooled == ("name /b", "name /c", "name /d")

    def test_a_larger_sample_holds_the_smaller(self, world: World) -> None:
        _many(world)
        small, large = _drawn(world, 8, 8), _drawn(world, 15, 8, seed=0)
        # Both have one group with the same parts of the scores.
        assert {i.clip for i in small.items} < {i.clip for i in large.items}
        assert {i.clip for i in _drawn(world, 8, 8, seed=1).items} != {i.clip for i in small.items}

    def test_every_condition_of_the_question_holds(self, world: World) -> None:
        _many(world)
        assert len(_drawn(world, 100, 4, paths=("*c[0-3].wav",)).items) == 4
        assert {i.score >= 0.6 for i in _drawn(world, 100, 4, min_score=0.6).items} == {True}
        with pytest.raises(DatabaseUserError, match="no labels by a model called 'none'"):
            _drawn(world, 10, 1, model="none")


def test_lots_are_drawn_evenly() -> None:
    """Over many seeds each clip is as often among the first four of twelve."""
    clips, n_seeds = [sha(str(n)) for n in range(12)], 3_000
    times = Counter(
        clip
        for seed in range(n_seeds)
        for clip in sorted(clips, key=partial(random_rank, seed))[:4]
    )
    # 1,000 each, with a standard deviation of 26.
    assert {clip: abs(n - 1_000) < 4 * 26 for clip, n in times.items()} == dict.fromkeys(
        clips, True
    )


def test_a_sample_is_the_same_on_both_databases(world: World) -> None:
    """The clips by their lots, literally: what decides depends on neither."""
    _many(world)
    names = {sha(f"{mid}{n}"): f"{mid}{n}" for mid in ("/b", "/c", "/d") for n in range(12)}
    assert [names[i.clip] for i in _drawn(world, 6, 3, seed=7).items] == [
        "/b2", "/c5", "/b3", "/c2", "/b7", "/c0"
    ]  # fmt: skip


class TestReviews:
    def test_a_sample_is_kept_once(self, world: World) -> None:
        _many(world)
        first = store_review(world.engine, _drawn(world, 8, 4), NOW)
        assert store_review(world.engine, _drawn(world, 8, 4), NOW) == first
        assert store_review(world.engine, _drawn(world, 8, 4, seed=5), NOW) != first
        labelled(world, "more", {"/b": 0.3}, [_heard("/b", 0, 0, 0.3)])
        assert store_review(world.engine, _drawn(world, 8, 4, seed=5), NOW) > first + 1
        with reading(world.engine) as conn:
            assert conn.execute(select(func.count()).select_from(reviews)).scalar() == 3
            assert conn.execute(select(func.count()).select_from(review_items)).scalar() == 24

    def test_what_verdicts_say_of_a_sample(self, world: World) -> None:
        for n in range(8):
            labelled(world, f"k{n}", {"/b": 0.9}, [_heard("/b", 4, 6, 0.9)])  # its best at 1.92 s
        store_review(world.engine, _drawn(world, 8, 8), NOW)
        near, far = (1000, 3000), (5000, 6000)
        _store(
            world,
            _verdict("k0", "/d", "present", span_ms=near),  # below /a
            _verdict("k1", "/a", "absent", span_ms=near),
            _verdict("k2", "/b", "absent", span_ms=near),  # may be another /a
            _verdict("k3", "/a", "absent", span_ms=far),  # not where it is heard
            _verdict("k4", "/a", "absent"),
            _verdict("k5", "/a", "unsure", span_ms=near),
            _verdict("k6", "/a", "absent", span_ms=near),
            _verdict("k6", "/c", "present", "bo", span_ms=near),  # contradicts
            _verdict("k7", "/a", "absent", span_ms=near),
            _verdict("k7", "/a", "present", span_ms=far),  # elsewhere
        )
        (review,) = judged_reviews(world.engine, "/a")
        with reading(world.engine) as conn:
            order = conn.execute(
                text("SELECT sha256 FROM review_items JOIN clips ON id = clip_id ORDER BY id")
            )
            names = {sha(f"k{n}"): n for n in range(8)}
            by_clip = {
                names[s]: i.is_true for s, i in zip(order.scalars(), review.items, strict=True)
            }
        assert by_clip == {0: True, 1: False, 2: None, 3: None, 4: False, 5: None, 6: None, 7: True}
        assert (review.n_judged, review.n_contradicting) == (4, 1)
        assert sum(s.n_clips for s in review.strata) == 8
        assert list(judged_reviews(world.engine, "/b")) == []

    def test_a_verdict_that_was_changed_counts_as_it_is_now(self, world: World) -> None:
        labelled(world, "one", {"/b": 0.9}, [_heard("/b", 0, 0, 0.9)])
        store_review(world.engine, _drawn(world, 1, 1), NOW)
        _store(world, _verdict("one", "/b", "present"), file="a")
        _store(world, _verdict("one", "/b", "unsure", at=NOW + timedelta(hours=1)), file="b")
        (review,) = judged_reviews(world.engine, "/a")
        assert [i.is_true for i in review.items] == [None]
        with reading(world.engine) as conn:
            assert conn.execute(select(func.count()).select_from(verdicts)).scalar() == 2


@pytest.mark.slow
def test_an_estimate_from_samples_is_right_on_average(world: World) -> None:
    """Drawn again and again, stored, judged, estimated: the mean is the truth."""
    _many(world)
    # Of the dogs and of the rest other shares are true, the more the higher the score.
    levels = {"/b": 8, "/c": 2, "/d": 0}
    true = {sha(f"{mid}{n}"): n > level for mid, level in levels.items() for n in range(12)}
    found = []
    for seed in range(120):
        sample = _drawn(world, 8, 4, seed)
        store_review(world.engine, sample, NOW)
        said = [
            _verdict("", "/a", "present" if true[i.clip] else "absent", by=f"{seed}")
            for i in sample.items
        ]
        said = [replace(v, clip=i.clip) for v, i in zip(said, sample.items, strict=True)]
        _store(world, *said)
        review = next(judged_reviews(world.engine, "/a"))
        total = 0.0
        for n, stratum in enumerate(review.strata):
            own = [i.is_true for i in review.items if i.stratum == n]
            assert None not in own
            total += stratum.n_clips * sum(map(bool, own)) / len(own)
        found.append(total)
    n_true = 3 + 3 + 2
    assert mean(found) == pytest.approx(n_true, abs=4 * stdev(found) / len(found) ** 0.5)
    assert stdev(found) > 0.5
