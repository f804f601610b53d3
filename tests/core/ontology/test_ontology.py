from __future__ import annotations

import contextlib
import copy
import dataclasses
import itertools
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audioset_core.errors import OntologyError, UnknownNodeError, UserError
from audioset_core.models.classes import load_categories
from audioset_core.ontology.graph import Node, Ontology, load_default

ONTOLOGY = load_default()


def mid(name: str) -> str:
    return ONTOLOGY.find(name).mid


def names(nodes: tuple[Node, ...]) -> set[str]:
    return {node.name for node in nodes}


def entry(mid: str, *child_ids: str, **more: Any) -> dict[str, Any]:
    return {"id": mid, "name": f"Name {mid}", "child_ids": [*child_ids], "restrictions": [], **more}


def load(tmp_path: Path, content: Any) -> Ontology:
    path = tmp_path / "ontology.json"
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return Ontology.from_official_json(path)


# --- facts of the official ontology -------------------------------------------------------------


def test_counts() -> None:
    nodes = list(ONTOLOGY.nodes.values())
    parents = {node.mid: len(ONTOLOGY.parents(node.mid)) for node in nodes}
    # Google's 632 nodes and 670 edges, and the 31 classes of AudioSet-strong, one with two parents.
    assert len(nodes) == 632 + 31
    assert len(list(ONTOLOGY.edges())) == 670 + 32
    assert len(list(ONTOLOGY.closure())) == 2314 + 112
    assert max(map(ONTOLOGY.depth, ONTOLOGY.nodes)) == 5
    assert Counter(count for count in parents.values() if count > 1).total() == 38 + 1
    assert max(parents.values()) == 4
    assert sum(node.is_blacklisted for node in nodes) == 67
    assert sum(node.is_abstract for node in nodes) == 23
    assert sum(node.is_blacklisted and node.is_abstract for node in nodes) == 1


def test_roots() -> None:
    assert [(node.mid, node.name) for node in ONTOLOGY.roots] == [
        ("/m/0dgw9r", "Human sounds"),
        ("/m/0jbk", "Animal"),
        ("/m/04rlf", "Music"),
        ("/m/059j3w", "Natural sounds"),
        ("/t/dd00041", "Sounds of things"),
        ("/t/dd00098", "Source-ambiguous sounds"),
        ("/t/dd00123", "Channel, environment and background"),
    ]


def test_closure_is_unique_and_edges_are_ordered() -> None:
    pairs = [(above, below) for above, below, _ in ONTOLOGY.closure()]
    assert len(set(pairs)) == len(pairs)
    assert sum(depth == 0 for _, _, depth in ONTOLOGY.closure()) == 663
    assert sum(depth == 1 for _, _, depth in ONTOLOGY.closure()) == 702
    assert list(itertools.islice(ONTOLOGY.edges(), 2)) == [
        ("/m/0dgw9r", "/m/09l8g"),
        ("/m/0dgw9r", "/m/01w250"),
    ]


def test_model_outputs_and_nodes() -> None:
    yamnet = load_categories("yamnet")
    assert len(ONTOLOGY.nodes.keys() - {category.mid for category in yamnet}) == 111 + 31
    assert sum(ONTOLOGY.nodes[category.mid].is_blacklisted for category in yamnet) == 12
    for category in (*yamnet, *load_categories("audioset527")):
        assert ONTOLOGY.nodes[category.mid].name == category.name


def test_categories() -> None:
    yamnet, audioset = load_categories("yamnet"), load_categories("audioset527")
    assert [c.index for c in yamnet] == list(range(521))
    assert [c.index for c in audioset] == list(range(527))
    assert dataclasses.astuple(yamnet[1]) == (1, "/m/0ytgt", "Child speech, kid speaking")
    assert {c.name for c in audioset} - {c.name for c in yamnet} == {
        "Male speech, man speaking",
        "Female speech, woman speaking",
        "Battle cry",
        "Male singing",
        "Female singing",
        "Funny music",
    }
    order = [c.mid for c in audioset if c.mid in {y.mid for y in yamnet}]
    assert [c.mid for c in yamnet] == order
    with pytest.raises(UserError, match="there is audioset447, audioset527, yamnet"):
        load_categories("yamnet521")


