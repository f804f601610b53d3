"""Classes of one's own as a person names them: checked, added, found."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from unicodedata import normalize

from sqlalchemy import Engine

from audioset_core.errors import UnknownNodeError, UserError
from audioset_core.ontology.graph import Ontology, load_default
from db.catalog.own_classes import OWN_PREFIX, OwnClass, add_own_class, own_mid
from flows.terminal import one_line

_MAX_CHARS = 100


def wanted_class(
    ontology: Ontology, name: str, under: Sequence[str], description: str | None
) -> OwnClass:
    """The class, with its MID.

    Raises:
        UserError: the name cannot be one, is AudioSet's already, or a parent is unknown.
    """
    parents = parent_mids(ontology, under)
    clean = clean_text(name) or ""
    if not clean or len(clean) > _MAX_CHARS:
        raise UserError(f"the name of a class has 1 to {_MAX_CHARS} characters, not {len(clean)}")
    if "/" in clean or clean.startswith(OWN_PREFIX):
        what = "a path" if "/" in clean else "a MID"
        raise UserError(f"{clean!r} would be taken for {what}: choose a name like 'Wood saw'")
    wanted = OwnClass(own_mid(clean), clean, parents, clean_text(description))
    with suppress(UnknownNodeError):
        node = ontology.find(clean)
        if node.mid != wanted.mid:
            path = "/".join(next(ontology.paths(node.mid)))
            raise UserError(f"{clean!r} is there already: {node.mid}, {path}; choose another name")
    return wanted


def add_class(engine: Engine, wanted: OwnClass) -> bool:
    """Store the class, and the ontology if its parents are not in the tables; False: it is there.

    Raises:
        DatabaseUserError: as `add_own_class`.
    """
    from db.catalog.ontology import node_ids
    from db.engine import reading

    with reading(engine) as conn:
        is_there = node_ids(conn).keys() >= {*wanted.parent_mids}
    if not is_there:
        from tasks.load_ontology import store_ontology

        store_ontology(engine, load_default())
    return add_own_class(engine, wanted)


def clean_text(text: str | None) -> str | None:
    """The text with single blanks; characters that print nothing are refused.

    Raises:
        UserError: there are some.
    """
    if text is None:
        return None
    clean = " ".join(normalize("NFC", text).split())
    if not clean.isprintable():
        raise UserError(f"'{one_line(clean)}' has characters that cannot be printed")
    return clean


def parent_mids(ontology: Ontology, names: Sequence[str]) -> tuple[str, ...]:
    """The MIDs of the nodes of these names, each once.

    Raises:
        UserError: a name is unknown.
    """
    return tuple(dict.fromkeys(ontology.find(name).mid for name in names))


def own_class_mid(ontology: Ontology, name: str) -> str:
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
