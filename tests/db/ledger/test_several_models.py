"""Several models in one run: when a file is done, what is counted, and whose labels are current."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from itertools import permutations

import pytest
from sqlalchemy import Engine, select, update

from db.catalog.sources import iter_items, triage
from db.engine import reading, writing
from db.ledger.claims import LEASE_S, claim_clip, commit_labellings
from db.ledger.labels_by_branch import clips_by_branch
from db.ledger.runs import abandon_run, labelled_by
from db.records import Claim, FileState, Labelling, Lease, Variant
from db.schema.tables import labellings, models, runs
from tests.db.build import (
    MODEL,
    NOW,
    RUN,
    World,
    clip,
    enrolled,
    labelled,
    labelling,
    make_world,
    other_variant,
    seen,
)


@pytest.fixture
def world(fresh_db: Engine) -> World:
    return make_world(fresh_db)


def _variants(world: World, n_others: int = 1) -> list[Variant]:
    """The world's variant, and those of further models."""
    others = [replace(MODEL, name=f"other{n}", weights_sha256=f"{n}" * 64) for n in range(n_others)]
    return [world.variant, *(other_variant(world, model) for model in others)]


def _claim(world: World, source_id: int, variant: Variant) -> Claim:
    lease = Lease(RUN, LEASE_S, NOW)
    found = claim_clip(world.engine, source_id, clip("a"), variant, lease)
    assert isinstance(found, Claim)
    return found


def _commit(world: World, variant: Variant, row: Labelling, named: list[Variant]) -> None:
    assert commit_labellings(world.engine, variant, [row], RUN, NOW, named) == [True]


def _current(world: World) -> list[int]:
    with reading(world.engine) as conn:
        query = select(labellings.c.model_id).where(labellings.c.is_current)
        return list(conn.execute(query).scalars())


def test_a_file_is_done_once_every_variant_has_labelled_it(world: World) -> None:
    both = _variants(world)
    file = seen("/audio/a.wav")
    first = labelled(world, "a", {})

    def judged(variants: list[Variant]) -> FileState:
        with reading(world.engine) as conn:
            return triage(conn, variants, [file])[0].state

    def left() -> list[int]:
        items = iter_items(world.engine, RUN, unlabelled_by=both)
        return [item.source_id for item in items]

    assert [judged(both), judged(both[:1])] == [FileState.UNLABELLED, FileState.DONE]
    assert left() == [first.source_id]
    row = labelling(_claim(world, first.source_id, both[1]), "a")
    _commit(world, both[1], row, both)
    assert [judged(both), judged(both[::-1])] == [FileState.DONE, FileState.DONE]
    assert left() == []


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_the_model_named_first_is_current_whichever_commits_first(
    world: World, order: tuple[int, ...]
) -> None:
    named = _variants(world, 2)
    (item,) = enrolled(world, seen("/audio/a.wav"))
    claims = [_claim(world, item.source_id, variant) for variant in named]
    for at in order:
        _commit(world, named[at], labelling(claims[at], "a"), named)
    assert _current(world) == [named[0].model_id]


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_scores_come_before_the_order_of_naming(world: World, order: tuple[int, ...]) -> None:
    named = _variants(world, 2)
    (item,) = enrolled(world, seen("/audio/a.wav"))
    rows = [labelling(_claim(world, item.source_id, variant), "a") for variant in named]
    rows[0] = replace(rows[0], scores_path=None, scores_sha256=None)  # too short for its patch
    for at in order:
        _commit(world, named[at], rows[at], named)
    assert _current(world) == [named[1].model_id]


@pytest.mark.parametrize("order", list(permutations(range(3))))
@pytest.mark.parametrize("has_scores", [True, False])
def test_the_promoted_model_is_current_wherever_it_is_named(
    world: World, order: tuple[int, ...], has_scores: bool
) -> None:
    named = _variants(world, 2)
    with writing(world.engine) as conn:
        is_last = models.c.id == named[2].model_id
        conn.execute(update(models).where(is_last).values(is_promoted=True))
    (item,) = enrolled(world, seen("/audio/a.wav"))
    rows = [labelling(_claim(world, item.source_id, variant), "a") for variant in named]
    if not has_scores:
        rows[2] = replace(rows[2], scores_path=None, scores_sha256=None)
    for at in order:
        _commit(world, named[at], rows[at], named)
    assert _current(world) == [named[2 if has_scores else 0].model_id]


def test_a_model_that_is_added_leaves_the_first_one_current(world: World) -> None:
    """The first was done by an earlier run; only a run of the other alone would replace it."""
    both = _variants(world)
    first = labelled(world, "a", {})
    added = labelling(_claim(world, first.source_id, both[1]), "a")
    _commit(world, both[1], added, both)
    assert _current(world) == [both[0].model_id]


def test_the_first_model_replaces_what_was_current_before_the_run(world: World) -> None:
    named = _variants(world, 2)
    old = labelled(replace(world, variant=named[2]), "a", {})
    for variant in (named[1], named[0]):
        row = labelling(_claim(world, old.source_id, variant), "a")
        _commit(world, variant, row, named[:2])
    assert _current(world) == [named[0].model_id]


def test_a_clip_counts_once_whatever_the_number_of_models(world: World) -> None:
    both = _variants(world)
    first = labelled(world, "a", {"/c": 0.9})
    row = labelling(_claim(world, first.source_id, both[1]), "a", {"/c": 0.9})
    _commit(world, both[1], row, both)
    assert labelled_by(world.engine, RUN) == (1, 10.0)
    assert set(clips_by_branch(world.engine, RUN).values()) == {1}
    assert abandon_run(world.engine, RUN, NOW + timedelta(hours=1))
    with reading(world.engine) as conn:
        row_of = conn.execute(select(runs.c.n_labelled, runs.c.audio_s).where(runs.c.id == RUN))
        assert tuple(row_of.one()) == (1, 10.0)
