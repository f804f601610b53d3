"""The kept counts: what one labelling adds, and that they say what the labels say."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from importlib import import_module

import numpy as np
import pytest
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import ColumnElement, Connection, Engine, delete, event, select, text, update

from audioset_core.records import Detection
from db.catalog.model_registry import register_parameters
from db.engine import reading, writing
from db.integrity.repair import holding_stray_file
from db.ledger.claims import claim_clip, commit_labellings
from db.query import hours, totals
from db.query.ambiguous_classes import SOURCE_AMBIGUOUS_MID
from db.query.question import Question
from db.query.views import create_views, drop_views
from db.records import Claim, Lease
from db.reports import collection
from db.reports.model_comparison import promote
from db.schema.tables import closure, node_totals, nodes
from db.totals import keeping
from db.totals.recount import check_totals, missing_totals
from db.totals.tally import Ontology, tally
from tests.db.build import (
    LEASE_S,
    MODEL,
    NOW,
    PARAMETERS,
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

ANIMAL, CAT, PURR, HISS = "/animal", "/cat", "/purr", "/hiss"
NAMES = (ANIMAL, CAT, PURR, SOURCE_AMBIGUOUS_MID, HISS)
EDGES = ((ANIMAL, CAT), (CAT, PURR), (CAT, HISS), (SOURCE_AMBIGUOUS_MID, HISS))
LATER = NOW + timedelta(days=1)
INDEX = {mid: at for at, mid in enumerate(NAMES)}


def test_a_moment_counts_at_the_best_score_around_it() -> None:
    """Two classes below node 1: 0 to 10 at 0.3, within that 4 to 6 at 0.8; then 9 to 12 at 0.5."""
    ontology = Ontology({2: [1, 2], 3: [1, 3]}, frozenset())
    sounds = [(2, 3_000, 0, 10), (3, 8_000, 4, 6), (3, 5_050, 9, 12)]
    assert tally({2: 3_000, 3: 8_099}, sounds, ontology) == {
        (1, 80): [1, 1, 2, 0, 0],
        (1, 50): [0, 0, 3, 0, 0],
        (1, 30): [0, 0, 7, 0, 0],
        (2, 30): [1, 1, 10, 1, 10],
        (3, 80): [1, 1, 2, 1, 2],
        (3, 50): [0, 0, 3, 0, 3],
    }


def test_an_ambiguous_class_counts_in_company() -> None:
    above = {2: [1, 2], 3: [1, 3, 9]}
    alone = tally({3: 4_000}, [], Ontology(above, frozenset({3, 9})))
    assert alone == {(3, 40): [1, 0, 0, 0, 0], (9, 40): [1, 0, 0, 0, 0]}
    with_purr = tally({2: 2_000, 3: 4_000}, [], Ontology(above, frozenset({3, 9})))
    assert with_purr == alone | {(1, 40): [1, 0, 0, 0, 0], (2, 20): [1, 0, 0, 0, 0]}


@pytest.fixture
def world(fresh_db: Engine) -> World:
    model = replace(MODEL, categories=tuple((at, mid, mid) for mid, at in INDEX.items()))
    return make_world(fresh_db, NAMES, EDGES, model)


def _sounds(rng: np.random.Generator) -> tuple[dict[str, float], list[Detection]]:
    """Random detections, which overlap, and the peaks that follow."""
    found = []
    for at in rng.permutation(len(NAMES))[: rng.integers(0, 4)].tolist():
        for start in rng.choice(np.arange(0, 20, 3), 3, replace=False).tolist():
            peak = round(float(rng.choice([0.2, 0.3, 0.5, 0.5001, 0.999, 1.0])), 4)
            found.append(Detection(at, start, start + int(rng.integers(0, 2)), peak, peak, start))
    found.sort(key=lambda each: (each.category_index, each.start_patch))
    peaks: dict[str, float] = {}
    for each in found:
        mid = NAMES[each.category_index]
        peaks[mid] = max(peaks.get(mid, 0.0), each.peak)
    return peaks, found


def _label(world: World, name: str, rng: np.random.Generator, duration_s: float = 10.0) -> None:
    (item,) = enrolled(world, seen(f"/audio/{name}.wav"))
    lease = Lease(RUN, LEASE_S, LATER)
    claim = claim_clip(world.engine, item.source_id, clip(name), world.variant, lease)
    assert isinstance(claim, Claim)
    peaks, found = _sounds(rng)
    row = labelling(claim, name, peaks, found, duration_s, INDEX)
    assert commit_labellings(world.engine, world.variant, [row], RUN, LATER) == [True]


def _answers(engine: Engine) -> Iterator[object]:
    for score in (0.3, 0.5, 0.9999):
        for model in (None, "tiny@2", "tiny"):
            for question in (
                Question(under=(ANIMAL, SOURCE_AMBIGUOUS_MID), min_score=score, model=model),
                Question(under=(CAT,), min_score=score, model=model),
            ):
                for by in ("second-level", "class"):
                    found = hours.hours_heard(engine, question, by)  # type: ignore[arg-type]
                    yield sorted((x.mid, x.n_clips, round(x.hours, 9)) for x in found)
        found_below = collection.node_hours(engine, score)
        yield sorted((x.mid, x.n_clips, x.is_class, round(x.hours, 9)) for x in found_below)


@pytest.mark.slow
def test_the_counts_say_what_the_labels_say(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """After labelling, by a second model and other parameters, a promotion, another ontology."""
    rng = np.random.default_rng(0)
    model = replace(
        MODEL, version="2", weights_sha256="b" * 64,
        categories=tuple((at, mid, mid) for mid, at in INDEX.items()),
    )  # fmt: skip
    second = replace(world, variant=other_variant(world, model))
    finer = register_parameters(world.engine, replace(PARAMETERS, patch_hop_s=0.24))
    third = replace(world, variant=replace(world.variant, parameter_set_id=finer))

    def compare() -> None:
        with reading(world.engine) as conn:
            assert missing_totals(conn) == {}
        kept = list(_answers(world.engine))
        with monkeypatch.context() as patched:
            for module in (totals, hours, collection):
                patched.setattr(module, "has_totals", lambda _: False)
            assert list(_answers(world.engine)) == kept
        n_told.append(sum(len(each) for each in kept))  # type: ignore[arg-type]

    n_told: list[int] = []
    for number in range(6):
        _label(world, f"a{number}", rng)
    _label(second, "b", rng)
    for number in range(3):  # another length, by another decoder, changes older labels' ends
        _label(second, f"a{number}", rng, duration_s=7.3)
    compare()
    promote(world.engine, "tiny@1")
    _label(third, "a1", rng)
    compare()
    promote(world.engine, "tiny@2")
    load(world.engine, NAMES, (*EDGES[:2], (ANIMAL, HISS), EDGES[3]))
    compare()
    assert min(n_told) > 30


def test_counts_that_are_wrong_are_found_and_put_right(world: World) -> None:
    peaks = {PURR: 0.5, CAT: 0.9}
    labelled(world, "a", peaks, [Detection(INDEX[PURR], 0, 4, 0.5, 0.5, 1)], index=INDEX)
    engine = world.engine
    assert check_totals(engine, is_repair=True) == {}
    with writing(engine) as conn:
        conn.execute(update(node_totals).values(heard_us=node_totals.c.heard_us + 1))
        conn.execute(delete(node_totals).where(node_totals.c.percent == 90))
    found = {ANIMAL: 2, CAT: 2, PURR: 1}
    assert check_totals(engine, is_repair=False) == found
    assert check_totals(engine, is_repair=True) == found
    assert check_totals(engine, is_repair=False) == {}


def test_an_older_database_gets_its_counts(world: World) -> None:
    labelled(world, "a", {PURR: 0.5, CAT: 0.9}, index=INDEX)
    with writing(world.engine) as conn:
        drop_views(conn)
        node_totals.drop(conn)
        with Operations.context(MigrationContext.configure(conn)):
            import_module("db.migrations.versions.0018_node_totals").upgrade()
        create_views(conn)
    found = totals.totals_by_mid(world.engine, [ANIMAL, HISS], 0.9)
    assert (found[ANIMAL].n_clips, found[HISS].n_clips) == (1, 0)


def test_a_class_whose_closure_was_gone_counts_again(world: World) -> None:
    """`fresh_db` compares the counts with the labels."""
    purr = select(nodes.c.id).where(nodes.c.mid == PURR).scalar_subquery()
    with writing(world.engine) as conn:
        conn.execute(delete(closure).where(closure.c.descendant_id == purr))
    labelled(world, "a", {PURR: 0.5}, index=INDEX)
    load(world.engine, NAMES, EDGES)
    assert totals.totals_by_mid(world.engine, [ANIMAL], 0.5)[ANIMAL].n_clips == 1


@pytest.fixture
def twice(world: World) -> World:
    """A clip that two models have labelled, and a third run left a claim on."""
    labelled(world, "a", {PURR: 0.5, CAT: 0.9}, index=INDEX)
    categories = tuple((at, mid, mid) for mid, at in INDEX.items())
    model = replace(MODEL, version="2", weights_sha256="b" * 64, categories=categories)
    labelled(replace(world, variant=other_variant(world, model)), "a", {HISS: 0.3}, index=INDEX)
    finer = register_parameters(world.engine, replace(PARAMETERS, patch_hop_s=0.24))
    claimed(replace(world, variant=replace(world.variant, parameter_set_id=finer)), "a")
    return world


def test_a_repair_beside_a_promotion_and_another_repair(
    twice: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both come after the counts were found to be wrong."""
    engine = twice.engine
    with writing(engine) as conn:
        conn.execute(update(node_totals).values(n_clips=node_totals.c.n_clips + 1))
    left = [lambda: check_totals(engine, is_repair=True), lambda: promote(engine, "tiny@1")]

    def missing(conn: Connection) -> keeping.Totals:
        found = missing_totals(conn)
        if left:
            left.pop()()
        return found

    monkeypatch.setattr("db.totals.recount.missing_totals", missing)
    assert check_totals(engine, is_repair=True) == {}
    with reading(engine) as conn:
        assert missing_totals(conn) == {}


