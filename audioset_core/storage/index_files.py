"""The files of an index of vectors: what they are called, whether they are whole, and their end.

An index has several data files, and a small JSON that names them with their sizes, times and
SHA-256. The JSON is replaced last, so that a crash while they are written leaves the former index.
What is damaged is left aside, never repaired: everything in an index can be computed again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from audioset_core.errors import AudiosetError, UserError
from audioset_core.storage.atomic_files import TEMP_SUFFIX, write_atomically
from audioset_core.storage.score_files import Kind

Rows = Literal["recordings", "moments"]
"""Of what there is a vector: of each recording, the mean of its patches; or of every patch."""

ROWS: tuple[Rows, ...] = ("recordings", "moments")

ARRAYS = ("members", "digests", "runs", "left_out")
"""The data files beside the graphs, which are the endings of their names too."""

_GRAPH = "graph"
_ENDINGS = (_GRAPH, *ARRAYS)

NEEDS_USEARCH = "the index needs usearch: pip install 'audioset-flows[index]'"

_FORMAT = 2


class DamagedIndexError(AudiosetError):
    """The files of an index are damaged, incomplete, or of another version."""


@dataclass(frozen=True, slots=True)
class About:
    """What an index is of; `parameters` is the digest of a set of parameters."""

    model: str
    parameters: str
    kind: Kind
    rows: Rows

    @property
    def stem(self) -> str:
        """With what the names of its files begin; no text of a person gets into a path.

        >>> About("yamnet@1", "ab", "embeddings", "moments").stem
        'embeddings-moments-7e52fed48693dde2'
        """
        digest = hashlib.sha256(json.dumps(asdict(self)).encode()).hexdigest()
        return f"{self.kind}-{self.rows}-{digest[:16]}"


@dataclass(frozen=True, slots=True)
class Stored:
    """What the JSON says of an index; `n_gone` of its members were no recording's any more.

    `files` has a description (`described`) of each graph, the last one is not full, and of each of
    `ARRAYS`.
    """

    about: About
    width: int
    n_members: int
    n_gone: int
    n_vectors: int
    built_at: datetime
    files: Mapping[str, Mapping[str, Any]]

    @property
    def n_recordings(self) -> int:
        """How many recordings it had when it was built."""
        return self.n_members - self.n_gone

    @property
    def graphs(self) -> list[str]:
        """The parts that are graphs, in the order in which they were filled."""
        n_graphs = sum(ending_of(part) == _GRAPH for part in self.files)
        return [graph_part(number) for number in range(n_graphs)]

    @property
    def size_bytes(self) -> int:
        """The size of its data files."""
        return sum(int(file["size_bytes"]) for file in self.files.values())

    def path(self, folder: Path, part: str) -> Path:
        """Where one of its data files is."""
        return folder / str(self.files[part]["name"])


def graph_part(number: int) -> str:
    """The name of a graph among the parts.

    >>> graph_part(0), ending_of(graph_part(0)), ending_of("members")
    ('graph 0', 'graph', 'members')
    """
    return f"{_GRAPH} {number}"


def ending_of(part: str) -> str:
    """With what the name of a part's file ends."""
    return part.partition(" ")[0]


def all_stored(folder: Path) -> list[Stored | DamagedIndexError]:
    """Every index of the folder, by name; an error for each that cannot be read."""
    found: list[Stored | DamagedIndexError] = []
    for path in sorted(folder.glob("*.json")):
        try:
            found.append(_read(path))
        except DamagedIndexError as error:
            found.append(error)
    return found


def is_there(folder: Path, about: About) -> bool:
    """Whether there is such an index, whatever its state."""
    return _json_path(folder, about).exists()


def read_stored(folder: Path, about: About) -> Stored | None:
    """What is said of an index; None if there is none.

    Raises:
        DamagedIndexError: the JSON is damaged, of another index, or of another version.
        UserError: usearch is not installed.
    """
    if not is_there(folder, about):
        return None
    path = _json_path(folder, about)
    stored = _read(path)
    if stored.about != about:
        raise DamagedIndexError(f"{path} is of another model")
    return stored


