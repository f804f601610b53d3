"""What taught models say counts beside the current labellings, each clip once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import Engine, select, text

from audioset_core.records import ClassScore, Detection
from db.catalog.model_registry import register_model
from db.engine import reading
from db.integrity.audit import iter_done
from db.integrity.repair import choose_current, reset_labelling
from db.ledger.claims import claim_clip, claim_known, commit_labellings
from db.query.hours import hours_heard
from db.query.question import Question
from db.records import Claim, KnownClip, Labelling, Lease, Variant
from db.reports.export_rows import labelled as exported
from db.reports.model_comparison import retire
from db.reports.model_coverage import sole_speaker
from db.reports.score_curves import score_curves
from db.schema.tables import clips, labellings, models
from tests.db.build import (
    EDGES,
    INDEX,
    LEASE_S,
    MIDS,
    MODEL,
    NOW,
    RUN,
    World,
    clip,
    labelled,
    labelling,
    make_world,
    other_variant,
    sha,
    top_clips,
)

SAW, BELL = "x:saw", "x:bell"
OWN = ((0, SAW, "Saw"), (1, "/b", "/b"))


@pytest.fixture
def world(fresh_db: Engine) -> World:
    """Below /a are /b, /c, /d and the own class of a saw, which is below /b."""
    return make_world(fresh_db, (*MIDS, SAW, BELL), (*EDGES, ("/b", SAW), ("/a", BELL)))


def _taught(world: World, version: str = "1") -> Variant:
    model = replace(
        MODEL, name="mine", version=version, weights_sha256=sha(version), categories=OWN,
        is_taught=True,
    )  # fmt: skip
    return replace(world.variant, model_id=register_model(world.engine, model, NOW))


def _say(
    world: World, variant: Variant, of: Claim, peaks: Mapping[str, float], hours: int = 1
) -> None:
    """A taught labelling of a clip, with a detection of two patches for each class."""
    now = NOW + timedelta(hours=hours)
    known = KnownClip(of.clip_id, of.sha256, of.source_id)
    (claim,) = claim_known(world.engine, [known], variant, Lease(RUN, LEASE_S, now))
    assert claim is not None
    index = {mid: at for at, mid, _ in OWN}
    row = Labelling(
        claim, None, 20, f"mine/{of.sha256}.npy", sha("mine"), "float16",
        class_scores=tuple(ClassScore(index[m], p, p) for m, p in peaks.items()),
        detections=tuple(Detection(index[m], 2, 3, p, p, 2) for m, p in peaks.items()),
    )  # fmt: skip
    assert commit_labellings(world.engine, variant, [row], RUN, now) == [True]


def _found(world: World, under: str, **conditions: object) -> list[tuple[str, str, float]]:
    names = {sha(name): name for name in "abcd"}
    found = top_clips(world.engine, under, **conditions)  # type: ignore[arg-type]
    return [(names[hit.clip], hit.mid, hit.score) for hit in found]


def _current(world: World, name: str = "a") -> str:
    with reading(world.engine) as conn:
        query = (
            select(models.c.name, models.c.version)
            .join(labellings, labellings.c.model_id == models.c.id)
            .join(clips, clips.c.id == labellings.c.clip_id)
            .where(labellings.c.is_current, clips.c.sha256 == sha(name))
        )
        return "@".join(conn.execute(query).one())


def test_both_answer_and_a_clip_is_found_once(world: World) -> None:
    b = Detection(INDEX["/b"], 0, 2, 0.9, 0.9, 1)
    first = labelled(world, "a", {"/b": 0.9}, [b])
    second = labelled(world, "b", {"/b": 0.8, "/c": 0.7})
    labelled(world, "c", {"/b": 0.6})
    mine = _taught(world)
    assert sole_speaker(world.engine, SAW) is None  # it has labelled nothing
    _say(world, mine, first, {"/b": 0.95})
    _say(world, mine, second, {SAW: 0.85})
    assert {_current(world, name) for name in "abc"} == {"tiny@1"}
    assert _found(world, SAW) == [("b", SAW, 0.85)]
    every = [("a", "/b", 0.95), ("b", SAW, 0.85), ("c", "/b", 0.6)]
    # The row of a that another model has of the same class does not push the others out.
    assert [_found(world, "/b", limit=n) for n in (1, 2, 3)] == [every[:1], every[:2], every]
    # Another sound of a clip may be another model's.
    assert _found(world, SAW, all_of=("/c",)) == every[1:2]
    assert _found(world, "/c", all_of=(SAW,)) == [("b", "/c", 0.7)]
    assert _found(world, "/b", not_under=(SAW,)) == [every[0], every[2]]
    assert _found(world, "/b", model="tiny")[0] == ("a", "/b", 0.9)
    assert _found(world, "/b", model="mine", not_under=(SAW,)) == every[:1]
    assert sole_speaker(world.engine, SAW) is None
    # Patches 0 to 2 and 2 to 3 of a, and 2 to 3 of b, of 0.96 s every 0.48 s.
    (hours,) = hours_heard(world.engine, Question(under=("/b",)), "source")[:1]
    assert (hours.n_clips, hours.hours * 3600) == (1, pytest.approx(2.4))
    (curve, *_) = score_curves(world.engine, "/b", 0.2)
    assert (curve.scores, curve.n_clips) == ((0.95, 0.85, 0.6), (1, 1, 1))
    _, own = (c for c in score_curves(world.engine, "/b", 0.2) if c.mid == "/b")
    assert (own.scores, own.n_clips) == ((0.95, 0.8, 0.6), (1, 1, 1))
    with reading(world.engine) as conn:
        rows = [(row.clip, [e.mid for e in events]) for row, events in exported(conn, Question())]
    assert rows == [(sha("a"), ["/b", "/b"]), (sha("b"), [SAW]), (sha("c"), [])]


def test_the_newest_version_counts_until_it_is_retired(world: World) -> None:
    own = labelled(world, "a", {"/b": 0.5})
    other = labelled(world, "b", {"/b": 0.4})
    _say(world, _taught(world), own, {SAW: 0.9})
    _say(world, _taught(world), other, {SAW: 0.8})
    _say(world, _taught(world, "2"), own, {SAW: 0.6}, hours=2)
    assert _found(world, SAW) == [("b", SAW, 0.8), ("a", SAW, 0.6)]
    retire(world.engine, "mine@2")
    assert _found(world, SAW) == [("a", SAW, 0.9), ("b", SAW, 0.8)]
    retire(world.engine, "mine")
    assert (_found(world, SAW), sole_speaker(world.engine, SAW)) == ([], "mine")
    assert _found(world, SAW, model="mine") == [("b", SAW, 0.8), ("a", SAW, 0.6)]


def test_a_taught_labelling_is_current_only_where_no_other_is(world: World) -> None:
    own = labelled(world, "a", {"/b": 0.5})
    second = other_variant(world)
    lease = Lease(RUN, LEASE_S, NOW)
    claim = claim_clip(world.engine, own.source_id, clip("a"), second, lease)
    assert isinstance(claim, Claim)
    row = labelling(claim, "a", {"/b": 0.7})
    assert commit_labellings(world.engine, second, [row], RUN, NOW) == [True]
    _say(world, _taught(world), own, {SAW: 0.9})
    assert _current(world) == "tiny@2"

    def reset(variant: Variant) -> None:
        (done,) = (x for x in iter_done(world.engine) if x.variant == variant)
        assert reset_labelling(world.engine, done)
        choose_current(world.engine, done.clip_id)

    reset(second)
    assert _current(world) == "tiny@1"
    reset(world.variant)
    assert _current(world) == "mine@1"
    again = claim_clip(world.engine, own.source_id, clip("a"), world.variant, lease)
    assert isinstance(again, Claim)
    row = labelling(again, "a", {"/b": 0.5})
    assert commit_labellings(world.engine, world.variant, [row], RUN, NOW) == [True]
    assert _current(world) == "tiny@1"
    assert _found(world, "/b") == [("a", SAW, 0.9)]


def test_the_view_of_hours_counts_both_labellings_once(world: World) -> None:
    """Of a class that both models know, labels are read; of others, kept counts are taken."""
    claim = labelled(
        world, "a", {"/b": 0.5, "/c": 0.6},
        [Detection(INDEX[mid], 2, 3, 0.5, 0.5, 2) for mid in ("/b", "/c")],
    )  # fmt: skip
    _say(world, _taught(world), claim, {SAW: 0.9, "/b": 0.7})
    by_class = hours_heard(world.engine, Question(under=("/a",)), "class")
    expected = sorted((row.mid, row.n_clips, round(row.hours * 3600, 6)) for row in by_class)
    with reading(world.engine) as conn:
        rows = conn.execute(text("SELECT mid, n_clips, hours * 3600 FROM class_hours"))
        found = sorted((mid, n_clips, round(float(s), 6)) for mid, n_clips, s in rows)
    assert found == [each for each in expected if each[1]]
    assert found == [("/b", 1, 1.44), ("/c", 1, 1.44), (SAW, 1, 1.44)]
