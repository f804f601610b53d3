"""Classes and branches that a person may mean by what is written so far."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated

from fastapi import APIRouter, Query

from audioset_core.ontology.graph import Node, Ontology
from db.query.totals import Total, totals_by_mid
from flows.app.served import Home, Served

N_SUGGESTED = 10
_LONGEST_TEXT = 200

router = APIRouter(prefix="/classes")


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A node of the ontology, the way to it, and in how many clips it is heard."""

    mid: str
    name: str
    path: str
    clips: str


@router.get("")
def classes(
    home: Home,
    text: Annotated[str, Query(max_length=_LONGEST_TEXT)] = "",
    min_score: Annotated[float, Query(ge=0, le=1)] = 0.5,
) -> list[Suggestion]:
    """Nodes whose name, path or description fits the text, best first; with none, the roots."""
    ontology = home.ontology()
    fitting = suggested(ontology, text) if text.strip() else list(ontology.roots)
    return with_counts(home, ontology, fitting, min_score)


def with_counts(
    home: Served, ontology: Ontology, found: list[Node], min_score: float
) -> list[Suggestion]:
    """The nodes, and in how many clips a class at or below each reaches the score."""
    counted = totals_by_mid(home.engine, [node.mid for node in found], min_score)
    paths = _paths(ontology)
    return [
        Suggestion(node.mid, node.name, paths[node.mid], shown_count(counted.get(node.mid)))
        for node in found
    ]


def shown_count(total: Total | None) -> str:
    """``12``; ``800+`` where there may be more."""
    return "0" if total is None else f"{total.n_clips:,}{'+' * total.is_least}"


def suggested(ontology: Ontology, text: str, most: int = N_SUGGESTED) -> list[Node]:
    """The nodes that fit a text: by name, then by a word of it, by path, by description.

    Where none does, those whose names are most like it.
    """
    wanted = " ".join(text.casefold().split())
    words = wanted.replace("/", " ").split()
    paths = _paths(ontology)

    def place(node: Node) -> int | None:
        name = node.name.casefold()
        path, about = paths[node.mid].casefold(), (node.description or "").casefold()
        fits = (
            wanted in (name, node.mid),
            name.startswith(wanted),
            f" {wanted}" in name,
            all(word in name for word in words),
            bool(words) and words[-1] in name and all(word in path for word in words),
            all(word in path for word in words),
            all(word in name or word in about for word in words),
        )
        return next((n for n, does in enumerate(fits) if does), None)

    ranked = [
        (where, ontology.depth(node.mid), number, node)
        for number, node in enumerate(ontology.nodes.values())
        if (where := place(node)) is not None
    ]
    if ranked:
        return [node for *_, node in sorted(ranked, key=lambda each: each[:3])[:most]]
    return [ontology.find(name) for name in ontology.nearest(text) if _is_sole(ontology, name)]


def named(ontology: Ontology, name: str) -> list[Node]:
    """Every node of that name, in any case."""
    wanted = name.strip().casefold()
    return [node for node in ontology.nodes.values() if node.name.casefold() == wanted]


def path_of(ontology: Ontology, mid: str) -> str:
    """The names from a root to the node."""
    return _paths(ontology)[mid]


def _is_sole(ontology: Ontology, name: str) -> bool:
    return name in ontology.nodes or len(named(ontology, name)) == 1


@lru_cache(maxsize=2)
def _paths(ontology: Ontology) -> dict[str, str]:
    return {mid: " / ".join(next(ontology.paths(mid))) for mid in ontology.nodes}
