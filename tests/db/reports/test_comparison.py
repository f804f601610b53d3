"""Models side by side: promotion, comparison, embeddings."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import Engine

from audioset_core.records import Detection
from db.errors import DatabaseUserError
from db.integrity.audit import iter_done
from db.integrity.repair import reset_labelling
from db.ledger.claims import claim_clip, commit_labellings
from db.ledger.runs import progress_mark
from db.records import Claim, Lease
from db.reports.clip import clip_by_ref
from db.reports.model_comparison import ClassChange, Disagreement, compare, promote
from db.reports.model_coverage import models_known
from tests.db.build import (
    INDEX,
    LEASE_S,
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


@pytest.fixture
def world(fresh_db: Engine) -> World:
    return make_world(fresh_db)


def _again(world: World, variant, source_id: int, name: str, peaks, detections=(), hours=1):
    """Label a known clip under another variant, some hours later."""
    later = NOW + timedelta(hours=hours)
    claim = claim_clip(world.engine, source_id, clip(name), variant, Lease(RUN, LEASE_S, later))
    assert isinstance(claim, Claim)
    row = labelling(claim, name, peaks, detections)
    assert commit_labellings(world.engine, variant, [row], RUN, later) == [True]


def _detection(mid: str, first: int, last: int) -> Detection:
    return Detection(INDEX[mid], first, last, 0.5, 0.4, first)


def test_a_promoted_model_speaks_first(world: World) -> None:
    both, only_old = labelled(world, "a", {"/b": 0.5}), labelled(world, "b", {"/b": 0.6})
    second = other_variant(world)
    _again(world, second, both.source_id, "a", {"/c": 0.7})
    old, new = f"{MODEL.name}@{MODEL.version}", f"{MODEL.name}@2"

    def current() -> list[tuple[str, str]]:
        return [(hit.clip, hit.mid) for hit in top_clips(world.engine, "/a")]

    assert current() == [(sha("a"), "/c"), (sha("b"), "/b")]
    mark = progress_mark(world.engine)
    assert promote(world.engine, old) == old
    assert progress_mark(world.engine) != mark  # figures that are kept are counted anew
    assert current() == [(sha("b"), "/b"), (sha("a"), "/b")]
    # A later labelling by another model stands beside it.
    _again(world, second, only_old.source_id, "b", {"/d": 0.9})
    assert current() == [(sha("b"), "/b"), (sha("a"), "/b")]
    assert promote(world.engine, MODEL.name) == new  # the newest version of the name
    assert current() == [(sha("b"), "/d"), (sha("a"), "/c")]
    assert [(m.version, m.is_promoted) for m in models_known(world.engine)] == [
        ("1", False),
        ("2", True),
    ]
    # What the promoted model has not labelled is spoken for by whoever has.
    assert promote(world.engine, old) == old
    claim_three = other_variant(world, replace(MODEL, name="third", weights_sha256="c" * 64))
    lone = labelled(replace(world, variant=claim_three), "c", {"/e": 0.8})
    assert lone is not None
    assert [hit.clip for hit in top_clips(world.engine, "/e")] == [sha("c")]


def test_a_promoted_model_without_scores_hides_no_labels(world: World) -> None:
    """As VGGish without its head, or clips that are too short for the window of its patches."""
    first = labelled(world, "a", {"/b": 0.5})
    mute, third = other_variant(world), other_variant(world, replace(MODEL, version="3"))
    lease = Lease(RUN, LEASE_S, NOW)
    claim = claim_clip(world.engine, first.source_id, clip("a"), mute, lease)
    assert isinstance(claim, Claim)
    row = replace(labelling(claim, "a"), scores_path=None)
    assert commit_labellings(world.engine, mute, [row], RUN, NOW) == [True]
    promote(world.engine, "tiny@2")
    assert [hit.mid for hit in top_clips(world.engine, "/a")] == ["/b"]
    _again(world, third, first.source_id, "a", {"/c": 0.5})
    (newest,) = (x for x in iter_done(world.engine) if x.model_id == third.model_id)
    assert reset_labelling(world.engine, newest)
    assert [hit.mid for hit in top_clips(world.engine, "/a")] == ["/b"]


def test_promoting_nothing_known(world: World) -> None:
    with pytest.raises(DatabaseUserError, match="known models: tiny@1"):
        promote(world.engine, "tiny@7")


def test_two_models_are_compared_on_what_both_scored(world: World) -> None:
    # 0.48 s hop and 0.96 s window: patches 0 to 9 are 5.28 s, 0 to 4 are 2.88 s.
    first = labelled(world, "a", {"/b": 0.9, "/c": 0.2}, [_detection("/b", 0, 9)])
    same = labelled(world, "b", {"/b": 0.5})
    labelled(world, "only a", {"/b": 1.0}, [_detection("/b", 0, 9)])
    second = other_variant(world)
    _again(world, second, first.source_id, "a", {"/c": 0.3}, [_detection("/c", 0, 4)])
    _again(world, second, same.source_id, "b", {"/b": 0.45})
    result = compare(world.engine, "tiny@1", "tiny@2")
    assert result.n_clips == 2
    assert (result.only_a, result.only_b) == ((), ())
    assert (result.window_s_a, result.window_s_b) == (0.96, 0.96)
    assert [(c.mid, round(c.minutes_a, 6), round(c.minutes_b, 6)) for c in result.changes] == [
        ("/b", round(5.28 / 60, 6), 0.0),
        ("/c", 0.0, round(2.88 / 60, 6)),
    ]
    assert [(c.n_clips_a, c.n_clips_b) for c in result.changes] == [(1, 0), (0, 1)]
    assert isinstance(result.changes[0], ClassChange)
    assert result.disagreements == (
        Disagreement(sha("a"), "/audio/a.wav", "/b", "name /b", 0.9, 0.0),
        Disagreement(sha("b"), "/audio/b.wav", "/b", "name /b", 0.5, 0.45),
    )
    assert len(compare(world.engine, "tiny@1", "tiny@2", limit=1).disagreements) == 1


def test_models_of_other_windows_and_classes_are_compared_by_clips_and_common_classes(
    world: World,
) -> None:
    # "/b": 20 patches are 10 s of one clip (duration); with windows of 5 s both clips have "/c".
    one = labelled(world, "a", {"/b": 0.9, "/d": 0.95}, [_detection("/b", 0, 19)])
    two = labelled(world, "b", {"/b": 0.5}, [_detection("/b", 0, 0)])
    kept = tuple(c for c in MODEL.categories if c[1] != "/d")
    coarse = other_variant(
        world,
        replace(MODEL, name="coarse", weights_sha256="c" * 64, window_s=5.0, categories=kept),
    )
    for claim, name in ((one, "a"), (two, "b")):
        found = [_detection("/c", 0, 0), _detection("/b", 0, 0)][: 2 if name == "b" else 1]
        _again(world, coarse, claim.source_id, name, {"/b": 0.4, "/c": 0.6}, found)
    result = compare(world.engine, "tiny", "coarse")
    assert (result.window_s_a, result.window_s_b) == (0.96, 5.0)
    assert (result.only_a, result.only_b) == (("name /d",), ())
    # By minutes "/b" would be first.
    assert [
        (c.mid, c.n_clips_a, c.n_clips_b, round(c.minutes_a * 60, 2), round(c.minutes_b * 60, 2))
        for c in result.changes
    ] == [("/c", 0, 2, 0.0, 10.0), ("/b", 2, 1, 10.96, 5.0)]
    assert [(d.mid, d.peak_a, d.peak_b) for d in result.disagreements] == [
        ("/c", 0.0, 0.6),
        ("/c", 0.0, 0.6),
    ]


def test_models_without_a_common_clip(world: World) -> None:
    labelled(world, "a", {"/b": 0.9})
    other_variant(world)
    with pytest.raises(DatabaseUserError, match="no clip has scores of both"):
        compare(world.engine, "tiny@1", "tiny@2")
    with pytest.raises(DatabaseUserError, match="known models"):
        compare(world.engine, "tiny@1", "huge")


def test_embeddings_are_part_of_a_labelling(world: World) -> None:
    claim = labelled(world, "a", {"/b": 0.5})
    second = other_variant(world)
    again = claim_clip(world.engine, claim.source_id, clip("a"), second, Lease(RUN, LEASE_S, NOW))
    assert isinstance(again, Claim)
    row = replace(
        labelling(again, "a"),
        scores_path=None,
        scores_sha256=None,
        score_dtype=None,
        embeddings_path="embeddings/tiny/aa/x.npy",
        embeddings_sha256="e" * 64,
    )
    assert commit_labellings(world.engine, second, [row], RUN, NOW) == [True]
    report = clip_by_ref(world.engine, sha("a"))
    # Embeddings alone have nothing to say: the scores stay current.
    assert [(x.model_version, x.is_current) for x in report.labellings] == [
        ("1", True),
        ("2", False),
    ]
    assert {(x.model_version, x.embeddings_path) for x in report.labellings} == {
        ("1", None),
        ("2", "embeddings/tiny/aa/x.npy"),
    }