def _is_waiting(engine: Engine) -> bool:
    of_ours = "datname = current_database() AND wait_event_type = 'Lock'"
    with engine.connect() as conn:
        return bool(conn.scalar(text(f"SELECT COUNT(*) FROM pg_stat_activity WHERE {of_ours}")))


@contextmanager
def _beside(engine: Engine, beginning: str, other: Callable[[], object]) -> Iterator[None]:
    """At the first statement that begins so, let `other` go on until it is done or waits for us."""
    begun: list[Future[object]] = []

    def pause(_conn: object, _cursor: object, statement: str, *_: object) -> None:
        if statement.startswith(beginning) and not begun:
            begun.append(pool.submit(other))
            while not begun[0].done() and not _is_waiting(engine):
                time.sleep(0.01)

    with ThreadPoolExecutor(1) as pool:
        event.listen(engine, "before_cursor_execute", pause)
        yield
        event.remove(engine, "before_cursor_execute", pause)
        (future,) = begun
        future.result()


def test_a_promotion_counts_only_what_it_moves_in_part(
    twice: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    labelled(twice, "b", {CAT: 0.7}, index=INDEX)
    counted: list[int] = []

    def totals_of(conn: Connection, column: ColumnElement[int], ids: list[int]) -> keeping.Totals:
        counted.extend(ids)
        return really(conn, column, ids)

    really = keeping.totals_of
    monkeypatch.setattr(keeping, "totals_of", totals_of)
    for model, n_clips in {"tiny@1": 2, "tiny@2": 1}.items():
        promote(twice.engine, model)
        assert totals.totals_by_mid(twice.engine, [CAT], 0.7)[CAT].n_clips == n_clips
    assert counted == [1, 1]


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["postgresql"])
def test_a_promotion_and_another_ontology_take_turns(twice: World) -> None:
    def change() -> None:
        load(twice.engine, NAMES, EDGES[1:])

    with _beside(twice.engine, "INSERT INTO node_totals", change):
        promote(twice.engine, "tiny@1")
    with reading(twice.engine) as conn:
        assert missing_totals(conn) == {}


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["postgresql"])
def test_a_promotion_and_a_stray_file_take_turns(twice: World) -> None:
    def change() -> None:
        promote(twice.engine, "tiny@1")

    with (
        _beside(twice.engine, "UPDATE labellings SET token", change),
        holding_stray_file(twice.engine, "stray.npy", sha("a"), LATER, LATER) as is_unwanted,
    ):
        assert is_unwanted
