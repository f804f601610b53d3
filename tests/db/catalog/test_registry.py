"""The ontology, models and parameters."""

from __future__ import annotations

from dataclasses import replace

import pytest
from sqlalchemy import Engine, select

from audioset_core.records import Node
from db.catalog.model_registry import find_variant, register_model, register_parameters
from db.catalog.ontology import load_ontology
from db.engine import reading
from db.errors import DatabaseUserError
from db.records import Parameters, Variant
from db.reports.model_coverage import categories_of, models_known, predictable_members
from db.schema.tables import closure, edges, node_examples, nodes
from tests.db.build import (
    EDGES,
    MIDS,
    MODEL,
    NOW,
    PARAMETERS,
    closure_of,
    labelled,
    load,
    make_world,
    nodes_of,
)


def _dump(engine: Engine) -> dict[str, list[tuple[object, ...]]]:
    with reading(engine) as conn:
        return {
            table.name: [tuple(r) for r in conn.execute(select(table).order_by(*table.c)).all()]
            for table in (nodes, edges, closure, node_examples)
        }


def test_loading_twice_changes_nothing(fresh_db: Engine) -> None:
    assert load(fresh_db) is True
    before = _dump(fresh_db)
    assert load(fresh_db) is False
    assert _dump(fresh_db) == before
    assert len(before["closure"]) == len(closure_of(MIDS, EDGES))


def test_a_node_with_two_parents_is_below_the_root_once(fresh_db: Engine) -> None:
    make_world(fresh_db)
    members = [mid for mid, _ in predictable_members(fresh_db, "/a")]
    assert members == ["/b", "/c", "/d"]
    assert predictable_members(fresh_db, "/e", "tiny") == [("/e", "name /e")]


def test_a_new_ontology_keeps_ids_and_nodes(fresh_db: Engine) -> None:
    load(fresh_db)
    before = {row[1]: row[0] for row in _dump(fresh_db)["nodes"]}
    mids = ("/new", "/d", "/a")
    assert load(fresh_db, mids, [("/a", "/new")]) is True
    after = _dump(fresh_db)
    ids = {row[1]: row[0] for row in after["nodes"]}
    assert {mid: ids[mid] for mid in before} == before
    assert after["edges"] == [(ids["/a"], ids["/new"], 0)]
    assert (ids["/b"], ids["/b"], 0) in after["closure"]
    assert load(fresh_db, mids, [("/a", "/new")]) is False


def test_descriptions_and_examples_are_overwritten_only_by_given_ones(fresh_db: Engine) -> None:
    full = [Node("/x", "X", (), True, False, "text %s", "https://x", ("u1", "u2"))]
    own = [("/x", "/x", 0)]
    load_ontology(fresh_db, full, [], own)
    assert load_ontology(fresh_db, [Node("/x", "X", is_abstract=True)], [], own) is False
    assert load_ontology(fresh_db, [replace(full[0], examples=("u3",))], [], own) is True
    row = _dump(fresh_db)["nodes"][0]
    assert row[2:] == ("X", 0, True, False, "text %s", "https://x")
    assert [r[1:] for r in _dump(fresh_db)["node_examples"]] == [(0, "u3")]


def test_a_broken_ontology_is_refused(fresh_db: Engine) -> None:
    with pytest.raises(DatabaseUserError, match="unknown MIDs: /z"):
        load_ontology(fresh_db, nodes_of(["/a"]), [("/a", "/z")], [])
    with pytest.raises(DatabaseUserError, match="twice"):
        load_ontology(fresh_db, nodes_of(["/a", "/a"]), [], [])


def test_models_and_parameters_are_registered_once(fresh_db: Engine) -> None:
    load(fresh_db)
    assert find_variant(fresh_db, "tiny", "1", PARAMETERS) is None
    model_id = register_model(fresh_db, MODEL)
    shuffled = replace(MODEL, categories=MODEL.categories[::-1])
    assert register_model(fresh_db, shuffled, NOW) == model_id
    parameter_set_id = register_parameters(fresh_db, PARAMETERS)
    assert register_parameters(fresh_db, replace(PARAMETERS)) == parameter_set_id
    assert find_variant(fresh_db, "tiny", "1", PARAMETERS) == Variant(model_id, parameter_set_id)
    assert categories_of(fresh_db, "tiny") == list(MODEL.categories)


def test_the_same_values_from_another_file_are_the_same_model(fresh_db: Engine) -> None:
    load(fresh_db)
    model_id = register_model(fresh_db, MODEL, NOW)
    assert register_model(fresh_db, replace(MODEL, weights_sha256="b" * 64), NOW) == model_id


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"categories": MODEL.categories[1:]}, "other categories.*give this one another version"),
        ({"version": "2", "categories": ((0, "/nope", "x"),)}, "lacks 1 categories.*/nope"),
    ],
)
def test_a_model_that_contradicts_is_refused(
    fresh_db: Engine, change: dict[str, object], message: str
) -> None:
    load(fresh_db)
    register_model(fresh_db, MODEL, NOW)
    with pytest.raises(DatabaseUserError, match=message):
        register_model(fresh_db, replace(MODEL, **change), NOW)  # type: ignore[arg-type]


def test_digest_depends_on_values_only() -> None:
    one = Parameters(0.48, 0.05, 0.2, {"a": 1, "b": {"c": 2, "d": 3}})
    same = Parameters(0.48, 0.05, 0.2, {"b": {"d": 3, "c": 2}, "a": 1})
    assert one.digest == same.digest
    assert one.digest != replace(one, patch_hop_s=0.96).digest
    assert Parameters(1, 0, 1).digest == Parameters(1.0, 0.0, 1.0).digest


def test_models_known_count_their_labellings(fresh_db: Engine) -> None:
    world = make_world(fresh_db)
    assert [(m.name, m.n_labelled, m.n_current) for m in models_known(fresh_db)] == [("tiny", 0, 0)]
    labelled(world, "a", {})
    (report,) = models_known(fresh_db)
    assert (report.n_labelled, report.n_current, report.n_classes) == (1, 1, 4)
    with pytest.raises(DatabaseUserError, match="called 'huge'; known models: tiny"):
        categories_of(fresh_db, "huge")
