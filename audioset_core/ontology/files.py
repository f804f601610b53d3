"""Reads the nodes of an ontology: the table shipped with the package, or an official JSON file.

Errors within one entry of a file raise an OntologyError here; errors of the whole (cycles, missing
children) are found by `audioset_core.ontology.graph.Ontology`.

Source: https://github.com/audioset/ontology (Google, CC BY-SA 4.0)
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from audioset_core.data import FOLDER
from audioset_core.errors import OntologyError
from audioset_core.records import Node

_TABLE = FOLDER / "ontology.tsv"
_STRONG = FOLDER / "strong_nodes.tsv"
# The official file is 0.3 MB; the limits keep /dev/zero and malicious files out of the memory.
_MAX_FILE_BYTES = 64 * 2**20
_MAX_NODES = 100_000


def read_table() -> list[Node]:
    """Nodes of Google's ontology as shipped with the package, without descriptions."""
    return [
        _make_node(mid, name, children.split(), restrictions.split(",") if restrictions else [])
        for mid, name, restrictions, children in _rows(_TABLE)
    ]


def with_strong_nodes(nodes: list[Node]) -> list[Node]:
    """The nodes, and the classes of AudioSet-strong that they lack, below those of their parents.

    A class none of whose parents is among the nodes is left out.
    """
    known = {node.mid for node in nodes}
    return graft(
        nodes,
        [
            (_make_node(mid, name, [], [], description=reason), parents.split())
            for mid, name, parents, reason in _rows(_STRONG)
            if mid not in known and known.intersection(parents.split())
        ],
    )


def graft(nodes: Sequence[Node], added: Sequence[tuple[Node, Sequence[str]]]) -> list[Node]:
    """The nodes, and after them each added one below those of its parents that are among them."""
    below: dict[str, tuple[str, ...]] = {}
    for node, parents in added:
        below |= {parent: (*below.get(parent, ()), node.mid) for parent in parents}
    return [
        replace(node, child_mids=node.child_mids + below.get(node.mid, ()))
        for node in (*nodes, *(node for node, _ in added))
    ]


def _rows(table: Path) -> Iterator[list[str]]:
    for line in table.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            yield line.split("\t")


def read_official_json(path: Path) -> list[Node]:
    """Nodes of a file laid out as Google's `ontology.json`.

    Raises:
        OntologyError: the file cannot be read, or is not a list of such nodes.
    """
    return [_node_from_json(entry, i) for i, entry in enumerate(_read_json_list(path))]


def _make_node(
    mid: str, name: str, child_mids: list[str], restrictions: list[str], **more: Any
) -> Node:
    return Node(
        mid,
        name,
        tuple(child_mids),
        is_abstract="abstract" in restrictions,
        is_blacklisted="blacklist" in restrictions,
        **more,
    )


def _read_json_list(path: Path) -> list[Any]:
    try:
        if not path.is_file():
            raise OntologyError(f"{path} is not a file; give the path of an ontology.json")
        with path.open("rb") as file:
            data = file.read(_MAX_FILE_BYTES + 1)
        if len(data) > _MAX_FILE_BYTES:
            raise OntologyError(f"{path} is larger than {_MAX_FILE_BYTES} bytes: not an ontology")
        entries = json.loads(data)
    except OSError as error:
        raise OntologyError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise OntologyError(f"{path} is not JSON: {error}") from error
    if not isinstance(entries, list):
        raise OntologyError(f"{path} must hold a list of nodes, not {type(entries).__name__}")
    if len(entries) > _MAX_NODES:
        raise OntologyError(f"{path} has {len(entries)} nodes; at most {_MAX_NODES} are allowed")
    return entries


def _node_from_json(entry: Any, position: int) -> Node:
    where = f"entry {position}"
    if not isinstance(entry, dict):
        raise OntologyError(f"{where} must be an object, not {type(entry).__name__}")
    missing = {"id", "name", "child_ids", "restrictions"} - entry.keys()
    if missing:
        raise OntologyError(f"{where} lacks {', '.join(sorted(missing))}")
    restrictions = _texts(entry, "restrictions", where)
    unknown = set(restrictions) - {"abstract", "blacklist"}
    if unknown:
        raise OntologyError(
            f"{where} has the restriction {min(unknown)!r}; allowed: abstract, blacklist"
        )
    mid, name = _text(entry["id"], "id", where), _text(entry["name"], "name", where)
    if not mid or not name.strip() or any(c.isspace() for c in mid):
        raise OntologyError(f"{where}: id {mid!r} and name {name!r} must not be blank")
    return _make_node(
        mid,
        name,
        _texts(entry, "child_ids", where),
        restrictions,
        description=_text(entry.get("description") or "", "description", where) or None,
        citation_uri=_text(entry.get("citation_uri") or "", "citation_uri", where) or None,
        examples=tuple(_texts(entry, "positive_examples", where)),
    )


def _texts(entry: dict[str, Any], key: str, where: str) -> list[str]:
    values = entry.get(key, [])
    if not isinstance(values, list):
        raise OntologyError(f"{where}: {key} must be a list, not {type(values).__name__}")
    return [_text(value, key, where) for value in values]


def _text(value: Any, key: str, where: str) -> str:
    """Refuse what databases refuse: other types, NUL, and lone surrogates (not encodable)."""
    if not isinstance(value, str):
        raise OntologyError(f"{where}: {key} must be text, not {value!r}"[:300])
    if "\0" in value or any("\ud800" <= c <= "\udfff" for c in value):
        raise OntologyError(f"{where}: {key} {value!r} has a NUL or an unpaired surrogate"[:300])
    return value
