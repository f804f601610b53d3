"""An approximate index of vectors on disk: graphs (HNSW, by usearch), and what they were made of.

Of many vectors there are several graphs. Only the last one is in memory while vectors are added,
and only that one is written again; a question is put to each, and the nearest of all are kept.

usearch checks nothing when it maps a file, and a damaged graph can end the process. So a file is
mapped only if `audioset_core.storage.index_files` finds it to be the one that was written.

Source: https://unum-cloud.github.io/usearch/python/reference.html
"""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from audioset_core.arrays import F32, F64, Floats
from audioset_core.errors import UserError
from audioset_core.storage.atomic_files import replacing
from audioset_core.storage.index_files import (
    ARRAYS,
    NEEDS_USEARCH,
    About,
    DamagedIndexError,
    Stored,
    check_files,
    described,
    ending_of,
    graph_part,
    read_stored,
    write_stored,
)

if TYPE_CHECKING:
    from usearch.index import Index

    from audioset_core.storage.score_files import Kind

Digests = NDArray[np.uint64]
Given = TypeVar("Given")
Result = TypeVar("Result")

MEMBER = np.dtype([("labelling", "<i8"), ("digest", "<u8")])
"""A recording in an index: the id of its labelling, and `member_digest`. A recording that is
labelled again becomes another member."""

LINKS, LOOKED_AT_TO_ADD, LOOKED_AT_TO_FIND = 16, 128, 256
"""The graph's settings: links of a vector; vectors that are looked at for a new one, and for a
question. benchmarks/similar_scale.py measures what they give."""

_VECTORS_OF_A_GRAPH = 1_000_000
"""Of 1,024 values 1.2 GB, which is the memory that adding takes however many graphs there are."""

_TYPES: Mapping[Kind, Literal["i8", "f16"]] = {"embeddings": "i8", "scores": "f16"}
"""How a graph has its vectors. Bytes are half as large and as good, where each vector has a scale
of its own; of scores, where one class is near 1 and most near 0, they would make many equal.
Source: https://github.com/namidb/namidb/pull/101
"""

_PATCH_BITS = 24
MOST_PATCHES = 2**_PATCH_BITS
"""A key is a member's number and a patch; 93 days of patches of 0.48 s."""

_APART = 0.02
"""The length of what is added by chance to every vector of length 1. Of equal vectors (digital
silence in many recordings) a graph has links to each other alone: in it, a search finds no way out.
Source: https://github.com/qdrant/qdrant/pull/10239, https://github.com/nmslib/hnswlib/issues/352
"""

_BATCH_VALUES = 2**22


@dataclass(frozen=True, slots=True)
class Coverage:
    """What an index is complete in: all that some runs have labelled, but for what was left out.

    `runs` are the digests of runs that can label nothing any more; `n_gone` members are no
    recording's labelling any more.

    Shape:
        runs: [n], sorted; left_out: [n] ids of labellings, int64
    """

    runs: Digests
    left_out: NDArray[np.int64]
    n_gone: int


NOTHING = Coverage(np.zeros(0, np.uint64), np.zeros(0, np.int64), 0)
"""The coverage of an index that is not finished."""


@dataclass(frozen=True, slots=True)
class Found:
    """A vector of an index: the number of its member, and its patch."""

    member: int
    patch: int


@dataclass(frozen=True, slots=True)
class VectorIndex:
    """An index that is open for questions: memory-mapped, and never changed.

    Shape:
        members: [n_members] of `MEMBER`; digests: theirs, sorted
    """

    graphs: tuple[Index, ...]
    kind: Kind
    members: NDArray[Any]
    digests: Digests
    coverage: Coverage

    @property
    def n_vectors(self) -> int:
        """How many vectors there are."""
        return sum(map(len, self.graphs))

    def search(self, query: F64, count: int) -> list[Found]:
        """About the `count` nearest vectors, nearest first; fewer if there are not so many.

        Shape:
            query: [dim]
        """
        if not min(count, self.n_vectors):
            return []
        asked = _as_stored(query[np.newaxis].astype(np.float32), self.kind)[0]
        found = _of_each(lambda graph: graph.search(asked, min(count, len(graph))), self.graphs)
        keys = np.concatenate([each.keys for each in found])
        nearest = np.argsort(np.concatenate([each.distances for each in found]), kind="stable")
        return [
            Found(int(key) >> _PATCH_BITS, int(key) % MOST_PATCHES) for key in keys[nearest[:count]]
        ]


