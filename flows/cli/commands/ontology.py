"""``audioset ontology``: show, tree, search, missing, load."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from audioset_core.models.registry import BUNDLES, YAMNET, ModelBundle, find_bundle
from audioset_core.ontology.graph import Node, Ontology, load_default
from flows.cli.help import HelpGroup
from flows.options import DEFAULT_HOME, Database, Home, database_url, make_home
from flows.terminal import print_json, print_table

app = typer.Typer(
    cls=HelpGroup,
    help="The AudioSet ontology. A NAME may be a MID, a name, or a path such as "
    "'Sounds of things/Vehicle'.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

AsJson = Annotated[bool, typer.Option("--json", help="JSON on stdout.")]
_NAME = "A MID, a name, or a path such as 'Sounds of things/Vehicle'."


@app.command()
def show(
    name: Annotated[str, typer.Argument(help=_NAME)],
    home: Home = DEFAULT_HOME,
    db: Database = None,
    as_json: AsJson = False,
) -> None:
    """A class or category: where it stands, what is below it, what models can say."""
    ontology = load_default()
    node = ontology.find(name)
    described = _described(ontology, node, home, db)
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


@app.command()
def tree(
    name: Annotated[str | None, typer.Argument(help=_NAME, show_default=False)] = None,
    depth: Annotated[int | None, typer.Option(min=0, help="Levels below the top.")] = None,
) -> None:
    """The ontology, or the part below a node, as an indented tree.

    A node with several parents stands below each of them. (-) marks what YAMNet cannot predict.
    """
    ontology = load_default()
    predictable = _predictable(YAMNET)

    def walk(node: Node, level: int) -> None:
        print(f"{'  ' * level}{node.name}{'' if node.mid in predictable else ' (-)'}")
        if depth is None or level < depth:
            for child in ontology.children(node.mid):
                walk(child, level + 1)

    for top in [ontology.find(name)] if name else ontology.roots:
        walk(top, 0)


@app.command()
def search(
    text: Annotated[str, typer.Argument(help="Words of a name.")], as_json: AsJson = False
) -> None:
    """Classes and categories whose names contain the words."""
    ontology = load_default()
    found = ontology.search(text)
    if as_json:
        print_json([{"mid": node.mid, "name": node.name} for node in found])
        return
    rows = [(n.mid, n.name, " > ".join(next(iter(ontology.paths(n.mid)))[:-1])) for n in found]
    print_table(("mid", "name", "below"), rows)
    if not found:
        nearest = ", ".join(map(repr, ontology.nearest(text)))
        raise typer.Exit(_say(f"no name contains {text!r}; nearest: {nearest}"))


@app.command()
def missing(
    name: Annotated[str, typer.Argument(help=_NAME)],
    model: Annotated[str, typer.Option(help=f"One of {', '.join(BUNDLES)}.")] = "yamnet",
    as_json: AsJson = False,
) -> None:
    """Concrete classes below a node that a model cannot predict; exit code 0 also if there are any.

    Abstract nodes only gather others: no model predicts them, and they are not listed.
    """
    ontology = load_default()
    node = ontology.find(name)
    predicted = _predictable(find_bundle(model))
    concrete = [each for each in ontology.subtree(node.mid) if not each.is_abstract]
    lacking = [each for each in concrete if each.mid not in predicted]
    if as_json:
        print_json([{"mid": each.mid, "name": each.name} for each in lacking])
    else:
        rows = [
            (n.mid, n.name, " > ".join(next(iter(ontology.paths(n.mid)))[:-1])) for n in lacking
        ]
        print_table(("mid", "name", "below"), rows)
    _say(f"{model} lacks {len(lacking)} of {len(concrete)} classes at or below {node.name!r}")


@app.command()
def load(
    file: Annotated[Path, typer.Argument(help="An official ontology.json.")],
    home: Home = DEFAULT_HOME,
    db: Database = None,
) -> None:
    """Add descriptions, citations and examples from an official ontology.json to the database."""
    from db.engine import open_engine
    from db.migrate import ensure_schema
    from tasks.load_ontology import store_ontology

    ontology = Ontology.from_official_json(file)
    make_home(home)
    engine = open_engine(database_url(home, db))
    try:
        ensure_schema(engine)
        is_new = store_ontology(engine, ontology)
    finally:
        engine.dispose()
    n_edges = sum(1 for _ in ontology.edges())
    print(
        f"{len(ontology.nodes)} nodes, {n_edges} edges: {'stored' if is_new else 'known already'}"
    )


def _described(ontology: Ontology, node: Node, home: Path, db: str | None) -> dict[str, object]:
    predictable = _predictable(YAMNET)
    below = ontology.descendants(node.mid)
    flags = [
        name
        for name, is_set in (("abstract", node.is_abstract), ("blacklisted", node.is_blacklisted))
        if is_set
    ]
    stored = _stored_texts(node.mid, home, db)
    return {
        "name": node.name,
        "mid": node.mid,
        "paths": ["/".join(path) for path in ontology.paths(node.mid)],
        "restrictions": flags,
        "children": [child.name for child in ontology.children(node.mid)],
        "nodes_below": len(below),
        "predicted_by_yamnet": node.mid in predictable,
        "predicted_below": sum(n.mid in predictable for n in below),
        **stored,
    }


def _stored_texts(mid: str, home: Path, db: str | None) -> dict[str, object]:
    """Description, citation and examples, where ``ontology load`` has stored them."""
    from db.catalog.ontology import node_texts
    from flows.asking import opened

    if db is None and not (home / "labels.db").exists():
        return {}
    with opened(home, db) as engine:
        texts = node_texts(engine, mid)
    if texts is None:
        return {}
    description, citation_uri, examples = texts
    return {"description": description, "citation_uri": citation_uri, "examples": list(examples)}


def _predictable(bundle: ModelBundle) -> frozenset[str]:
    return frozenset(category.mid for category in bundle.categories)


def _say(text: str) -> int:
    from flows.terminal import note

    note(text)
    return 1