def test_every_strong_class_has_a_node_below_a_category() -> None:
    strong = load_categories("audioset447")
    assert [c.index for c in strong] == list(range(447))
    assert len({c.mid for c in strong} & {c.mid for c in load_categories("audioset527")}) == 376
    assert all(ONTOLOGY.parents(c.mid) or c.name in names(ONTOLOGY.roots) for c in strong)
    assert "Washing machine" in names(ONTOLOGY.subtree(mid("Domestic sounds, home sounds")))
    saw = mid("Power saw, circular saw, table saw")
    assert names(ONTOLOGY.parents(saw)) == {"Power tool", "Sawing"}
    # The raters' label has another MID than the heading of its name, and so its own node.
    assert ONTOLOGY.find("Brief tone").mid == "/t/dd000138"
    assert names(ONTOLOGY.parents("/t/dd00138")) == {"Brief tone"}


def test_strong_classes_join_a_file_that_has_their_parents(tmp_path: Path) -> None:
    alarm = entry("/m/07pp_mv", "/t/dd00144")
    found = load(tmp_path, [alarm, entry("/t/dd00144", name="Alert, by the file itself")])
    children = [node.name for node in found.children("/m/07pp_mv")]
    assert children[0] == "Alert, by the file itself"
    assert set(children[1:]) == {"Carbon monoxide detector, CO detector", "Error signal"}
    assert len(found.nodes) == 4


def test_the_shipped_table_is_the_official_file(assets: Path) -> None:
    official = Ontology.from_official_json(assets / "ontology" / "ontology.json")
    bare = [
        dataclasses.replace(node, description=None, citation_uri=None, examples=())
        for node in official.nodes.values()
    ]
    shipped = [dataclasses.replace(node, description=None) for node in ONTOLOGY.nodes.values()]
    assert bare == shipped
    assert official.nodes["/m/0ytgt"].description is not None
    assert len(official.nodes["/m/0ytgt"].examples) == 9
    assert "Dog" not in names(official.search("monophonic"))
    assert names(official.search("siren ambulance")) >= {"Ambulance (siren)"}


# --- the predecessor kept one parent per node ---------------------------------------------------


@pytest.mark.parametrize(
    ("parent", "child"),
    [
        ("Emergency vehicle", "Police car (siren)"),
        ("Emergency vehicle", "Ambulance (siren)"),
        ("Emergency vehicle", "Fire engine, fire truck (siren)"),
        ("Siren", "Police car (siren)"),
        ("Dog", "Growling"),
        ("Dog", "Howl"),
        ("Canidae, dogs, wolves", "Howl"),
        ("Musical instrument", "Bell"),
    ],
)
def test_a_node_stays_with_every_parent(parent: str, child: str) -> None:
    assert child in names(ONTOLOGY.children(mid(parent)))
    assert parent in names(ONTOLOGY.parents(mid(child)))
    assert child in names(ONTOLOGY.descendants(mid(parent)))
    assert parent in names(ONTOLOGY.ancestors(mid(child)))


@pytest.mark.parametrize("name", ["Animal", "Music", "Sounds of things", "Alarm"])
def test_going_down_visits_each_node_once(name: str) -> None:
    subtree = ONTOLOGY.subtree(mid(name))
    assert subtree[0].name == name
    assert len({node.mid for node in subtree}) == len(subtree)
    assert ONTOLOGY.descendants(mid(name)) == subtree[1:]


def test_paths_and_depth() -> None:
    assert list(ONTOLOGY.paths(mid("Howl"))) == [
        ("Animal", "Domestic animals, pets", "Dog", "Howl"),
        ("Animal", "Wild animals", "Canidae, dogs, wolves", "Howl"),
    ]
    assert ONTOLOGY.depth(mid("Howl")) == 3
    assert list(ONTOLOGY.paths(mid("Animal"))) == [("Animal",)]
    assert sum(len(list(ONTOLOGY.paths(each))) for each in ONTOLOGY.nodes) > 670


