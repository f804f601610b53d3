"""What the tables promise, and where they disagree with themselves; putting that right."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, Row, delete, insert, select, update

from audioset_core.records import Detection
from db.catalog.sources import triage
from db.engine import reading, writing
from db.integrity import audit, repair
from db.integrity.audit import DoneLabelling, Labels, UndoneLabelling
from db.integrity.closure import ClosureDifference, closure_differences, rebuild_closure
from db.ledger.claims import ENDED, claim_clip, commit_labellings, renew_leases
from db.ledger.runs import finish_run, start_run
from db.records import Claim, FileState, Lease, NotClaimed, RunCounts, RunStatus, Variant
from db.reports.model_comparison import promote
from db.schema.tables import clip_scores, clips, closure, detections, labellings, nodes, sources
from tests.db.build import (
    LEASE_S,
    MODEL,
    NOW,
    RUN,
    World,
    claimed,
    clip,
    enrolled,
    labelled,
    labelling,
    load,
    make_world,
    other_variant,
    seen,
    sha,
)

LATER = NOW + timedelta(hours=3)
OTHER_RUN = "00000000-0000-0000-0000-000000000002"
DETECTION = Detection(0, 3, 5, 0.9, 0.6, 4)


@pytest.fixture
def world(fresh_db: Engine) -> World:
    return make_world(fresh_db)


def _row(world: World, labelling_id: int) -> Row[Any]:
    with reading(world.engine) as conn:
        return conn.execute(select(labellings).where(labellings.c.id == labelling_id)).one()


def _everything(world: World) -> dict[str, list[str]]:
    tables = (labellings, clip_scores, detections, clips, sources, closure)
    with reading(world.engine) as conn:
        return {t.name: sorted(map(repr, conn.execute(select(t)))) for t in tables}


def _done(world: World) -> dict[int, DoneLabelling]:
    return {done.labelling_id: done for done in audit.iter_done(world.engine)}


def _reset(world: World, claim: Claim) -> bool:
    return repair.reset_labelling(world.engine, _done(world)[claim.labelling_id])


def _again(world: World, name: str, variant: Variant | None = None) -> Claim | NotClaimed:
    with reading(world.engine) as conn:
        path = select(sources.c.id).where(sources.c.path == f"/audio/{name}.wav".encode())
        source_id = conn.execute(path).scalar_one()
    chosen = variant or world.variant
    return claim_clip(world.engine, source_id, clip(name), chosen, Lease(OTHER_RUN, LEASE_S, LATER))


def _label(world: World, name: str, variant: Variant) -> Claim:
    """Label a clip that is known, under another variant."""
    start_run(world.engine, OTHER_RUN, "host", 2, {}, LATER)
    claim = _again(world, name, variant)
    assert isinstance(claim, Claim)
    row = labelling(claim, name, {"/b": 0.7})
    assert commit_labellings(world.engine, variant, [row], OTHER_RUN, LATER) == [True]
    return claim


class TestReading:
    def test_finished_labellings_page_by_page(self, world: World) -> None:
        names = ["a", "b", "c", "d", "e"]
        made = {labelled(world, name, {"/b": 0.5}).labelling_id: name for name in names}
        claimed(world, "unfinished")
        assert audit.count_done(world.engine) == 5
        for page in (1, 2, 5, 100):
            found = list(audit.iter_done(world.engine, page))
            assert {done.labelling_id: done.clip_sha256 for done in found} == {
                key: sha(name) for key, name in made.items()
            }
        assert found[0] == DoneLabelling(
            labelling_id=min(made),
            token=1,
            clip_id=found[0].clip_id,
            model_id=world.variant.model_id,
            parameter_set_id=world.variant.parameter_set_id,
            clip_sha256=sha("a"),
            n_samples=160_000,
            sample_rate_hz=16_000,
            n_patches=20,
            score_dtype="float16",
            scores_path=f"tiny/{sha('a')[:2]}/{sha('a')}.npy",
            scores_sha256=sha("scoresa"),
            embeddings_path=None,
            embeddings_sha256=None,
        )

    def test_variants_with_what_they_mean(self, world: World) -> None:
        assert audit.stored_variants(world.engine) == {}
        labelled(world, "a", {})
        (found,) = audit.stored_variants(world.engine).items()
        assert found[0] == world.variant
        assert (found[1].model, found[1].version, found[1].n_classes) == ("tiny", "1", 4)
        assert found[1].parameters["score_floor"] == 0.05
        assert found[1].extra == {}

    def test_labels_as_they_are_stored(self, world: World) -> None:
        claim = labelled(world, "a", {"/b": 0.5, "/d": 0.1234}, [DETECTION])
        with reading(world.engine) as conn:
            ids = {row.mid: row.id for row in conn.execute(select(nodes))}
        assert audit.labels_of(world.engine, claim.labelling_id) == Labels(
            {
                ids["/b"]: {"node_id": ids["/b"], "peak": 0.5, "mean": 0.25},
                ids["/d"]: {"node_id": ids["/d"], "peak": 0.1234, "mean": 0.0617},
            },
            {
                (ids["/b"], 3): {
                    "node_id": ids["/b"], "start_patch": 3, "end_patch": 5, "peak": 0.9,
                    "mean": 0.6, "peak_patch": 4,
                }
            },
        )  # fmt: skip

    def test_names_of_files_by_clip(self, world: World) -> None:
        labelled(world, "a", {})
        labelled(world, "b", {})
        found = audit.named_files(world.engine, [sha("a"), sha("nobody")])
        assert found == {f"tiny/{sha('a')[:2]}/{sha('a')}.npy"}

    def test_sources_page_by_page(self, world: World) -> None:
        claim = labelled(world, "a", {})
        for number in range(3):
            path = f"/copies/{number}.wav"
            with writing(world.engine) as conn:
                row = conn.execute(select(sources)).mappings().first()
                assert row is not None
                copy = dict(row) | {"id": 100 + number, "path": path.encode(), "path_text": path}
                conn.execute(insert(sources), copy | {"path_digest": bytes([number] * 16)})
        found = list(audit.iter_sources(world.engine, claim.clip_id, page=2))
        assert [path for path, _, _ in found] == [
            b"/audio/a.wav", b"/copies/0.wav", b"/copies/1.wav", b"/copies/2.wav",
        ]  # fmt: skip
        assert {(size, mtime) for _, size, mtime in found} == {(1_000, 7)}

    def test_a_sound_database_has_nothing_to_tell(self, world: World) -> None:
        labelled(world, "a", {"/b": 0.5}, [DETECTION])
        claimed(world, "b")
        assert list(audit.iter_undone(world.engine)) == []
        assert list(audit.iter_stray_labels(world.engine)) == []
        assert list(audit.iter_without_current(world.engine)) == []
        assert closure_differences(world.engine) == []


class TestReset:
    def test_the_clip_is_labelled_again_and_nothing_else_changes(self, world: World) -> None:
        labelled(world, "other", {"/b": 0.9}, [DETECTION])
        before = _everything(world)
        claim = labelled(world, "a", {"/b": 0.5, "/c": 0.6}, [DETECTION])
        whole = audit.labels_of(world.engine, claim.labelling_id)
        assert _reset(world, claim)

        row = _row(world, claim.labelling_id)
        assert (row.status, row.lease_until, row.is_current) == ("claimed", ENDED, False)
        assert (row.scores_path, row.n_patches, row.labelled_at) == (None, None, None)
        after = _everything(world)
        for table in ("clip_scores", "detections"):
            assert after[table] == before[table]
        for table in ("labellings", "clips", "sources"):
            assert set(before[table]) <= set(after[table])
        with reading(world.engine) as conn:
            (judged,) = triage(conn, [world.variant], [seen("/audio/a.wav")])
        assert judged.state is FileState.UNLABELLED

        start_run(world.engine, OTHER_RUN, "host", 2, {}, LATER)
        again = _again(world, "a")
        assert isinstance(again, Claim)
        assert (again.labelling_id, again.token) == (claim.labelling_id, 3)
        made = labelling(again, "a", {"/b": 0.5, "/c": 0.6}, [DETECTION])
        assert commit_labellings(world.engine, world.variant, [made], OTHER_RUN, LATER) == [True]
        assert audit.labels_of(world.engine, claim.labelling_id) == whole
        assert _row(world, claim.labelling_id).is_current

    def test_whoever_labelled_it_before_can_do_nothing_with_it(self, world: World) -> None:
        claim = labelled(world, "a", {"/b": 0.5})
        assert _reset(world, claim)
        row = labelling(claim, "a", {"/b": 0.5})
        assert commit_labellings(world.engine, world.variant, [row], RUN, NOW) == [False]
        assert renew_leases(world.engine, Lease(RUN, LEASE_S, NOW)) == 0
        finish_run(world.engine, RUN, RunStatus.COMPLETED, RunCounts(), None, NOW)
        assert _row(world, claim.labelling_id).lease_until == ENDED

    def test_what_changed_since_is_left_alone(self, world: World) -> None:
        claim = labelled(world, "a", {"/b": 0.5}, [DETECTION])
        stale = replace(_done(world)[claim.labelling_id], token=7)
        before = _everything(world)
        assert not repair.reset_labelling(world.engine, stale)
        assert not repair.correct_labelling(world.engine, stale, {"n_patches": 3})
        assert not repair.rewrite_labels(world.engine, stale, Labels({}, {}))
        assert _everything(world) == before

    def test_undone_ones_are_listed_until_somebody_takes_them(self, world: World) -> None:
        claims = [labelled(world, name, {}) for name in "abc"]
        for claim in claims:
            _reset(world, claim)
        claimed(world, "unfinished")
        for page in (1, 2, 9):
            assert list(audit.iter_undone(world.engine, world.variant, page)) == [
                UndoneLabelling(claim.labelling_id, claim.clip_id, claim.sha256, None)
                for claim in claims
            ]
        start_run(world.engine, OTHER_RUN, "host", 2, {}, LATER)
        assert isinstance(_again(world, "b"), Claim)
        left = [undone.labelling_id for undone in audit.iter_undone(world.engine)]
        assert left == [claims[0].labelling_id, claims[2].labelling_id]

    def test_another_labelling_speaks_meanwhile(self, world: World) -> None:
        first = labelled(world, "a", {"/b": 0.5})
        second = _label(world, "a", other_variant(world))
        assert _row(world, second.labelling_id).is_current
        assert _reset(world, second)
        assert _row(world, first.labelling_id).is_current
        (undone,) = audit.iter_undone(world.engine)
        assert undone.current_id is None  # it takes the word back, as the newest
        again = _again(world, "a", other_variant(world))
        assert isinstance(again, Claim)
        row = labelling(again, "a", {"/b": 0.7})
        commit_labellings(world.engine, other_variant(world), [row], OTHER_RUN, LATER)
        assert _row(world, second.labelling_id).is_current

    def test_one_that_did_not_speak_gives_the_word_back(self, world: World) -> None:
        first = labelled(world, "a", {"/b": 0.5})
        second = _label(world, "a", other_variant(world))
        assert _reset(world, first)
        (undone,) = audit.iter_undone(world.engine)
        assert undone.current_id == second.labelling_id
        again = _again(world, "a")
        assert isinstance(again, Claim)
        row = labelling(again, "a", {"/b": 0.5})
        commit_labellings(world.engine, world.variant, [row], OTHER_RUN, LATER)
        assert _row(world, first.labelling_id).is_current
        pairs = [(first.labelling_id, second.labelling_id)]
        for _ in range(2):  # the second time there is nothing to give back
            repair.restore_current(world.engine, pairs)
            assert _row(world, second.labelling_id).is_current
            assert not _row(world, first.labelling_id).is_current

    @pytest.mark.past_ledger
    def test_the_promoted_model_speaks_first(self, world: World) -> None:
        promoted = labelled(world, "a", {"/b": 0.5})
        second = _label(world, "a", other_variant(world))
        third = other_variant(world, replace(MODEL, version="3", weights_sha256="c" * 64))
        claim = _again(world, "a", third)
        assert isinstance(claim, Claim)
        row = labelling(claim, "a", {"/b": 0.7})
        commit_labellings(world.engine, third, [row], OTHER_RUN, LATER)
        promote(world.engine, "tiny@1")
        with writing(world.engine) as conn:  # as a promotion that did not reach this clip
            conn.execute(update(labellings).values(is_current=False))
            one = update(labellings).where(labellings.c.id == claim.labelling_id)
            conn.execute(one.values(is_current=True))
        assert _reset(world, claim)
        assert _row(world, promoted.labelling_id).is_current
        assert not _row(world, second.labelling_id).is_current


class TestRows:
    def test_what_a_row_says_of_its_file(self, world: World) -> None:
        claim = labelled(world, "a", {"/b": 0.5})
        done = _done(world)[claim.labelling_id]
        values = {"n_patches": 9, "scores_sha256": "f" * 64}
        assert repair.correct_labelling(world.engine, done, values)
        assert _done(world)[claim.labelling_id] == replace(done, **values)

    def test_labels_are_replaced(self, world: World) -> None:
        untouched = labelled(world, "b", {"/b": 0.4}, [DETECTION])
        kept = audit.labels_of(world.engine, untouched.labelling_id)
        claim = labelled(world, "a", {"/b": 0.5, "/d": 0.2}, [DETECTION])
        right = audit.labels_of(world.engine, claim.labelling_id)
        done = _done(world)[claim.labelling_id]
        assert repair.rewrite_labels(world.engine, done, Labels({}, {}))
        assert audit.labels_of(world.engine, claim.labelling_id) == Labels({}, {})
        assert repair.rewrite_labels(world.engine, done, right)
        assert audit.labels_of(world.engine, claim.labelling_id) == right
        assert audit.labels_of(world.engine, untouched.labelling_id) == kept

    def test_labels_of_an_unfinished_labelling(self, world: World) -> None:
        done = labelled(world, "a", {"/b": 0.5}, [DETECTION])
        before = _everything(world)
        claims = [claimed(world, name) for name in "bcd"]
        with writing(world.engine) as conn:
            for row in conn.execute(select(clip_scores)).mappings().all():
                stray = {**row, "labelling_id": claims[0].labelling_id}
                conn.execute(insert(clip_scores), stray)
            for row in conn.execute(select(detections)).mappings().all():
                stray = {**row, "labelling_id": claims[1].labelling_id}
                conn.execute(insert(detections), stray)
        for page in (1, 9):
            assert list(audit.iter_stray_labels(world.engine, page)) == [
                (claims[0].labelling_id, sha("b")), (claims[1].labelling_id, sha("c")),
            ]  # fmt: skip
        assert not repair.remove_stray_labels(world.engine, done.labelling_id)
        for claim in claims:
            assert repair.remove_stray_labels(world.engine, claim.labelling_id)
        after = _everything(world)
        assert (after["clip_scores"], after["detections"]) == (
            before["clip_scores"], before["detections"],
        )  # fmt: skip

    @pytest.mark.past_ledger
    def test_clips_that_nothing_speaks_for(self, world: World) -> None:
        names = "abc"
        claims = {name: labelled(world, name, {"/b": 0.5}) for name in names}
        unfinished = claimed(world, "d")
        with writing(world.engine) as conn:
            one = labellings.c.id == claims["b"].labelling_id
            conn.execute(update(labellings).where(one).values(is_current=False))
            one = labellings.c.id == unfinished.labelling_id
            conn.execute(update(labellings).where(one).values(is_current=True))
        for page in (1, 9):
            assert list(audit.iter_without_current(world.engine, page)) == [
                (claims["b"].clip_id, sha("b")), (unfinished.clip_id, sha("d")),
            ]  # fmt: skip
        for clip_id, _ in list(audit.iter_without_current(world.engine)):
            repair.choose_current(world.engine, clip_id)
        assert list(audit.iter_without_current(world.engine)) == []
        assert _row(world, claims["b"].labelling_id).is_current
        assert not _row(world, unfinished.labelling_id).is_current


class TestClosure:
    @pytest.fixture
    def ids(self, world: World) -> dict[str, int]:
        with reading(world.engine) as conn:
            return {row.mid: row.id for row in conn.execute(select(nodes))}

    def _change(self, world: World, ids: dict[str, int], how: str) -> ClosureDifference:
        pair = (closure.c.ancestor_id == ids["/a"]) & (closure.c.descendant_id == ids["/d"])
        with writing(world.engine) as conn:
            if how == "missing":
                conn.execute(delete(closure).where(pair))
                return ClosureDifference("/a", "/d", None, 2)
            if how == "depth":
                conn.execute(update(closure).where(pair).values(depth=1))
                return ClosureDifference("/a", "/d", 1, 2)
            if how == "itself":
                own = (closure.c.ancestor_id == ids["/e"]) & (closure.c.descendant_id == ids["/e"])
                conn.execute(delete(closure).where(own))
                return ClosureDifference("/e", "/e", None, 0)
            extra = {"ancestor_id": ids["/b"], "descendant_id": ids["/c"], "depth": 1}
            conn.execute(insert(closure), extra)
            return ClosureDifference("/b", "/c", 1, None)

    @pytest.mark.parametrize("how", ["missing", "depth", "itself", "extra"])
    def test_damage_is_found_and_put_right(
        self, world: World, ids: dict[str, int], how: str
    ) -> None:
        before = _everything(world)
        wrong = self._change(world, ids, how)
        assert closure_differences(world.engine) == [wrong]
        assert rebuild_closure(world.engine) == 1
        assert rebuild_closure(world.engine) == 0
        assert _everything(world) == before
        assert not load(world.engine)  # as the ontology itself would store it

    def test_a_closure_that_is_gone(self, world: World) -> None:
        before = _everything(world)
        with writing(world.engine) as conn:
            conn.execute(delete(closure))
        assert rebuild_closure(world.engine) == len(before["closure"])
        assert _everything(world) == before


class TestUnwantedFiles:
    PATH = "scores/tiny/00/x.npy"

    def _is_unwanted(self, world: World, name: str, path: str = PATH) -> bool:
        silent_since = NOW - timedelta(hours=1)
        with repair.holding_stray_file(world.engine, path, sha(name), silent_since, NOW) as is_so:
            return is_so

    def test_a_named_file_is_wanted(self, world: World) -> None:
        labelled(world, "a", {})
        before = _everything(world)
        assert not self._is_unwanted(world, "a", f"tiny/{sha('a')[:2]}/{sha('a')}.npy")
        assert self._is_unwanted(world, "a")
        assert _everything(world) == before

    def test_a_clip_that_nobody_knows_leaves_no_row(self, world: World) -> None:
        before = _everything(world)
        assert self._is_unwanted(world, "nobody")
        assert _everything(world) == before

    @pytest.mark.parametrize("ago_s", [-LEASE_S, 600.0])
    def test_a_claim_that_may_be_alive_is_respected(self, world: World, ago_s: float) -> None:
        taken_at = NOW - timedelta(seconds=ago_s)
        claim = claimed(world, "a", now=taken_at)
        assert not self._is_unwanted(world, "a")
        row = labelling(claim, "a", {})
        assert commit_labellings(world.engine, world.variant, [row], RUN, NOW) == [True]

    def test_a_claim_that_was_silent_for_long_is_void(self, world: World) -> None:
        claim = claimed(world, "a", now=NOW - timedelta(hours=2))
        assert self._is_unwanted(world, "a")
        row = labelling(claim, "a", {})
        assert commit_labellings(world.engine, world.variant, [row], RUN, NOW) == [False]
        start_run(world.engine, OTHER_RUN, "host", 2, {}, LATER)
        assert isinstance(_again(world, "a"), Claim)

    def test_an_error_inside_keeps_the_claim(self, world: World) -> None:
        claim = claimed(world, "a", now=NOW - timedelta(hours=2))
        silent_since = NOW - timedelta(hours=1)
        with (
            pytest.raises(KeyboardInterrupt),
            repair.holding_stray_file(world.engine, self.PATH, sha("a"), silent_since, NOW),
        ):
            raise KeyboardInterrupt
        row = labelling(claim, "a", {})
        assert commit_labellings(world.engine, world.variant, [row], RUN, NOW) == [True]

    @pytest.mark.parametrize("name", ["silent", "unknown"])
    def test_whoever_comes_meanwhile_waits(self, world: World, name: str) -> None:
        """Also where the clip has no row yet."""
        claimed(world, "silent", now=NOW - timedelta(hours=2))
        (item,) = enrolled(world, seen(f"/new/{name}.wav"))
        order: list[str] = []

        def come() -> None:
            outcome = claim_clip(
                world.engine, item.source_id, clip(name), world.variant, Lease(RUN, LEASE_S, LATER)
            )
            assert isinstance(outcome, Claim)
            order.append("claimed")

        thread = threading.Thread(target=come)
        silent_since = NOW - timedelta(hours=1)
        with repair.holding_stray_file(
            world.engine, self.PATH, sha(name), silent_since, NOW
        ) as is_unwanted:
            assert is_unwanted
            thread.start()
            thread.join(0.3)
            order.append("deleted")
        thread.join(30)
        assert order == ["deleted", "claimed"]
