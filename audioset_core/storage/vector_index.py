"""An approximate index of vectors on disk: a graph (HNSW, by usearch), and what it was made of.

usearch checks nothing when it maps a file, and a damaged graph can end the process. So a file is
mapped only if `audioset_core.storage.index_files` finds it to be the one that was written.

Source: https://unum-cloud.github.io/usearch/python/reference.html
"""

from __future__ import annotations

import errno
import hashlib
import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from audioset_core.arrays import F32, F64, Floats
from audioset_core.errors import UserError
from audioset_core.storage.atomic_files import replacing
from audioset_core.storage.index_files import (
    NEEDS_USEARCH,
    PARTS,
    About,
    DamagedIndexError,
    Stored,
    check_files,
    described,
    read_stored,
    write_stored,
)

if TYPE_CHECKING:
    from usearch.index import Index

Digests = NDArray[np.uint64]

MEMBER = np.dtype([("labelling", "<i8"), ("digest", "<u8")])
"""A recording in an index: the id of its labelling, and `member_digest`. A recording that is
labelled again becomes another member."""

LINKS, LOOKED_AT_TO_ADD, LOOKED_AT_TO_FIND = 16, 128, 256
"""The graph's settings: links of a vector; vectors that are looked at for a new one, and for a
question. benchmarks/similar_scale.py measures what they give."""

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

    graph: Index
    members: NDArray[Any]
    digests: Digests
    coverage: Coverage

    @property
    def n_vectors(self) -> int:
        """How many vectors there are."""
        return len(self.graph)

    def search(self, query: F64, count: int) -> list[Found]:
        """About the `count` nearest vectors, nearest first; fewer if there are not so many.

        Shape:
            query: [dim]
        """
        count = min(count, self.n_vectors)
        if not count:
            return []
        keys = self.graph.search(query.astype(np.float32), count).keys
        return [Found(int(key) >> _PATCH_BITS, int(key) % MOST_PATCHES) for key in keys]


class IndexWriter:
    """An index that is made, or added to: in memory until `save`."""

    def __init__(self, folder: Path, about: About, width: int) -> None:
        self.folder, self.about, self.width = folder, about, width
        self.members: NDArray[Any] = np.zeros(0, MEMBER)
        self.digests: Digests = np.zeros(0, np.uint64)
        self._graph = _new_graph(width)
        self._new: list[tuple[int, int]] = []
        self._waiting: list[tuple[Digests, F32]] = []
        self._n_waiting = 0
        self._files: Mapping[str, Mapping[str, Any]] = {}

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
        check_files(folder, stored, is_deep=True)
        writer.members = np.array(_mapped(folder, stored, "members"))
        writer.digests = np.array(_mapped(folder, stored, "digests"))
        writer._files = stored.files
        _read_graph(writer._graph.load, stored.path(folder, "graph"))
        return writer

    @property
    def n_vectors(self) -> int:
        """How many vectors there are, without those that wait to be added."""
        return len(self._graph)

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
            self._waiting.append((keys, _apart(unit.astype(np.float32), rng)))
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
        token = secrets.token_hex(8)
        paths = {part: self.folder / f"{self.about.stem}-{token}.{part}" for part in PARTS}
        written = dict(self._files)
        if self._new or not written:
            self.members = np.concatenate([self.members, np.array(self._new, MEMBER)])
            self.digests = np.sort(self.members["digest"])
            self._new.clear()
            arrays |= {"members": self.members, "digests": self.digests}
            with replacing(paths["graph"]) as file:
                _save_graph(self._graph, file.name)
            written["graph"] = described(paths["graph"])
        for part, array in arrays.items():
            with replacing(paths[part]) as file:
                np.save(file, array, allow_pickle=False)
            written[part] = described(paths[part])
        numbers = (self.width, len(self.members), coverage.n_gone, self.n_vectors)
        stored = Stored(self.about, *numbers, now, written)
        write_stored(self.folder, stored)
        self._files = written
        return stored

    def _add_waiting(self) -> None:
        if self._waiting:
            keys, vectors = zip(*self._waiting, strict=True)
            self._graph.add(np.concatenate(keys), np.concatenate(vectors))
            self._waiting.clear()
            self._n_waiting = 0


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


def _opened(folder: Path, stored: Stored) -> VectorIndex:
    graph = _new_graph(stored.width)
    check_files(folder, stored, is_deep=False)
    _read_graph(graph.view, stored.path(folder, "graph"))
    members, digests, runs, left_out = (_mapped(folder, stored, part) for part in PARTS[1:])
    return VectorIndex(graph, members, digests, Coverage(runs, left_out, stored.n_gone))


def _mapped(folder: Path, stored: Stored, part: str) -> NDArray[Any]:
    path = stored.path(folder, part)
    array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    return array


def _new_graph(width: int) -> Index:
    try:
        from usearch.index import Index
    except ImportError:
        raise UserError(NEEDS_USEARCH) from None
    return Index(
        ndim=width,
        metric="cos",
        dtype="f16",
        connectivity=LINKS,
        expansion_add=LOOKED_AT_TO_ADD,
        expansion_search=LOOKED_AT_TO_FIND,
        enable_key_lookups=False,  # a table of all keys, which nothing here asks
    )


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