class IndexWriter:
    """An index that is made, or added to: what is new is part of it from `save` on."""

    def __init__(self, folder: Path, about: About, width: int) -> None:
        self.folder, self.about, self.width = folder, about, width
        self.members: NDArray[Any] = np.zeros(0, MEMBER)
        self.digests: Digests = np.zeros(0, np.uint64)
        self._graph = _new_graph(width, about.kind)
        self._n_full = self._n_in_full = 0
        self._new: list[tuple[int, int]] = []
        self._waiting: list[tuple[Digests, NDArray[Any]]] = []
        self._n_waiting = 0
        self._files: dict[str, Mapping[str, Any]] = {}

    @classmethod
    def continuing(cls, folder: Path, about: About) -> IndexWriter | None:
        """A writer that begins with what is there; None if there is no such index.

        Raises:
            DamagedIndexError: it cannot be used.
            UserError: usearch is not installed.
        """
        stored = read_stored(folder, about)
        if stored is None:
            return None
        writer = cls(folder, about, stored.width)
        # Graphs that are full stay as they are: to read them all would take longer than adding.
        check_files(folder, stored, is_deep=False)
        last = stored.graphs[-1]
        check_files(folder, stored, is_deep=True, parts=(last, *ARRAYS))
        writer.members = np.array(_mapped(folder, stored, "members"))
        writer.digests = np.array(_mapped(folder, stored, "digests"))
        writer._files = dict(stored.files)
        _read_graph(writer._graph.load, stored.path(folder, last))
        writer._n_full = len(stored.graphs) - 1
        writer._n_in_full = stored.n_vectors - len(writer._graph)
        return writer

    @property
    def n_vectors(self) -> int:
        """How many vectors there are, without those that wait to be added."""
        return self._n_in_full + len(self._graph)

    def add(self, labelling: int, digest: int, blocks: Iterable[tuple[int, Floats]]) -> None:
        """Add a recording: (number of the first patch, some vectors) until all have come.

        Vectors of zeros point nowhere, and are left out; so is one that equals the one before.

        Shape:
            blocks: [n, dim] each
        """
        first_key = (len(self.members) + len(self._new)) << _PATCH_BITS
        self._new.append((labelling, digest))
        rng = np.random.default_rng(first_key)
        for first, rows in blocks:
            is_new = np.any(rows[1:] != rows[:-1], axis=1)
            lengths = np.linalg.norm(rows.astype(np.float32), axis=1)
            (places,) = np.nonzero((lengths > 0) & np.concatenate([[True], is_new]))
            unit = rows[places] / lengths[places, None]
            keys = (first_key + first + places).astype(np.uint64)
            vectors = _as_stored(_apart(unit.astype(np.float32), rng), self.about.kind)
            self._waiting.append((keys, vectors))
            self._n_waiting += unit.size
            if self._n_waiting >= _BATCH_VALUES:
                self._add_waiting()

    def save(self, coverage: Coverage, now: datetime) -> Stored:
        """Write the index durably in place of the former one.

        Files that would stay the same are not written again.

        Raises:
            OSError: the disk is full, ...
        """
        self._add_waiting()
        arrays = {"runs": np.sort(coverage.runs), "left_out": coverage.left_out}
        if self._new or not self._files:
            self.members = np.concatenate([self.members, np.array(self._new, MEMBER)])
            self.digests = np.sort(self.members["digest"])
            self._new.clear()
            arrays |= {"members": self.members, "digests": self.digests}
            self._write_graph()
        for part, array in arrays.items():
            with replacing(path := self._new_path(part)) as file:
                np.save(file, array, allow_pickle=False)
            self._files[part] = described(path)
        numbers = (self.width, len(self.members), coverage.n_gone, self.n_vectors)
        stored = Stored(self.about, *numbers, now, dict(self._files))
        write_stored(self.folder, stored)
        return stored

    def _add_waiting(self) -> None:
        if not self._waiting:
            return
        keys, vectors = (np.concatenate(each) for each in zip(*self._waiting, strict=True))
        self._waiting.clear()
        self._n_waiting = 0
        while len(keys):
            room = _VECTORS_OF_A_GRAPH - len(self._graph)
            if room <= 0:
                self._write_graph()
                self._n_full += 1
                self._n_in_full += len(self._graph)
                self._graph = _new_graph(self.width, self.about.kind)
                continue
            self._graph.add(keys[:room], vectors[:room])
            keys, vectors = keys[room:], vectors[room:]

    def _write_graph(self) -> None:
        part = graph_part(self._n_full)
        with replacing(path := self._new_path(part)) as file:
            _save_graph(self._graph, file.name)
        self._files[part] = described(path)

    def _new_path(self, part: str) -> Path:
        return self.folder / f"{self.about.stem}-{secrets.token_hex(8)}.{ending_of(part)}"


