"""``audioset ontology``: show, tree, search, missing, load."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from sqlalchemy import Engine

from audioset_core.errors import UserError
from audioset_core.models.registry import BUNDLES, YAMNET, ModelBundle, find_bundle
from audioset_core.ontology.graph import Node, Ontology
from db.catalog.own_classes import OWN_PREFIX
from flows.asking import ontology_of
from flows.cli.command import command_group
from flows.cli.shared_options import AsJson, Store
from flows.options import make_home
from flows.terminal import note, print_json, print_table

_NAME = "A MID, a name, or a path such as 'Sounds of things/Vehicle'."
ModelName = Annotated[str, typer.Option("--model", help=f"One of {', '.join(BUNDLES)}.")]


def show(
    *,
    name: Annotated[str, typer.Argument(help=_NAME)],
    model: ModelName = YAMNET.name,
    store: Store,
    as_json: AsJson = False,
) -> None:
    """Show a class or category: its place, what is below it, what a model can predict."""
    bundle = find_bundle(model)
    with store.if_there() as engine:
        ontology = ontology_of(engine)
        node = ontology.find(name)
        stored = _stored_texts(engine, node.mid)
    described = _described(ontology, node, bundle) | stored
    if as_json:
        print_json(described)
        return
    rows = [
        (
            key.replace("_", " "),
            "; ".join(map(str, value)) if isinstance(value, list) else str(value),
        )
        for key, value in described.items()
        if value not in (None, [], "")
    ]
    print_table(("", ""), rows)


def tree(
    *,
    name: Annotated[str | None, typer.Argument(help=_NAME)] = None,
    depth: Annotated[int | None, typer.Option(min=0, help="Levels below the top.")] = None,
    model: ModelName = YAMNET.name,
    store: Store,
) -> None:
    """Print the ontology, or the part below a node, as an indented tree.

    A node with several parents is printed below each of them. (-) marks what the
    model cannot predict.
    """
    ontology = store.ontology()
    predictable = _predictable(find_bundle(model))

    def walk(node: Node, level: int) -> None:
        print(f"{'  ' * level}{node.name}{'' if node.mid in predictable else ' (-)'}")
        if depth is None or level < depth:
            for child in ontology.children(node.mid):
                walk(child, level + 1)

    for top in [ontology.find(name)] if name else ontology.roots:
        walk(top, 0)


def search(
    *,
    text: Annotated[str, typer.Argument(help="Words of a name.")],
    store: Store,
    as_json: AsJson = False,
) -> None:
    """Find classes and categories whose names contain the words."""
    ontology = store.ontology()
    found = ontology.search(text)
    _print_nodes(ontology, found, as_json=as_json)
    if not found and not as_json:
        nearest = ", ".join(map(repr, ontology.nearest(text)))
        note(f"no name contains {text!r}; nearest: {nearest}")
        raise typer.Exit(1)


def missing(
    *,
    name: Annotated[str, typer.Argument(help=_NAME)],
    model: ModelName = YAMNET.name,
    store: Store,
    as_json: AsJson = False,
) -> None:
    """List the concrete classes below a node that a model cannot predict.

    Abstract nodes only group others: no model predicts them, and they are not listed.
    """
    ontology = store.ontology()
    node = ontology.find(name)
    predicted = _predictable(find_bundle(model))
    concrete = [each for each in ontology.subtree(node.mid) if not each.is_abstract]
    lacking = [each for each in concrete if each.mid not in predicted]
    _print_nodes(ontology, lacking, as_json=as_json)
    note(f"{model} lacks {len(lacking)} of {len(concrete)} classes at or below {node.name!r}")


def load(
    *, file: Annotated[Path, typer.Argument(help="An official ontology.json.")], store: Store
) -> None:
    """Add descriptions, citations and examples from an official ontology.json to the database."""
    from flows.asking import open_database
    from tasks.load_ontology import store_ontology

    ontology = Ontology.from_official_json(file)
    if own := next((mid for mid in ontology.nodes if mid.startswith(OWN_PREFIX)), None):
        raise UserError(f"{file} has the id {own!r}: such ids are of audioset classes add")
    make_home(store.home)
    with open_database(store.home, store.db, create=True) as engine:
        is_new = store_ontology(engine, ontology)
    n_edges = sum(1 for _ in ontology.edges())
    print(
        f"{len(ontology.nodes)} nodes, {n_edges} edges: {'stored' if is_new else 'known already'}"
    )


def _print_nodes(ontology: Ontology, nodes: Sequence[Node], *, as_json: bool) -> None:
    if as_json:
        print_json([{"mid": node.mid, "name": node.name} for node in nodes])
    else:
        rows = [(n.mid, n.name, " > ".join(next(ontology.paths(n.mid))[:-1])) for n in nodes]
        print_table(("mid", "name", "below"), rows)


def _described(ontology: Ontology, node: Node, bundle: ModelBundle) -> dict[str, object]:
    predictable = _predictable(bundle)
    below = ontology.descendants(node.mid)
    flags = [
        name
        for name, is_set in (("abstract", node.is_abstract), ("blacklisted", node.is_blacklisted))
        if is_set
    ]
    return {
        "name": node.name,
        "mid": node.mid,
        "paths": ["/".join(path) for path in ontology.paths(node.mid)],
        "restrictions": flags,
        "children": [child.name for child in ontology.children(node.mid)],
        "nodes_below": len(below),
        f"predicted_by_{bundle.name}": node.mid in predictable,
        "predicted_below": sum(n.mid in predictable for n in below),
    }


def _stored_texts(engine: Engine | None, mid: str) -> dict[str, object]:
    """Description, citation and examples, where they are stored."""
    from db.catalog.ontology import node_texts

    texts = None if engine is None else node_texts(engine, mid)
    if texts is None:
        return {}
    description, citation_uri, examples = texts
    return {"description": description, "citation_uri": citation_uri, "examples": list(examples)}


def _predictable(bundle: ModelBundle) -> frozenset[str]:
    return frozenset(category.mid for category in bundle.categories)


app = command_group(
    "The AudioSet ontology. A NAME may be a MID, a name, or a path such as "
    "'Sounds of things/Vehicle'.",
    {"show": show, "tree": tree, "search": search, "missing": missing, "load": load},
)
