"""Classes of one's own: they outlive every load of the ontology, and labels keep them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from sqlalchemy import Engine, delete, select

from db.catalog.own_classes import (
    REFERENCES,
    OwnClass,
    add_own_class,
    change_own_class,
    count_labelled_clips,
    own_classes,
    own_mid,
    remove_own_class,
)
from db.engine import reading, writing
from db.errors import DatabaseUserError
from db.integrity.closure import closure_differences, rebuild_closure
from db.judging.verdicts import Verdict, VerdictFile, count_verdicts, store_verdicts
from db.schema.complete import metadata
from db.schema.tables import closure, edges, nodes
from tests.db.build import EDGES, MIDS, MODEL, NOW, labelled, load, make_world, sha, top_clips

SAW = OwnClass("x:saw", "Saw", ("/d", "/e"), "It cuts.")
HAND_SAW = OwnClass("x:hand-saw", "Hand saw", ("x:saw",))
# /d directly below /a, and without /b and /e.
OTHER = (("/a", "/c", "/d", "/new"), (("/a", "/c"), ("/a", "/d"), ("/d", "/new")))


def _above(engine: Engine, mid: str) -> dict[str, int]:
    """The closure's rows of a descendant: depth by ancestor."""
    above, below = nodes.alias(), nodes.alias()
    query = (
        select(above.c.mid, closure.c.depth)
        .join(closure, closure.c.ancestor_id == above.c.id)
        .join(below, below.c.id == closure.c.descendant_id)
        .where(below.c.mid == mid)
    )
    with reading(engine) as conn:
        return {row.mid: row.depth for row in conn.execute(query)}


def test_loads_of_the_ontology_leave_own_classes_where_they_are(fresh_db: Engine) -> None:
    load(fresh_db)
    assert add_own_class(fresh_db, SAW)
    assert add_own_class(fresh_db, HAND_SAW)
    own = [SAW, HAND_SAW]
    depths = {"x:hand-saw": 0, "x:saw": 1, "/d": 2, "/e": 2, "/b": 3, "/c": 3, "/a": 4}
    assert _above(fresh_db, "x:hand-saw") == depths
    assert load(fresh_db) is False
    assert load(fresh_db, *OTHER) is True
    assert load(fresh_db, *OTHER) is False
    assert _above(fresh_db, "x:saw") == {"x:saw": 0, "/d": 1, "/e": 1, "/a": 2}
    assert (own_classes(fresh_db), closure_differences(fresh_db)) == (own, [])
    assert load(fresh_db) is True
    assert load(fresh_db) is False
    assert _above(fresh_db, "x:hand-saw") == depths
    assert (own_classes(fresh_db), closure_differences(fresh_db)) == (own, [])


@pytest.mark.parametrize("mend", [rebuild_closure, load])
def test_a_lost_closure_is_made_again_with_own_classes(fresh_db: Engine, mend: object) -> None:
    load(fresh_db)
    add_own_class(fresh_db, SAW)
    before = _above(fresh_db, "x:saw")
    with writing(fresh_db) as conn:
        conn.execute(delete(closure))
    mend(fresh_db)  # type: ignore[operator]
    assert _above(fresh_db, "x:saw") == before
    assert (closure_differences(fresh_db), load(fresh_db)) == ([], False)


@pytest.mark.parametrize(
    ("name", "mid"),
    [
        ("Wood saw", "x:wood-saw"),
        ("  My_Säge (№ 2) ", "x:my-säge-no-2"),
        ("木の鋸", "x:木の鋸"),
        ("हिन्दी आरी", "x:हिन्दी-आरी"),
    ],
)
def test_the_mid_is_made_of_the_name(name: str, mid: str) -> None:
    assert own_mid(name) == mid


def test_a_class_is_stored_once_and_another_is_refused(fresh_db: Engine) -> None:
    load(fresh_db)
    assert add_own_class(fresh_db, SAW) is True
    same = OwnClass("x:saw", "SAW", ("/e", "/d"))
    assert add_own_class(fresh_db, same) is False
    for other, message in [
        (
            replace(SAW, name="Saw!"),
            r"would have the MID of 'Saw' \(x:saw\): choose another",
        ),
        (replace(SAW, parent_mids=("/d",)), r"there already, below name /d, name /e: .* change"),
        (replace(SAW, description="no"), r"there already, with another description: .* change"),
        (replace(HAND_SAW, parent_mids=("/z",)), "in the database has no node '/z'"),
    ]:
        with pytest.raises(DatabaseUserError, match=message):
            add_own_class(fresh_db, other)
    assert own_classes(fresh_db) == [SAW]


