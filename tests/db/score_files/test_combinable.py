"""Which clips can be combined, on both databases."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import Engine

from db.catalog.model_registry import register_model, register_parameters
from db.integrity.audit import iter_done
from db.integrity.repair import reset_labelling
from db.ledger.claims import claim_known, commit_labellings
from db.ledger.runs import start_run
from db.records import Claim, KnownClip, Labelling, Lease, Remark, Variant
from db.score_files.combinable import (
    Combinable,
    count_labelled,
    count_uncombined,
    find_combinations,
    iter_uncombined,
    part_labellings,
)
from db.score_files.teachable import (
    clips_at,
    embedded_clips,
    embedded_labellings,
    embedded_models,
    iter_clips,
)
from tests.db.build import (
    LEASE_S,
    MODEL,
    NOW,
    PARAMETERS,
    RUN,
    World,
    claimed,
    clip,
    labelled,
    labelling,
    make_world,
    sha,
)

COARSE = replace(MODEL, name="coarse", weights_sha256="b" * 64, window_s=10.0)
COARSE_PARAMETERS = replace(PARAMETERS, patch_hop_s=7.5)
BOTH = replace(MODEL, name="both", weights_sha256="c" * 64)
LEASE = Lease(RUN, LEASE_S, NOW)


@pytest.fixture
def tiny(fresh_db: Engine) -> World:
    return make_world(fresh_db)


@pytest.fixture
def coarse(tiny: World) -> World:
    engine = tiny.engine
    variant = Variant(
        register_model(engine, COARSE, NOW), register_parameters(engine, COARSE_PARAMETERS)
    )
    return World(engine, variant)


@pytest.fixture
def whole(tiny: World) -> Variant:
    return replace(tiny.variant, model_id=register_model(tiny.engine, BOTH, NOW))


def uncombined(
    tiny: World, coarse: World, whole: Variant, *, is_repair: bool = False
) -> list[Combinable]:
    parts = (tiny.variant, coarse.variant)
    found = list(iter_uncombined(tiny.engine, parts, whole, is_repair=is_repair, page=2))
    if not is_repair:
        assert count_uncombined(tiny.engine, parts, whole) == len(found)
    return found


def combined(whole: Variant, engine: Engine, *clips: KnownClip) -> list[Claim]:
    claims = [claim for claim in claim_known(engine, clips, whole, LEASE) if claim]
    rows = [
        Labelling(claim, None, 20, f"{claim.sha256}.npy", sha("both"), "float16")
        for claim in claims
    ]
    assert commit_labellings(engine, whole, rows, RUN, NOW) == [True] * len(rows)
    return claims


def other_run(engine: Engine) -> str:
    run_id = RUN[:-1] + "2"
    start_run(engine, run_id, "host", 2, {}, NOW)
    return run_id


def names(found: list[Combinable]) -> set[str]:
    return {each.clip.sha256 for each in found}


def test_clips_of_all_parts_come_until_they_are_combined(
    tiny: World, coarse: World, whole: Variant
) -> None:
    for name in "abcde":
        labelled(tiny, name, {"/b": 0.5})
    for name in "bcdef":
        labelled(coarse, name, {"/b": 0.5})
    found = uncombined(tiny, coarse, whole)
    assert names(found) == {sha(name) for name in "bcde"}
    one = next(each for each in found if each.clip.sha256 == sha("b"))
    assert [(p.patch_hop_s, p.window_s, p.n_classes) for p in one.parts] == [
        (0.48, 0.96, 4), (7.5, 10.0, 4),
    ]  # fmt: skip
    assert [p.scores_sha256 for p in one.parts] == [sha("scoresb")] * 2
    ids = [tiny.variant.model_id, coarse.variant.model_id]
    assert count_labelled(tiny.engine, ids) == (6, [5, 5])
    combined(whole, tiny.engine, one.clip)
    assert names(uncombined(tiny, coarse, whole)) == {sha(name) for name in "cde"}


def test_a_claim_on_known_clips_is_exclusive_and_leaves_their_figures(
    tiny: World, coarse: World, whole: Variant
) -> None:
    claims = [labelled(tiny, name, {}) for name in "ab"]
    clips = [KnownClip(claim.clip_id, claim.sha256, claim.source_id) for claim in claims]
    first = claim_known(tiny.engine, clips[:1], whole, LEASE)[0]
    assert first is not None
    other = Lease(other_run(tiny.engine), LEASE_S, NOW)
    assert claim_known(tiny.engine, clips[:1], whole, other) == [None]
    # A run whose answer was lost asks again: it has its own claim, with a new token.
    again = claim_known(tiny.engine, clips, whole, LEASE)
    assert [claim is not None for claim in again] == [True, True]
    assert again[0] is not None
    assert again[0].token == first.token + 1
    rows = [Labelling(claim, None, 0, note="none") for claim in (first, *again) if claim]
    assert commit_labellings(tiny.engine, whole, rows, RUN, NOW) == [False, True, True]
    assert claim_known(tiny.engine, clips, whole, other) == [None, None]
    done = [each for each in iter_done(tiny.engine) if each.model_id == whole.model_id]
    assert {each.n_samples for each in done} == {clip("a").n_samples}


def test_the_newest_labelling_of_a_part_counts(tiny: World, coarse: World, whole: Variant) -> None:
    """One clip was labelled again with another hop: it is combined with those scores."""
    for name in "ab":
        labelled(coarse, name, {})
        labelled(tiny, name, {})
    dense = register_parameters(tiny.engine, replace(PARAMETERS, patch_hop_s=0.24))
    denser = World(tiny.engine, replace(tiny.variant, parameter_set_id=dense))
    labelled(denser, "b", {}, now=NOW + timedelta(hours=1))
    found = find_combinations(tiny.engine, [tiny.variant.model_id, coarse.variant.model_id])
    assert {key: [p.patch_hop_s for p in clips] for key, clips in found.items()} == {
        (tiny.variant, coarse.variant): [0.48, 7.5],
        (denser.variant, coarse.variant): [0.24, 7.5],
    }
    assert names(uncombined(tiny, coarse, whole)) == {sha("a")}
    assert names(uncombined(denser, coarse, whole)) == {sha("b")}


def test_what_a_repair_has_reset_comes_alone(tiny: World, coarse: World, whole: Variant) -> None:
    for name in "abc":
        labelled(tiny, name, {})
        labelled(coarse, name, {})
    clips = [each.clip for each in uncombined(tiny, coarse, whole)][:2]
    combined(whole, tiny.engine, *clips)
    done = next(each for each in iter_done(tiny.engine) if each.model_id == whole.model_id)
    assert reset_labelling(tiny.engine, done)
    assert names(uncombined(tiny, coarse, whole, is_repair=True)) == {done.clip_sha256}
    assert len(uncombined(tiny, coarse, whole)) == 2
    parts = (tiny.variant, coarse.variant)
    assert len(part_labellings(tiny.engine, done.clip_id, parts)) == 2
    assert len(part_labellings(tiny.engine, done.clip_id, (whole, *parts))) == 2


def test_remarks_of_the_parts_come_once_each(tiny: World, coarse: World, whole: Variant) -> None:
    cut, gap = Remark("cut", "at 3 s"), Remark("gap", "1 s", 2.0, 3.0)
    for world, remarks in ((tiny, (cut,)), (coarse, (cut, gap))):
        row = replace(labelling(claimed(world, "a"), "a"), remarks=remarks, is_partial=True)
        assert commit_labellings(world.engine, world.variant, [row], RUN, NOW) == [True]
    (found,) = uncombined(tiny, coarse, whole)
    assert (found.remarks, found.is_partial) == ((cut, gap), True)


def test_embeddings_are_found_where_a_labelling_has_them(tiny: World, whole: Variant) -> None:
    """The newest labelling with embeddings counts, though a newer one without may be there."""
    bare = labelled(tiny, "bare", {})
    claims = [claimed(tiny, name, f"/{name}/x.wav") for name in "ab"]
    rows = [
        replace(
            labelling(claim, claim.sha256),
            embeddings_path=f"embeddings/{claim.sha256}.npy",
            embeddings_sha256=sha("embeddings"),
        )
        for claim in claims
    ]
    assert commit_labellings(tiny.engine, tiny.variant, rows, RUN, NOW) == [True, True]
    dense = register_parameters(tiny.engine, replace(PARAMETERS, patch_hop_s=0.24))
    denser = World(tiny.engine, replace(tiny.variant, parameter_set_id=dense))
    labelled(denser, "b", {}, now=NOW + timedelta(hours=1))
    found = find_combinations(tiny.engine, [tiny.variant.model_id], with_embeddings=True)
    assert set(found) == {(tiny.variant,)}

    def clips_of(*paths: str) -> set[str]:
        wanted = {"with_embeddings": True, "paths": paths}
        clips = list(iter_uncombined(tiny.engine, [tiny.variant], whole, **wanted))  # type: ignore[arg-type]
        n = count_uncombined(tiny.engine, [tiny.variant], whole, **wanted)  # type: ignore[arg-type]
        assert n == len(clips)
        return names(clips)

    assert clips_of() == {sha("a"), sha("b")}
    assert clips_of("/a") == {sha("a")}
    assert clips_of("/b/x.wav", "/a") == {sha("a"), sha("b")}
    (model,) = embedded_models(tiny.engine)
    assert (model.title, model.n_clips) == (f"{MODEL.name}@{MODEL.version}", 2)
    ids = embedded_labellings(tiny.engine, model.model_id)
    in_order = sorted([sha("a"), sha("b")])
    assert [each.clip_sha256 for each in iter_clips(tiny.engine, ids)] == in_order
    wanted = [sha("a"), bare.sha256]
    (own,) = embedded_clips(tiny.engine, model.model_id, wanted)
    assert (own.clip_sha256, own.embeddings_path) == (sha("a"), f"embeddings/{sha('a')}.npy")
    assert clips_at(tiny.engine, "/a") == [sha("a")]
    combined(whole, tiny.engine, *(KnownClip(c.clip_id, c.sha256, c.source_id) for c in claims))
    assert clips_of() == set()
