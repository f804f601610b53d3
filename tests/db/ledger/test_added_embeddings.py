"""Labels that lack embeddings get them; labels with embeddings need no second labelling."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import Engine, select

from db.catalog.model_registry import find_variant, register_parameters
from db.catalog.sources import triage
from db.engine import reading
from db.integrity.audit import iter_done
from db.integrity.repair import correct_labelling, reset_labelling
from db.ledger.claims import LEASE_S, claim_clip, commit_labellings
from db.records import Claim, Committed, FileState, Labelling, Lease, NotClaimed, Variant
from db.schema.tables import clip_scores, labellings
from tests.db.build import (
    MIDS,
    MODEL,
    NOW,
    PARAMETERS,
    RUN,
    World,
    clip,
    enrolled,
    labelled,
    labelling,
    make_world,
    seen,
    sha,
)

PATH = "/audio/a.wav"


@pytest.fixture
def world(fresh_db: Engine) -> World:
    world = make_world(fresh_db)
    register_parameters(fresh_db, PARAMETERS.twin)
    return replace(world, variant=_variant(world, with_embeddings=False))


def _variant(world: World, *, with_embeddings: bool) -> Variant:
    wanted = PARAMETERS.twin if with_embeddings else PARAMETERS
    found = find_variant(world.engine, MODEL.name, MODEL.version, wanted)
    assert found is not None
    return found


def _claim(world: World, variant: Variant, path: str = PATH) -> Claim | NotClaimed:
    (item,) = enrolled(world, seen(path))
    lease = Lease(RUN, LEASE_S, NOW + timedelta(hours=1))
    return claim_clip(world.engine, item.source_id, clip("a"), variant, lease)


def _with_embeddings(claim: Claim | NotClaimed, n_patches: int = 20) -> Labelling:
    assert isinstance(claim, Claim)
    new = labelling(claim, "a", {MIDS[-1]: 0.2})
    return replace(
        new, n_patches=n_patches, embeddings_path="e.npy", embeddings_sha256=sha("embeddings")
    )


def _commit(world: World, row: Labelling) -> list[Committed]:
    fuller = _variant(world, with_embeddings=True)
    return commit_labellings(world.engine, fuller, [row], RUN, NOW + timedelta(hours=1))


def _stored(world: World) -> list[tuple[object, ...]]:
    columns = ("id", "parameter_set_id", "status", "is_current", "labelled_at", "embeddings_path")
    with reading(world.engine) as conn:
        query = select(*(labellings.c[name] for name in columns)).order_by(labellings.c.id)
        return [tuple(row) for row in conn.execute(query)]


def _states(world: World) -> list[FileState]:
    with reading(world.engine) as conn:
        return [
            triage(conn, [_variant(world, with_embeddings=both)], [seen(PATH)])[0].state
            for both in (False, True)
        ]


def test_embeddings_are_added_and_the_labels_stay(world: World) -> None:
    fuller = _variant(world, with_embeddings=True)
    own = labelled(world, "a", {MIDS[-1]: 0.9}).labelling_id
    assert _states(world) == [FileState.DONE, FileState.UNLABELLED]
    (before,) = iter_done(world.engine)
    claim = _claim(world, fuller)
    assert _commit(world, _with_embeddings(claim)) == [Committed.ADDED]
    assert _stored(world) == [(own, fuller.parameter_set_id, "done", True, NOW, "e.npy")]
    with reading(world.engine) as conn:
        (score,) = conn.execute(select(clip_scores))
    assert (score.labelling_id, score.peak) == (own, 0.9)
    assert _states(world) == [FileState.DONE, FileState.DONE]
    # A copy of the content is known to both, and a task that is tried again has done it.
    assert _claim(world, world.variant, "/audio/copy.wav") is NotClaimed.DONE
    assert _claim(world, fuller, "/audio/copy.wav") is NotClaimed.DONE
    assert _claim(world, fuller) is NotClaimed.AGAIN
    # A check that read the row before leaves it alone.
    assert not correct_labelling(world.engine, before, {"n_patches": 1})
    assert not reset_labelling(world.engine, before)


def test_the_labels_stay_while_a_claim_is_held_or_lost(world: World) -> None:
    own = labelled(world, "a", {MIDS[-1]: 0.9}).labelling_id
    lost = _claim(world, _variant(world, with_embeddings=True))
    again = _claim(world, _variant(world, with_embeddings=True))
    assert (_stored(world)[0][0], _stored(world)[0][2:4]) == (own, ("done", True))
    assert _commit(world, _with_embeddings(lost)) == [Committed.LOST]
    assert _commit(world, _with_embeddings(again)) == [Committed.ADDED]
    assert _commit(world, _with_embeddings(again)) == [Committed.LOST]
    assert [row[0] for row in _stored(world)] == [own]


def test_other_patches_are_another_labelling(world: World) -> None:
    own = labelled(world, "a", {MIDS[-1]: 0.9}).labelling_id
    claim = _claim(world, _variant(world, with_embeddings=True))
    assert _commit(world, _with_embeddings(claim, n_patches=21)) == [Committed.LABELLED]
    assert [(row[0] == own, row[3]) for row in _stored(world)] == [(True, False), (False, True)]


def test_what_a_repair_has_reset_is_labelled_again_beside_one_with_embeddings(world: World) -> None:
    # As older versions left them: both are there.
    labelled(world, "a", {MIDS[-1]: 0.9})
    claim = _claim(world, _variant(world, with_embeddings=True))
    assert _commit(world, _with_embeddings(claim, n_patches=21)) == [Committed.LABELLED]
    bare = next(x for x in iter_done(world.engine) if x.n_patches == 20)
    assert reset_labelling(world.engine, bare)
    assert _states(world) == [FileState.UNLABELLED, FileState.DONE]
    again = _claim(world, world.variant)
    assert isinstance(again, Claim)
    assert again.labelling_id == bare.labelling_id