def open_index(folder: Path, about: About, width: int) -> VectorIndex | None:
    """An index of vectors of that width, memory-mapped; None if there is none.

    Raises:
        DamagedIndexError: it cannot be used.
        UserError: usearch is not installed.
    """
    stored = read_stored(folder, about)
    if stored is None:
        return None
    if stored.width != width:
        raise DamagedIndexError(f"it has vectors of {stored.width} values, not {width}")
    try:
        return _opened(folder, stored)
    except DamagedIndexError:
        newer = read_stored(folder, about)  # another process may have replaced it in between
        if newer is None or newer == stored:
            raise
        return _opened(folder, newer)


def digest_of(text: str) -> int:
    """64 bits that stand for a text, such as the id of a run.

    >>> digest_of("a") == digest_of("a"), digest_of("a") == digest_of("b")
    (True, False)
    """
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def member_digest(labelling: int, path: str) -> int:
    """What tells a labelling's file from every other: its path has a digest of its content."""
    return digest_of(f"{labelling} {path}")


def are_among(values: Iterable[int], known: Digests) -> NDArray[np.bool_]:
    """Which of the values are in `known`, which is sorted; reads no more of that than it needs.

    >>> are_among([1, 2], np.array([2, 5], np.uint64)).tolist()
    [False, True]

    Shape:
        known: [n] -> one for each value
    """
    wanted = np.array(list(values), np.uint64)
    if not len(known):
        return np.zeros(len(wanted), np.bool_)
    places = np.minimum(np.searchsorted(known, wanted), len(known) - 1)
    found: NDArray[np.bool_] = known[places] == wanted
    return found


def _apart(unit: F32, rng: np.random.Generator) -> F32:
    """The vectors, none equal to another; a cosine changes by about `_APART` by the root of dim.

    Shape:
        unit: [n, dim] -> [n, dim]
    """
    length = np.float32(_APART / np.sqrt(unit.shape[1]))
    return unit + length * rng.standard_normal(unit.shape, dtype=np.float32)


def _as_stored(vectors: F32, kind: Kind) -> NDArray[Any]:
    """The vectors as a graph takes them: its cosines do not change with a vector's length.

    Shape:
        vectors: [n, dim] -> [n, dim], int8 from -127 to 127, or float32
    """
    if _TYPES[kind] != "i8":
        return vectors
    largest = np.abs(vectors).max(axis=1, keepdims=True)
    scaled = vectors * (127 / np.maximum(largest, np.finfo(np.float32).tiny))
    stored: NDArray[np.int8] = np.rint(scaled).astype(np.int8)
    return stored


def _opened(folder: Path, stored: Stored) -> VectorIndex:
    check_files(folder, stored, is_deep=False)
    graphs = _of_each(partial(_opened_graph, folder, stored), stored.graphs)
    members, digests, runs, left_out = (_mapped(folder, stored, part) for part in ARRAYS)
    coverage = Coverage(runs, left_out, stored.n_gone)
    return VectorIndex(tuple(graphs), stored.about.kind, members, digests, coverage)


def _mapped(folder: Path, stored: Stored, part: str) -> NDArray[Any]:
    path = stored.path(folder, part)
    array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    return array


def _new_graph(width: int, kind: Kind) -> Index:
    try:
        from usearch.index import Index
    except ImportError:
        raise UserError(NEEDS_USEARCH) from None
    return Index(
        ndim=width,
        metric="cos",
        dtype=_TYPES[kind],
        connectivity=LINKS,
        expansion_add=LOOKED_AT_TO_ADD,
        expansion_search=LOOKED_AT_TO_FIND,
        enable_key_lookups=False,  # a table of all keys, which nothing here asks
    )


def _opened_graph(folder: Path, stored: Stored, part: str) -> Index:
    graph = _new_graph(stored.width, stored.about.kind)
    _read_graph(graph.view, stored.path(folder, part))
    return graph


def _of_each(does: Callable[[Given], Result], items: Sequence[Given]) -> list[Result]:
    """What a function says of each item, on all cores.

    usearch waits for no other thread of Python's meanwhile; of its own searches of several graphs
    some end the process: https://github.com/unum-cloud/USearch/pull/754
    """
    with ThreadPoolExecutor(min(len(items), os.cpu_count() or 1)) as pool:
        return list(pool.map(does, items))


def _read_graph(read: Callable[[str], None], path: Path) -> None:
    try:
        read(str(path))
    except RuntimeError as error:  # whole, but of a version that this one does not read
        raise DamagedIndexError(f"{path}: {error}") from None


def _save_graph(graph: Index, path: str) -> None:
    try:
        graph.save(path)
    except RuntimeError as error:  # a full disk, as usearch tells it
        raise OSError(errno.EIO, str(error)) from error
