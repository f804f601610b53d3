"""The AudioSet ontology: a DAG of sound classes in which a node may have several parents.

Loads the table shipped with the package (structure only) or an official `ontology.json` (with
descriptions), walks it up and down visiting each node once, and finds nodes by what people type.

Source: https://github.com/audioset/ontology (Google, CC BY-SA 4.0)
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from types import MappingProxyType

from audioset_core.errors import OntologyError, UnknownNodeError, UserError
from audioset_core.ontology.files import (
    graft,
    read_official_json,
    read_table,
    with_strong_nodes,
)
from audioset_core.records import Node

__all__ = ["Node", "Ontology", "load_default"]

_N_NEAREST = 3
# Longer texts are no typing error, and difflib is quadratic.
_MAX_GUESS_CHARS = 80


@dataclass(frozen=True, slots=True, eq=False)
class Ontology:
    """An immutable DAG of nodes, by MID, in the order of the file.

    Raises:
        OntologyError: no nodes, a duplicate id, a missing child, a child listed twice, a cycle.
    """

    nodes: Mapping[str, Node]
    _parents: Mapping[str, tuple[str, ...]] = field(init=False, repr=False)
    _depths: Mapping[str, int] = field(init=False, repr=False)
    _by_name: Mapping[str, tuple[str, ...]] = field(init=False, repr=False)

    def __init__(self, nodes: Iterable[Node]) -> None:
        by_mid, parents = _index(nodes)
        _refuse_cycle(parents)
        roots = [mid for mid, above in parents.items() if not above]
        by_name: dict[str, tuple[str, ...]] = {}
        for node in by_mid.values():
            by_name[_fold(node.name)] = (*by_name.get(_fold(node.name), ()), node.mid)
        for name, value in (
            ("nodes", by_mid),
            ("_parents", parents),
            ("_depths", _distances(roots, lambda mid: by_mid[mid].child_mids)),
            ("_by_name", by_name),
        ):
            object.__setattr__(self, name, MappingProxyType(value))

    @classmethod
    def from_official_json(cls, path: Path) -> Ontology:
        """Read a file laid out as Google's `ontology.json`, and add AudioSet-strong's classes.

        Raises:
            OntologyError: the file cannot be read, is not such a list, or is no DAG.
        """
        return cls(with_strong_nodes(read_official_json(path)))

    def with_classes(self, added: Sequence[tuple[Node, Sequence[str]]]) -> Ontology:
        """These nodes, and further ones (each with the MIDs of its parents) after them.

        Of parents that are not among the nodes no edge is made; a node without any is a root.
        """
        return Ontology(graft(tuple(self.nodes.values()), added)) if added else self

    @property
    def roots(self) -> tuple[Node, ...]:
        """Nodes without a parent."""
        return tuple(self.nodes[mid] for mid, above in self._parents.items() if not above)

    def depth(self, mid: str) -> int:
        """Fewest edges between the node and a root; 0 for a root.

        >>> load_default().depth("/m/0bt9lr")  # Dog, below Domestic animals and pets, Animal
        2
        """
        return self._depths[self._known(mid)]

    def children(self, mid: str) -> tuple[Node, ...]:
        """Direct children, in the order of the file."""
        return tuple(self.nodes[child] for child in self.nodes[self._known(mid)].child_mids)

    def parents(self, mid: str) -> tuple[Node, ...]:
        """All direct parents, in the order of the file."""
        return tuple(self.nodes[parent] for parent in self._parents[self._known(mid)])

    def ancestors(self, mid: str) -> tuple[Node, ...]:
        """Every node above this one, each once, nearest first; without the node itself."""
        above = _distances([self._known(mid)], self._parents.__getitem__)
        return tuple(self.nodes[each] for each in above if each != mid)

    def subtree(self, mid: str) -> tuple[Node, ...]:
        """The node and everything below it, each once, nearest first.

        >>> [node.name for node in load_default().subtree("/m/07qf0zm")]
        ['Howl']
        """
        return tuple(self.nodes[each] for each in self._below(self._known(mid)))

    def descendants(self, mid: str) -> tuple[Node, ...]:
        """Everything below the node, each once, nearest first; without the node itself."""
        return self.subtree(mid)[1:]

    def edges(self) -> Iterator[tuple[str, str]]:
        """Each (parent, child) pair of MIDs, in the order of the file."""
        for node in self.nodes.values():
            for child in node.child_mids:
                yield node.mid, child

    def closure(self) -> Iterator[tuple[str, str, int]]:
        """Each (ancestor, descendant, depth), self pairs included; depth is the shortest path."""
        for ancestor in self.nodes:
            for descendant, depth in self._below(ancestor).items():
                yield ancestor, descendant, depth

    def paths(self, mid: str) -> Iterator[tuple[str, ...]]:
        """Every path of names that leads from a root to the node."""
        # A stack of partial paths, bottom up: a deep file must not exhaust Python's own stack.
        unfinished: list[tuple[str, ...]] = [(self._known(mid),)]
        while unfinished:
            path = unfinished.pop()
            above = self._parents[path[0]]
            if not above:
                yield tuple(self.nodes[each].name for each in path)
            unfinished += [(parent, *path) for parent in reversed(above)]

    def find(self, text: str) -> Node:
        """The node that a MID, a name or a path of names stands for.

        Case and repeated blanks do not matter in names. A path, 'Sounds of things/Vehicle', may
        start at any node; names that contain '/' themselves are understood. No two nodes of the
        official ontology share a name; in a file where they do, a path or the MID decides.

        >>> load_default().find("dog").mid
        '/m/0bt9lr'

        Raises:
            UnknownNodeError: nothing matches; it carries the three nearest names (or MIDs).
            UserError: several nodes match.
        """
        wanted = text.strip()
        if wanted in self.nodes:
            return self.nodes[wanted]
        matches = self._by_name.get(_fold(wanted)) or self._follow(wanted)
        exact = [mid for mid in matches if self.nodes[mid].name == wanted]
        chosen = exact or list(matches)
        if not chosen:
            raise UnknownNodeError(text, self.nearest(wanted))
        if len(chosen) > 1:
            raise UserError(
                f"{text!r} may be any of {len(chosen)} nodes ({', '.join(chosen)}); "
                "give a path such as 'Parent/Child', or the MID"
            )
        return self.nodes[chosen[0]]

    def nearest(self, text: str) -> tuple[str, ...]:
        """The three names most like the text, best first; MIDs where the text looks like a MID.

        >>> load_default().nearest("dgo")
        ('Dog', 'Pant (dog)', 'Goat')
        """
        from difflib import SequenceMatcher, get_close_matches

        wanted = text.strip()[:_MAX_GUESS_CHARS]
        if len(wanted) > 2 and wanted[0] == wanted[2] == "/":
            mids = {mid.casefold(): mid for mid in self.nodes}
            close = get_close_matches(wanted.casefold(), mids, n=_N_NEAREST, cutoff=0.5)
            return tuple(mids[each] for each in close)
        # Of a path, what it ends in.
        wanted = _fold(wanted.rstrip("/").rpartition("/")[2])
        if not wanted:
            return ()

        @cache
        def alike(a: str, b: str) -> float:
            return SequenceMatcher(None, a, b, autojunk=False).ratio()

        def score(name: str) -> float:
            folded = _fold(name)
            words = _words(folded) or [folded]
            found = [max(alike(word, each) for each in words) for word in _words(wanted)]
            # Words decide ("dogs" -> "Dog"); the whole text breaks ties and bridges split words.
            best = sum(found) / len(found) if found else 0.0
            return max(0.75 * best + 0.25 * alike(wanted, folded), alike(wanted, folded))

        # sorted() is stable: among equals the order of the file decides.
        names = dict.fromkeys(node.name for node in self.nodes.values())
        return tuple(sorted(names, key=score, reverse=True)[:_N_NEAREST])

    def search(self, text: str) -> tuple[Node, ...]:
        """Nodes whose name contains every word, then those whose description helps; any case."""
        words = _fold(text).split()
        if not words:
            return ()
        named, described = [], []
        for node in self.nodes.values():
            name = _fold(node.name)
            if all(word in name for word in words):
                named.append(node)
            elif node.description and all(
                word in name or word in _fold(node.description) for word in words
            ):
                described.append(node)
        return (*named, *described)

    def _known(self, mid: str) -> str:
        if mid not in self.nodes:
            raise UnknownNodeError(mid, self.nearest(mid))
        return mid

    def _below(self, mid: str) -> dict[str, int]:
        return _distances([mid], lambda each: self.nodes[each].child_mids)

    def _follow(self, path: str) -> tuple[str, ...]:
        """Nodes at the end of a path of names; a name may take up several parts between '/'."""
        parts = [_fold(part) for part in path.strip("/").split("/")]
        most_parts = 1 + max(name.count("/") for name in self._by_name)
        # reached[i]: nodes at which the first i parts can end.
        reached: list[dict[str, None]] = [{} for _ in range(len(parts) + 1)]
        for start in range(len(parts)):
            below = {c for mid in reached[start] for c in self.nodes[mid].child_mids}
            for end in range(start + 1, min(len(parts), start + most_parts) + 1):
                for mid in self._by_name.get("/".join(parts[start:end]), ()):
                    if start == 0 or mid in below:
                        reached[end][mid] = None
        return tuple(reached[-1])


@cache
def load_default() -> Ontology:
    """The ontology shipped with the package: Google's 632 nodes, and 31 of AudioSet-strong."""
    return Ontology(with_strong_nodes(read_table()))


