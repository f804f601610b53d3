"""``audioset classes``: classes of one's own, as nodes of the ontology."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from audioset_core.errors import UserError
from audioset_core.ontology.graph import Ontology, load_default
from db.catalog.own_classes import (
    change_own_class,
    count_labelled_clips,
    own_classes,
    remove_own_class,
)
from db.judging.verdicts import count_verdicts
from flows.asking import ontology_of, open_database
from flows.cli.command import command_group
from flows.cli.shared_options import AsJson, Store
from flows.options import make_home
from flows.own_classes import add_class, clean_text, own_class_mid, parent_mids, wanted_class
from flows.terminal import note, print_json, print_table

_PARENT = "A class or category that it is a kind of: name, MID or path. Repeat it for several."

Name = Annotated[str, typer.Argument(help="The name or MID of a class of your own.")]
Description = Annotated[str | None, typer.Option(help="What the class means, in a sentence.")]


def add(
    *,
    name: Annotated[str, typer.Argument(help="Its name, such as 'Wood saw'.")],
    under: Annotated[list[str], typer.Option(help=_PARENT)],
    description: Description = None,
    store: Store,
) -> None:
    """Add a class below one or more others: it is found by their names from now on.

    The same class again changes nothing.
    """
    if not store.is_there:
        wanted_class(load_default(), name, under, description)  # a mistake makes no home
    make_home(store.home)
    with open_database(store.home, store.db, create=True) as engine:
        ontology = ontology_of(engine)
        wanted = wanted_class(ontology, name, under, description)
        is_new = add_class(engine, wanted)
    below = ", ".join(_shown(ontology, mid) for mid in wanted.parent_mids)
    state = "added" if is_new else "is there already,"
    print(f"{wanted.name} ({wanted.mid}): {state} below {below}")


def list_(*, store: Store, as_json: AsJson = False) -> None:
    """List classes of your own: where they stand, what was judged, how many clips have scores."""
    with store.database() as engine:
        ontology = ontology_of(engine)
        verdicts, clips = count_verdicts(engine), count_labelled_clips(engine)
        found: list[dict[str, Any]] = [
            {
                "mid": each.mid,
                "name": each.name,
                "description": each.description,
                "below": [_shown(ontology, mid) for mid in each.parent_mids],
                "n_present": verdicts.get(each.mid, (0, 0))[0],
                "n_absent": verdicts.get(each.mid, (0, 0))[1],
                "n_clips": clips.get(each.mid, 0),
            }
            for each in own_classes(engine)
        ]
    if as_json:
        print_json(found)
        return
    counts = ("n_present", "n_absent", "n_clips")
    print_table(
        ("mid", "name", "below", ">present", ">absent", ">clips"),
        [
            (row["mid"], row["name"], ", ".join(row["below"]), *(f"{row[n]:,}" for n in counts))
            for row in found
        ],
    )
    if not found:
        note("no classes of your own yet: audioset classes add NAME --under CLASS")


def change(
    *,
    name: Name,
    under: Annotated[list[str] | None, typer.Option(help=_PARENT)] = None,
    description: Description = None,
    store: Store,
) -> None:
    """Put a class of your own below others instead, or describe it anew. Its labels stay."""
    if not under and description is None:
        raise UserError("say what to change: --under or --description")
    with store.database() as engine:
        ontology = ontology_of(engine)
        mid = own_class_mid(ontology, name)
        parents = parent_mids(ontology, under or [])
        is_new = change_own_class(engine, mid, parents, clean_text(description))
    print(f"{mid}: {'changed' if is_new else 'is like that already'}")


def remove(*, name: Name, store: Store) -> None:
    """Remove a class of your own to which no label, verdict or threshold refers."""
    with store.database() as engine:
        mid = own_class_mid(ontology_of(engine), name)
        remove_own_class(engine, mid)
    print(f"{mid}: removed")


def _shown(ontology: Ontology, mid: str) -> str:
    return ontology.nodes[mid].name if mid in ontology.nodes else mid


app = command_group(
    "Classes of your own, as nodes below those of AudioSet.",
    {"add": add, "list": list_, "change": change, "remove": remove},
)
