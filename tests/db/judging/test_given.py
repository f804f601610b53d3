"""Verdicts given one by one, withdrawn, and by several people on one sample; on both databases."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from sqlalchemy import Engine, text

from audioset_core.records import Detection
from db.errors import DatabaseUserError
from db.judging.given import give_verdict
from db.judging.review_sample import review_sample
from db.judging.reviews import judged_review, store_review
from db.judging.shared_reviews import answers, judges, list_reviews, shared_review
from db.judging.verdicts import Verdict, count_verdicts, find_verdicts, imported_files
from db.query.question import Question
from tests.db.build import INDEX, NOW, World, labelled, make_world, sha


@pytest.fixture
def world(fresh_db: Engine) -> World:
    return make_world(fresh_db)


def _give(
    world: World, clip: str, mid: str, verdict: str, by: str = "anna", *,
    minute: int = 0, span_ms: tuple[int, int] | None = None, name: str = "",
) -> bool:  # fmt: skip
    at = NOW + timedelta(minutes=minute)
    place = name or f"{clip} {mid} {verdict} {by} {minute}"
    said = Verdict(sha(clip), mid, span_ms, verdict, by, at, place)
    return give_verdict(world.engine, said, NOW + timedelta(hours=1))


def _counting(world: World) -> set[tuple[str, str, str]]:
    return {(v.mid, v.verdict, v.judged_by) for v in find_verdicts(world.engine)}


class TestGiven:
    def test_what_is_sent_again_is_stored_once(self, world: World) -> None:
        labelled(world, "one", {"/b": 0.9})
        assert _give(world, "one", "/b", "present", name="n1")
        assert not _give(world, "one", "/b", "present", name="n1")
        with ThreadPoolExecutor(4) as threads:
            stored = list(
                threads.map(lambda n: _give(world, "one", "/c", "absent", name=f"m{n % 2}"),
                            range(8))
            )  # fmt: skip
        assert sorted(stored) == [False] * 6 + [True] * 2
        assert len(find_verdicts(world.engine, history=True)) == 3
        (file,) = imported_files(world.engine)
        assert (file.name, file.format, file.n_present, file.n_absent) == (
            "audioset app", "app", 1, 2
        )  # fmt: skip

    def test_a_withdrawal_ends_what_was_said_and_stays_in_the_history(self, world: World) -> None:
        labelled(world, "one", {"/b": 0.9})
        _give(world, "one", "/b", "present", minute=1)
        _give(world, "one", "/b", "absent", "bo", minute=1)
        _give(world, "one", "/b", "withdrawn", minute=2)
        assert _counting(world) == {("/b", "absent", "bo")}
        assert count_verdicts(world.engine) == {"/b": (0, 1)}
        assert judges(world.engine) == ["bo"]
        with world.engine.connect() as conn:
            rows = conn.execute(text("SELECT verdict, judged_by FROM verdicts_now")).all()
        assert [tuple(row) for row in rows] == [("absent", "bo")]
        assert len(find_verdicts(world.engine, history=True)) == 3
        _give(world, "one", "/b", "unsure", minute=3)
        assert ("/b", "unsure", "anna") in _counting(world)

    def test_what_cannot_be_is_refused(self, world: World) -> None:
        labelled(world, "one", {"/b": 0.9})  # 10 s
        with pytest.raises(DatabaseUserError, match="no clip"):
            _give(world, "none", "/b", "present")
        with pytest.raises(DatabaseUserError, match="no class '/x'"):
            _give(world, "one", "/x", "present")
        for span_ms in ((9000, 11_000), (10_000, 10_050), (500, 500), (-1, 5)):
            with pytest.raises(DatabaseUserError, match="no span of this recording"):
                _give(world, "one", "/b", "present", span_ms=span_ms)
        _give(world, "one", "/b", "present", span_ms=(9000, 10_050))
        (only,) = find_verdicts(world.engine)
        assert (only.start_s, only.end_s) == (9.0, 10.0)


class TestShared:
    @pytest.fixture
    def review_id(self, world: World) -> int:
        for n in range(6):
            heard = Detection(INDEX["/b"], 4, 6, 0.9, 0.5, 4)  # from 1.92 to 3.84 s
            labelled(world, f"k{n}", {"/b": 0.9}, [heard])
        drawn = review_sample(world.engine, Question(under=("/a",)), 6, per_class=6, seed=3)
        review_id = store_review(world.engine, drawn, NOW)
        # The order in which it is heard is the one that was drawn.
        shared = shared_review(world.engine, review_id)
        assert [i.clip for i in shared.items] == [i.clip for i in drawn.items]
        return review_id

    def test_everybody_hears_the_same(self, world: World, review_id: int) -> None:
        shared = shared_review(world.engine, review_id)
        assert (shared.mid, shared.name, shared.drawn_at) == ("/a", "name /a", NOW)
        assert {(i.mid, i.peak_s, i.heard, i.window_s, i.duration_s) for i in shared.items} == {
            ("/b", 1.92, (1.92, 3.84), 0.96, 10.0)
        }
        with pytest.raises(DatabaseUserError, match="no sample 99"):
            shared_review(world.engine, 99)
        with pytest.raises(DatabaseUserError, match="no sample 99"):
            answers(world.engine, 99)
        with pytest.raises(DatabaseUserError, match="no sample 99"):
            judged_review(world.engine, 99)

    def test_who_says_what_of_it(self, world: World, review_id: int) -> None:
        near, far = (1000, 3000), (5000, 6000)
        _give(world, "k0", "/b", "present", span_ms=near)
        _give(world, "k0", "/b", "absent", "bo", span_ms=near)
        _give(world, "k1", "/b", "present", span_ms=near, minute=1)
        _give(world, "k1", "/b", "absent", span_ms=None, minute=2)  # of the whole clip, later
        _give(world, "k2", "/b", "absent", span_ms=far)  # not where it is heard
        _give(world, "k3", "/a", "absent", span_ms=near)  # of another class
        _give(world, "k4", "/b", "unsure", "bo")
        _give(world, "k5", "/b", "present", minute=1)
        _give(world, "k5", "/b", "withdrawn", minute=2)
        assert answers(world.engine, review_id) == {
            "anna": {sha("k0"): "present", sha("k1"): "absent"},
            "bo": {sha("k0"): "absent", sha("k4"): "unsure"},
        }
        assert answers(world.engine, review_id, of_node=True) == {
            "anna": {sha("k3"): "absent"},
        }
        (listed,) = list_reviews(world.engine)
        assert (listed.review_id, listed.name, listed.n_clips, listed.n_judged) == (
            review_id, "name /a", 6, 3
        )  # fmt: skip

    def test_what_two_say_differently_does_not_count_until_they_agree(
        self, world: World, review_id: int
    ) -> None:
        _give(world, "k0", "/b", "present", span_ms=(1000, 3000))
        _give(world, "k0", "/a", "absent", "bo", span_ms=(1000, 3000))
        found = judged_review(world.engine, review_id)
        assert (found.n_judged, found.n_contradicting) == (0, 1)
        _give(world, "k0", "/a", "withdrawn", "bo", span_ms=(1000, 3000), minute=1)
        assert judged_review(world.engine, review_id).n_judged == 1