def _fold(text: str) -> str:
    """The text in lower case without extra blanks, also around '/', for comparison."""
    return "/".join(" ".join(part.split()) for part in text.casefold().split("/"))


def _words(text: str) -> list[str]:
    return "".join(c if c.isalnum() else " " for c in text).split()


def _distances(starts: list[str], following: Callable[[str], tuple[str, ...]]) -> dict[str, int]:
    """Every node reached from the starts with its fewest edges, in order of distance."""
    distances = dict.fromkeys(starts, 0)
    queue = deque(starts)
    while queue:
        mid = queue.popleft()
        for other in following(mid):
            if other not in distances:
                distances[other] = distances[mid] + 1
                queue.append(other)
    return distances


def _index(nodes: Iterable[Node]) -> tuple[dict[str, Node], dict[str, tuple[str, ...]]]:
    by_mid: dict[str, Node] = {}
    for node in nodes:
        if node.mid in by_mid:
            raise OntologyError(f"id {node.mid!r} occurs twice: each node needs its own")
        by_mid[node.mid] = node
    if not by_mid:
        raise OntologyError("the ontology is empty: it needs at least one node")
    parents: dict[str, list[str]] = {mid: [] for mid in by_mid}
    for node in by_mid.values():
        if len(set(node.child_mids)) < len(node.child_mids):
            raise OntologyError(f"node {node.mid!r} lists a child twice")
        for child in node.child_mids:
            if child not in by_mid:
                raise OntologyError(f"node {node.mid!r} has a child {child!r} that does not exist")
            parents[child].append(node.mid)
    return by_mid, {mid: tuple(above) for mid, above in parents.items()}


def _refuse_cycle(parents: Mapping[str, tuple[str, ...]]) -> None:
    try:
        TopologicalSorter(parents).prepare()
    except CycleError as error:
        cycle: list[str] = error.args[1]
        shown = " -> ".join(cycle if len(cycle) < 8 else [*cycle[:6], "..."])
        raise OntologyError(
            f"the ontology has a cycle, {shown}: no node may be below itself"
        ) from None