def write_stored(folder: Path, stored: Stored) -> None:
    """Make this the index, durably; the data files of the former one are removed.

    Raises:
        OSError: the disk is full, ...
    """
    told = asdict(stored) | {
        "format": _FORMAT,
        "graphs_of": _graphs_of(),
        "built_at": stored.built_at.isoformat(),
    }
    content = json.dumps(told | {"sha256": _digest_of(told)}).encode()
    write_atomically(_json_path(folder, stored.about), content)
    kept = {file["name"] for file in stored.files.values()}
    for ending in _ENDINGS:
        for path in folder.glob(f"{stored.about.stem}-*.{ending}"):
            if path.name not in kept:
                path.unlink(missing_ok=True)


def described(path: Path) -> dict[str, Any]:
    """A data file as it was written."""
    told = path.stat()
    return {
        "name": path.name,
        "size_bytes": told.st_size,
        "mtime_ns": told.st_mtime_ns,
        "sha256": _sha256(path),
    }


def check_files(
    folder: Path, stored: Stored, *, is_deep: bool, parts: Sequence[str] | None = None
) -> None:
    """Whether the data files, or some parts of them, are those that were written.

    One of the same size and time is believed to be, unless `is_deep`: else its SHA-256 decides.

    Raises:
        DamagedIndexError: one is missing or another.
    """
    for part in parts or stored.files:
        told = stored.files[part]
        path = stored.path(folder, part)
        try:
            now = path.stat()
            is_same = now.st_size == told["size_bytes"] and (
                (not is_deep and now.st_mtime_ns == told["mtime_ns"])
                or _sha256(path) == told["sha256"]
            )
        except OSError as error:
            raise DamagedIndexError(f"{path}: {error.strerror}") from None
        if not is_same:
            raise DamagedIndexError(f"{path} is damaged: it is not the {part} that was written")


def remove_all(folder: Path) -> int:
    """Delete every index, the JSON of each first; returns how many bytes they had."""
    n_bytes = 0
    for ending in ("json", *_ENDINGS):
        for path in folder.glob(f"*.{ending}"):
            n_bytes += path.stat().st_size
            path.unlink()
    return n_bytes


def sweep(folder: Path) -> None:
    """Delete what a process left that was killed while it wrote; nobody else may be writing."""
    for path in folder.glob(f".*{TEMP_SUFFIX}"):
        path.unlink(missing_ok=True)
    named = {path.stem for path in folder.glob("*.json")}
    for ending in _ENDINGS:
        for path in folder.glob(f"*.{ending}"):
            if path.stem.rpartition("-")[0] not in named:
                path.unlink(missing_ok=True)


def _read(path: Path) -> Stored:
    try:
        told = json.loads(path.read_bytes())
        format_, graphs_of, digest = (
            told[name] for name in ("format", "graphs_of", "sha256")
        )  # fmt: skip
        if (format_, graphs_of) != (_FORMAT, _graphs_of()):
            raise DamagedIndexError(f"{path} is of another version ({graphs_of})")
        del told["sha256"]
        if digest != _digest_of(told):
            raise ValueError("it is not what was written")
        told |= {
            "about": About(**told["about"]),
            "built_at": datetime.fromisoformat(told["built_at"]),
        }
        return Stored(**{name: told[name] for name in Stored.__match_args__})
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise DamagedIndexError(f"{path} is damaged: {error}") from None


def _graphs_of() -> str:
    """The library whose graphs these are, with its major version."""
    try:
        return f"usearch {version('usearch').partition('.')[0]}"
    except PackageNotFoundError:
        raise UserError(NEEDS_USEARCH) from None


def _digest_of(told: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def _json_path(folder: Path, about: About) -> Path:
    return folder / f"{about.stem}.json"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
