"""``audioset classes``: classes of one's own, as nodes of the ontology."""

from __future__ import annotations

from contextlib import suppress
from typing import Annotated, Any
from unicodedata import normalize

import typer
from sqlalchemy import Engine

from audioset_core.errors import UnknownNodeError, UserError
from audioset_core.ontology.graph import Ontology, load_default
from db.catalog.own_classes import (
    OWN_PREFIX,
    OwnClass,
    add_own_class,
    change_own_class,
    count_labelled_clips,
    own_classes,
    own_mid,
    remove_own_class,
)
from db.judging.verdicts import count_verdicts
from flows.asking import ontology_of, open_database
from flows.cli.command import command_group
from flows.cli.shared_options import AsJson, Store
from flows.options import make_home
from flows.terminal import note, one_line, print_json, print_table

_MAX_CHARS = 100
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
        _wanted(load_default(), name, under, description)  # a mistake makes no home
    make_home(store.home)
    with open_database(store.home, store.db, create=True) as engine:
        ontology = ontology_of(engine)
        wanted = _wanted(ontology, name, under, description)
        _store_ontology(engine, wanted)
        is_new = add_own_class(engine, wanted)
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
        mid = _own(ontology, name)
        parents = _parents(ontology, under or [])
        is_new = change_own_class(engine, mid, parents, _clean(description))
    print(f"{mid}: {'changed' if is_new else 'is like that already'}")


def remove(*, name: Name, store: Store) -> None:
    """Remove a class of your own to which no label, verdict or threshold refers."""
    with store.database() as engine:
        mid = _own(ontology_of(engine), name)
        remove_own_class(engine, mid)
    print(f"{mid}: removed")


def _wanted(ontology: Ontology, name: str, under: list[str], description: str | None) -> OwnClass:
    """The class, with its MID.

    Raises:
        UserError: the name cannot be one, is AudioSet's already, or a parent is unknown.
    """
    parents = _parents(ontology, under)
    clean = _clean(name) or ""
    if not clean or len(clean) > _MAX_CHARS:
        raise UserError(f"the name of a class has 1 to {_MAX_CHARS} characters, not {len(clean)}")
    if "/" in clean or clean.startswith(OWN_PREFIX):
        what = "a path" if "/" in clean else "a MID"
        raise UserError(f"{clean!r} would be taken for {what}: choose a name like 'Wood saw'")
    wanted = OwnClass(own_mid(clean), clean, parents, _clean(description))
    with suppress(UnknownNodeError):
        node = ontology.find(clean)
        if node.mid != wanted.mid:
            path = "/".join(next(ontology.paths(node.mid)))
            raise UserError(f"{clean!r} is there already: {node.mid}, {path}; choose another name")
    return wanted


def _clean(text: str | None) -> str | None:
    """The text with single blanks; characters that print nothing are refused."""
    if text is None:
        return None
    clean = " ".join(normalize("NFC", text).split())
    if not clean.isprintable():
        raise UserError(f"'{one_line(clean)}' has characters that cannot be printed")
    return clean


def _parents(ontology: Ontology, names: list[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(ontology.find(name).mid for name in names))


def _own(ontology: Ontology, name: str) -> str:
    """The MID of a class of one's own.

    Raises:
        UserError: there is none of that name.
    """
    node = ontology.find(name)
    if not node.mid.startswith(OWN_PREFIX):
        raise UserError(
            f"{node.name!r} ({node.mid}) is a class of AudioSet: only your own can be changed"
        )
    return node.mid


def _shown(ontology: Ontology, mid: str) -> str:
    return ontology.nodes[mid].name if mid in ontology.nodes else mid


def _store_ontology(engine: Engine, wanted: OwnClass) -> None:
    """Store the ontology where the parents of the class are not in the tables yet."""
    from db.catalog.ontology import node_ids
    from db.engine import reading

    with reading(engine) as conn:
        is_there = node_ids(conn).keys() >= {*wanted.parent_mids}
    if not is_there:
        from tasks.load_ontology import store_ontology

        store_ontology(engine, load_default())


app = command_group(
    "Classes of your own, as nodes below those of AudioSet.",
    {"add": add, "list": list_, "change": change, "remove": remove},
)