# --- find ---------------------------------------------------------------------------------------


def test_each_mid_name_and_path_finds_its_node() -> None:
    for node in ONTOLOGY.nodes.values():
        path = "/".join(next(ONTOLOGY.paths(node.mid)))
        for text in (node.mid, node.name, f" {node.name.upper()}  ", path.lower()):
            assert ONTOLOGY.find(text) is node


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Sounds of things/Vehicle", "Vehicle"),
        ("sounds of  things / VEHICLE/", "Vehicle"),
        ("Dog/Howl", "Howl"),
        ("dog", "Dog"),
        ("/m/0bt9lr", "Dog"),
        ("/Animal/Wild animals", "Wild animals"),
    ],
)
def test_find(text: str, name: str) -> None:
    assert ONTOLOGY.find(text).name == name


@pytest.mark.parametrize(
    ("text", "best"),
    [
        ("dogs", "Dog"),
        ("guitr", "Guitar"),
        ("violin", "Violin, fiddle"),
        ("speach", "Speech"),
        ("vaccum cleaner", "Vacuum cleaner"),
        ("police siren", "Police car (siren)"),
        ("helicoptr", "Helicopter"),
        ("Sounds of things/Vehicl", "Vehicle"),
        ("Music/Dog", "Dog"),
        ("car horn", "Vehicle horn, car horn, honking"),
        ("/m/0bt9l", "/m/0bt9lr"),
        ("/m/0BT9LR", "/m/0bt9lr"),
    ],
)
def test_an_unknown_text_names_the_nearest(text: str, best: str) -> None:
    with pytest.raises(UnknownNodeError) as caught:
        ONTOLOGY.find(text)
    assert caught.value.nearest[0] == best
    assert len(caught.value.nearest) <= 3
    assert best in str(caught.value)


@given(st.text(alphabet=st.characters(), max_size=200))
def test_find_answers_any_text(text: str) -> None:
    with contextlib.suppress(UnknownNodeError):
        assert ONTOLOGY.find(text).mid in ONTOLOGY.nodes


def test_unknown_mids_are_refused_everywhere() -> None:
    for ask in (ONTOLOGY.children, ONTOLOGY.parents, ONTOLOGY.subtree, ONTOLOGY.ancestors):
        with pytest.raises(UnknownNodeError):
            ask("/m/none")
    with pytest.raises(UnknownNodeError):
        list(ONTOLOGY.paths("/m/none"))


def test_official_names_are_unique() -> None:
    assert len({node.name.casefold() for node in ONTOLOGY.nodes.values()}) == 663


def test_names_with_slashes_and_equal_names() -> None:
    ontology = Ontology(
        [
            Node("a", "AC/DC", ("b", "c")),
            Node("b", "On/Off", ("d",)),
            Node("c", "Off", ("e",)),
            Node("d", "Click"),
            Node("e", "click"),
            Node("f", "On", ("g",)),
            Node("g", "Off"),
        ]
    )
    assert ontology.find("ac/dc").mid == "a"
    assert ontology.find("AC/DC/On/Off/Click").mid == "d"
    assert ontology.find("ac/dc/off/click").mid == "e"
    assert ontology.find("Click").mid == "d"
    assert ontology.find("click").mid == "e"
    assert ontology.find("On/Off").mid == "b"
    with pytest.raises(UserError, match=r"any of 2 nodes \(d, e\)"):
        ontology.find("CLICK")
    with pytest.raises(UserError, match=r"any of 2 nodes \(c, g\)"):
        ontology.find("Off")


def test_search_takes_all_words_and_names_first() -> None:
    assert {"Dog", "Canidae, dogs, wolves"} <= names(ONTOLOGY.search("dog"))
    assert names(ONTOLOGY.search("Siren  AMBULANCE")) == {"Ambulance (siren)"}
    assert ONTOLOGY.search("  ") == ()
    ontology = Ontology(
        [Node("a", "X", description="Like a cat."), Node("b", "Cat"), Node("c", "Y")]
    )
    assert [node.mid for node in ontology.search("CAT")] == ["b", "a"]


