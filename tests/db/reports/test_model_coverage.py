"""Which model answers for a class, on both databases."""

from __future__ import annotations

from dataclasses import replace

from sqlalchemy import Engine

from db.catalog.model_registry import register_model
from db.ledger.claims import claim_known, commit_labellings
from db.records import KnownClip, Labelling, Lease
from db.reports.model_coverage import sole_speaker
from db.score_files.teachable import members
from tests.db.build import LEASE_S, MIDS, MODEL, NOW, RUN, labelled, make_world, sha


def test_a_model_that_is_not_current_speaks_where_no_other_does(fresh_db: Engine) -> None:
    world = make_world(fresh_db, mids=(*MIDS, "x:saw"), edges=((MIDS[0], "x:saw"),))
    own = labelled(world, "a", {MODEL.categories[0][1]: 0.9})
    assert sole_speaker(fresh_db, "x:saw") is None
    taught = replace(MODEL, name="mine", weights_sha256="d" * 64, categories=((0, "x:saw", "Saw"),))
    variant = replace(world.variant, model_id=register_model(fresh_db, taught, NOW))
    assert sole_speaker(fresh_db, "x:saw") is None  # it has labelled nothing
    known = KnownClip(own.clip_id, own.sha256, own.source_id)
    (claim,) = claim_known(fresh_db, [known], variant, Lease(RUN, LEASE_S, NOW))
    assert claim is not None
    row = Labelling(claim, None, 20, "mine.npy", sha("mine"), "float16")
    named = [world.variant, variant]
    assert commit_labellings(fresh_db, variant, [row], RUN, NOW, named) == [True]
    assert sole_speaker(fresh_db, "x:saw") == "mine"
    assert sole_speaker(fresh_db, MODEL.categories[0][1]) is None
    assert members(fresh_db, MIDS[0]) == {MIDS[0], "x:saw"}