def test_a_class_is_moved_with_what_is_below_it(fresh_db: Engine) -> None:
    load(fresh_db)
    add_own_class(fresh_db, SAW)
    add_own_class(fresh_db, HAND_SAW)
    assert change_own_class(fresh_db, "x:saw", ("/b",)) is True
    assert change_own_class(fresh_db, "x:saw", ("/b",), "It cuts.") is False
    assert _above(fresh_db, "x:hand-saw") == {"x:hand-saw": 0, "x:saw": 1, "/b": 2, "/a": 3}
    for parent in ("x:saw", "x:hand-saw"):
        with pytest.raises(DatabaseUserError, match="neither below itself nor below what is below"):
            change_own_class(fresh_db, "x:saw", ("/c", parent))
    assert change_own_class(fresh_db, "x:saw", description="It saws.") is True
    assert own_classes(fresh_db)[0] == OwnClass("x:saw", "Saw", ("/b",), "It saws.")
    assert closure_differences(fresh_db) == []


def test_labels_and_verdicts_keep_a_class_and_subtrees_find_it(fresh_db: Engine) -> None:
    load(fresh_db)
    add_own_class(fresh_db, SAW)
    add_own_class(fresh_db, HAND_SAW)
    categories = (*MODEL.categories, (4, "x:saw", "Saw"))
    world = make_world(fresh_db, model=replace(MODEL, categories=categories))
    labelled(world, "one", {"x:saw": 0.75, "/c": 0.25}, index={"x:saw": 4, "/c": 1})
    labelled(world, "two", {"/c": 0.25}, index={"/c": 1})
    hits = [(hit.clip, hit.mid, hit.score) for hit in top_clips(fresh_db, "/a", min_score=0.5)]
    assert hits == [(sha("one"), "x:saw", 0.75)]
    assert [hit.mid for hit in top_clips(fresh_db, "x:saw", min_score=0.5)] == ["x:saw"]
    said = [
        Verdict(sha(clip), "x:saw", None, verdict, by, NOW, f"line {i}")
        for i, (clip, verdict, by) in enumerate(
            [("one", "present", "ann"), ("two", "absent", "ann"), ("two", "absent", "bob")]
        )
    ]
    store_verdicts(fresh_db, VerdictFile("f" * 64, "f", "csv"), said, NOW)
    assert count_verdicts(fresh_db) == {"x:saw": (1, 2)}
    assert count_labelled_clips(fresh_db) == {"x:saw": 1}
    held = "labelled clips: 1, outputs of models: 1, verdicts: 3, classes below it: 1"
    with pytest.raises(DatabaseUserError, match=rf"since it is in use \({held}\)"):
        remove_own_class(fresh_db, "x:saw")
    remove_own_class(fresh_db, "x:hand-saw")
    assert own_classes(fresh_db) == [SAW]
    with pytest.raises(DatabaseUserError, match="'x:hand-saw' is no class of your own"):
        remove_own_class(fresh_db, "x:hand-saw")
    assert closure_differences(fresh_db) == []


def test_everything_that_refers_to_a_node_is_looked_at() -> None:
    refer = {
        key.parent.table.name
        for table in metadata.tables.values()
        for key in table.foreign_keys
        if key.column.table.name == "nodes" and key.ondelete != "CASCADE"
    }
    scores = {"clip_scores", "detections", "intervals"}  # of an output of a model
    assert refer - scores == {table.name for table in REFERENCES.values()}


def test_adds_and_loads_at_the_same_time_all_count(fresh_db: Engine) -> None:
    load(fresh_db)
    wanted = [OwnClass(f"x:{i % 4}", f"{i % 4}", ("/d",)) for i in range(12)]
    ontologies = [(MIDS, EDGES), OTHER] * 4
    with ThreadPoolExecutor(4) as pool:
        loads = [pool.submit(load, fresh_db, *each) for each in ontologies]
        added = list(pool.map(lambda each: add_own_class(fresh_db, each), wanted))
        for each in loads:
            each.result()
    assert added.count(True) == 4
    assert {each.mid: each.parent_mids for each in own_classes(fresh_db)} == {
        f"x:{i}": ("/d",) for i in range(4)
    }
    with reading(fresh_db) as conn:
        assert len(conn.execute(select(edges)).all()) in (len(EDGES) + 4, len(OTHER[1]) + 4)
    assert closure_differences(fresh_db) == []