# --- hostile files ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not JSON"),
        (b"{nope", "not JSON"),
        (b"\xff\xfe\xfa", "not JSON"),
        (b"[" * 200_000, "not JSON"),
        (b"[" + b"1" * 5_000 + b"]", "not JSON"),
        ({}, "must hold a list"),
        ([], "empty"),
        ([[]], "entry 0 must be an object"),
        ([{"id": "a"}], "entry 0 lacks child_ids, name, restrictions"),
        ([entry("a"), entry("a")], "'a' occurs twice"),
        ([entry("a", "b")], "child 'b' that does not exist"),
        ([entry("a", "b", "b"), entry("b")], "lists a child twice"),
        ([entry("a", "a")], "cycle, a -> a"),
        ([entry("r", "a"), entry("a", "b"), entry("b", "c"), entry("c", "a")], "cycle, "),
        ([entry("a\0")], "NUL"),
        ([entry("a", name="x\0")], "NUL"),
        ([entry("a", description="x\0")], "NUL"),
        ([entry("a", name="\ud800")], "surrogate"),
        ([entry("a", name=" ")], "blank"),
        ([entry("a b")], "blank"),
        ([entry("a", name=3)], "name must be text"),
        ([entry("a", child_ids="b")], "child_ids must be a list"),
        ([entry("a", child_ids=[None])], "child_ids must be text"),
        ([entry("a", restrictions=["secret"])], "allowed: abstract, blacklist"),
        ([entry("a", positive_examples=[{}])], "positive_examples must be text"),
    ],
)
def test_malformed_files_are_refused(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(OntologyError, match=message):
        load(tmp_path, content)


def test_unreadable_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(OntologyError, match="not a file"):
        Ontology.from_official_json(tmp_path / "none.json")
    with pytest.raises(OntologyError, match="not a file"):
        Ontology.from_official_json(Path("/dev/zero"))


def test_a_cycle_is_named_in_order(tmp_path: Path) -> None:
    entries = [entry("r", "a"), entry("a", "b"), entry("b", "c", "d"), entry("c", "a"), entry("d")]
    with pytest.raises(OntologyError) as caught:
        load(tmp_path, entries)
    assert any(cycle in str(caught.value) for cycle in ("a -> b -> c -> a", "b -> c -> a -> b"))


def test_a_deep_chain_is_no_problem(tmp_path: Path) -> None:
    n = 20_000
    ontology = load(tmp_path, [entry(str(i), str(i + 1)) for i in range(n)] + [entry(str(n))])
    assert ontology.depth(str(n)) == n
    assert len(ontology.ancestors(str(n))) == n


def test_a_file_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    assert load(tmp_path, b"\xef\xbb\xbf" + json.dumps([entry("a")]).encode()).roots[0].mid == "a"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
VALID = [
    entry("a", "b", "c", description="d", citation_uri="u", positive_examples=["p"]),
    entry("b", "d", restrictions=["abstract"]),
    entry("c", "d"),
    entry("d"),
]


@given(st.data())
def test_mutated_entries_give_only_ontology_errors(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    entries = copy.deepcopy(VALID)
    for _ in range(data.draw(st.integers(1, 3))):
        victim = entries[data.draw(st.integers(0, 3))]
        key = data.draw(st.sampled_from([*VALID[0], "other"]))
        ids = st.sampled_from("abcd")
        if data.draw(st.booleans()):
            victim.pop(key, None)
        else:
            victim[key] = data.draw(json_values | ids | st.lists(ids, max_size=3))
    _only_ontology_errors(tmp_path_factory, json.dumps(entries).encode())


@given(st.data())
def test_mutated_bytes_give_only_ontology_errors(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    text = json.dumps(VALID).encode()
    at = data.draw(st.integers(0, len(text)))
    n_lost = data.draw(st.integers(0, 40))
    damaged = text[:at] + data.draw(st.binary(max_size=4)) + text[at + n_lost :]
    _only_ontology_errors(tmp_path_factory, damaged)


def _only_ontology_errors(factory: pytest.TempPathFactory, content: bytes) -> None:
    try:
        ontology = load(factory.mktemp("ontology"), content)
    except OntologyError:
        return
    assert ontology.roots
    for node in ontology.nodes.values():
        json.dumps(dataclasses.asdict(node), ensure_ascii=False).encode()


# --- random DAGs --------------------------------------------------------------------------------


@st.composite
def dags(draw: st.DrawFn) -> Ontology:
    n = draw(st.integers(1, 9))
    order = draw(st.permutations(range(n)))
    pairs = list(itertools.combinations(order, 2))
    edges = draw(st.lists(st.sampled_from(pairs), unique=True)) if pairs else []
    return Ontology(
        Node(str(i), f"Node {i}", tuple(str(b) for a, b in edges if a == i)) for i in range(n)
    )


def shortest_by_brute_force(ontology: Ontology) -> dict[tuple[str, str], int]:
    """Floyd-Warshall."""
    mids = list(ontology.nodes)
    far = len(mids) + 1
    edges = set(ontology.edges())
    shortest = {(a, b): 0 if a == b else 1 if (a, b) in edges else far for a in mids for b in mids}
    for via, a, b in itertools.product(mids, repeat=3):
        shortest[a, b] = min(shortest[a, b], shortest[a, via] + shortest[via, b])
    return {pair: depth for pair, depth in shortest.items() if depth < far}


@given(dags())
def test_closure_is_reachability(ontology: Ontology) -> None:
    closure = list(ontology.closure())
    expected = shortest_by_brute_force(ontology)
    assert len(closure) == len(expected)
    assert {(a, b): depth for a, b, depth in closure} == expected


@given(dags())
def test_up_and_down_agree_with_the_closure(ontology: Ontology) -> None:
    closure = {(a, b) for a, b, _ in ontology.closure()}
    roots = {node.mid for node in ontology.roots}
    for each in ontology.nodes:
        below = {node.mid for node in ontology.subtree(each)}
        above = {node.mid for node in ontology.ancestors(each)}
        assert below == {b for a, b in closure if a == each}
        assert above == {a for a, b in closure if b == each} - {each}
        paths = list(ontology.paths(each))
        assert len(set(paths)) == len(paths)
        assert min(map(len, paths)) == ontology.depth(each) + 1
        assert (each in roots) == (not above)
        for path in paths:
            assert ontology.find("/".join(path)).mid == each


@given(dags(), st.data())
def test_an_edge_back_up_is_a_cycle(ontology: Ontology, data: st.DataObject) -> None:
    a, b, _ = data.draw(st.sampled_from(list(ontology.closure())))
    nodes = dict(ontology.nodes)
    if a in nodes[b].child_mids:
        return
    nodes[b] = dataclasses.replace(nodes[b], child_mids=(*nodes[b].child_mids, a))
    with pytest.raises(OntologyError, match="cycle"):
        Ontology(nodes.values())


def test_import_is_light() -> None:
    code = (
        "import sys, audioset_core.ontology.graph\n"
        "print('numpy' in sys.modules, 'csv' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_further_classes_stand_below_their_parents() -> None:
    tool, saw = ONTOLOGY.find("Power tool"), ONTOLOGY.find("Sawing")
    added = [
        (Node("x:wood-saw", "Wood saw"), (tool.mid, saw.mid, "/m/none")),
        (Node("x:hand-saw", "Hand saw"), ("x:wood-saw",)),
        (Node("x:alone", "Alone"), ("/m/none",)),
    ]
    ontology = ONTOLOGY.with_classes(added)
    assert [node.mid for node in ontology.parents("x:wood-saw")] == [saw.mid, tool.mid]
    assert ontology.find("Power tool/wood saw/Hand saw").mid == "x:hand-saw"
    assert ontology.children(tool.mid)[:-1] == ONTOLOGY.children(tool.mid)
    assert ontology.roots[-1].mid == "x:alone"
    assert len(ontology.nodes) == len(ONTOLOGY.nodes) + 3
    assert ONTOLOGY.with_classes([]) is ONTOLOGY
