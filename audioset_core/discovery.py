"""Which recordings a person means: folders, globs, single files and manifests.

Names are bytes, as the file system has them, so that no name is impossible. Nothing is opened
here; a file's size and time are all that is asked for. What is passed over is tallied.
"""

from __future__ import annotations

import csv
import difflib
import glob
import json
import os
from collections import Counter, deque
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from audioset_core.audio import AUDIO_SUFFIXES
from audioset_core.errors import UserError
from audioset_core.patterns import EnteredFolders, Pattern

_AUDIO_SUFFIXES = frozenset(os.fsencode(suffix) for suffix in AUDIO_SUFFIXES)


@dataclass(frozen=True, slots=True)
class Found:
    """One recording's file. ``user_id`` and ``meta`` come from a manifest.

    ``ctime_ns`` is when the file system last changed anything about the file.
    """

    path: bytes
    size_bytes: int
    mtime_ns: int
    user_id: str | None = None
    meta: dict[str, Any] | None = None
    ctime_ns: int = 0


@dataclass(slots=True)
class PassedOver:
    """A tally of what a walk did not take, so that nothing is passed over in silence."""

    by_suffix: Counter[str] = field(default_factory=Counter)
    n_links: int = 0
    n_hidden: int = 0
    unlistable: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Inputs:
    """Checked inputs: single files and folders (absolute), and manifest entries by path.

    ``n_links`` are those that patterns met and passed over.
    """

    files: tuple[bytes, ...]
    folders: tuple[bytes, ...]
    listed: dict[bytes, tuple[str | None, dict[str, Any] | None]]
    follow_symlinks: bool = False
    n_links: int = 0


def read_inputs(
    paths: Sequence[str], manifest: Path | None = None, *, follow_symlinks: bool = False
) -> Inputs:
    """Check what a person typed and sort it into files, folders and manifest entries.

    What is named outright may be a link; links that a walk or a pattern meets are followed only
    with `follow_symlinks`.

    Raises:
        UserError: a path or pattern without a file, a manifest that is not one, or nothing.
    """
    files: dict[bytes, None] = {}
    folders: dict[bytes, None] = {}
    n_links = 0
    for text in paths:
        expanded, n_passed_over = _expand(text, follow_symlinks)
        n_links += n_passed_over
        for path in expanded:
            (folders if os.path.isdir(path) else files)[os.path.abspath(path)] = None
    if not paths and manifest is None:
        raise UserError("nothing to label: give files, folders or globs, or --manifest FILE")
    return Inputs(
        files=tuple(files),
        folders=tuple(_outermost(folders)),
        listed=_read_manifest(manifest) if manifest is not None else {},
        follow_symlinks=follow_symlinks,
        n_links=n_links,
    )


def find_recordings(inputs: Inputs, passed_over: PassedOver) -> Iterator[Found]:
    """Every recording of the inputs once, in a stable order; manifest entries first."""
    for path, (user_id, meta) in inputs.listed.items():
        yield _found(path, user_id, meta)
    for path in inputs.files:
        if path not in inputs.listed:
            yield _found(path)
    # A file that is named outright counts whatever its ending, hidden or a link; the walk, which
    # might not take it, leaves it alone.
    named = inputs.listed.keys() | set(inputs.files)
    passed_over.n_links += inputs.n_links
    walk = _Walk(named, passed_over, follow_symlinks=inputs.follow_symlinks)
    for folder in inputs.folders:
        yield from walk.below(folder)
    yield from walk.behind_links()


def _expand(text: str, follow_symlinks: bool) -> tuple[list[bytes], int]:
    """The paths that are meant, and how many links a pattern passed over."""
    path = os.path.expanduser(os.fsencode(text))
    if os.path.lexists(path):
        return [path], 0
    if glob.has_magic(text) and "\0" not in text:
        pattern = Pattern(path, follow_symlinks=follow_symlinks)
        matches = pattern.paths()
        if matches:
            return matches, pattern.n_links
        links = f" but {pattern.n_links:,} links: --follow-symlinks" if pattern.n_links else ""
        raise UserError(f"no file matches {text!r}{links}")
    raise UserError(f"no file or folder at {text!r}{_did_you_mean(path)}")


def _did_you_mean(path: bytes) -> str:
    if not path:
        return ""
    folder, name = os.path.split(os.path.abspath(path))
    try:
        siblings = [os.fsdecode(entry) for entry in os.listdir(folder)]
    except OSError:
        return ""
    nearest = difflib.get_close_matches(os.fsdecode(name), siblings, n=1)
    if not nearest:
        return ""
    return f"; did you mean {os.path.join(os.path.dirname(os.fsdecode(path)), nearest[0])!r}?"


def _outermost(folders: dict[bytes, None]) -> Iterator[bytes]:
    for folder in folders:
        parents = Path(os.fsdecode(folder)).parents
        if not any(os.fsencode(parent) in folders for parent in parents):
            yield folder


class _Walk:
    """Depth first, sorted by name; `named` paths are left out.

    Folders behind links come last, where links are followed, and none is entered twice: real
    paths win, and loops of links end.
    """

    def __init__(
        self, named: Set[bytes], passed_over: PassedOver, *, follow_symlinks: bool
    ) -> None:
        self._named, self._passed_over = named, passed_over
        self._entered = EnteredFolders() if follow_symlinks else None
        self._linked: deque[bytes] = deque()

    def below(self, folder: bytes) -> Iterator[Found]:
        """The recordings in a folder."""
        # A stack of our own: folders may nest deeper than Python's calls.
        open_folders = [self._entries(folder)]
        while open_folders:
            entry = next(open_folders[-1], None)
            if entry is None:
                open_folders.pop()
            elif entry.path in self._named:
                continue
            elif entry.name.startswith(b"."):
                self._passed_over.n_hidden += 1
            elif entry.is_symlink() and self._entered is None:
                self._passed_over.n_links += 1
            elif _is_folder(entry):
                if _is_audio_name(entry.name):
                    yield Found(entry.path, 0, 0)  # becomes a failure with a reason: not a file
                if entry.is_symlink():
                    self._linked.append(entry.path)
                else:
                    open_folders.append(self._entries(entry.path))
            elif _is_audio_name(entry.name):
                yield _found(entry.path)
            else:
                suffix = os.path.splitext(entry.name)[1].lower()
                self._passed_over.by_suffix[os.fsdecode(suffix) or "no ending"] += 1

    def behind_links(self) -> Iterator[Found]:
        """The recordings in the folders that links led to, and in those that links there do."""
        while self._linked:
            yield from self.below(self._linked.popleft())

    def _entries(self, folder: bytes) -> Iterator[os.DirEntry[bytes]]:
        if self._entered is not None and not self._entered.enter(folder):
            self._passed_over.n_links += 1  # its files have been found by another name
            return iter(())
        return _entries(folder, self._passed_over)


def _entries(folder: bytes, passed_over: PassedOver) -> Iterator[os.DirEntry[bytes]]:
    try:
        with os.scandir(folder) as listing:
            return iter(sorted(listing, key=lambda entry: entry.name))
    except OSError as error:
        passed_over.unlistable.append(f"{os.fsdecode(folder)}: {error.strerror}")
        return iter(())


def _is_folder(entry: os.DirEntry[bytes]) -> bool:
    # What a link leads to may not be looked at, or be a loop: then it is none.
    return os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir(follow_symlinks=False)


def _is_audio_name(name: bytes) -> bool:
    return os.path.splitext(name)[1].lower() in _AUDIO_SUFFIXES


def _found(path: bytes, user_id: str | None = None, meta: dict[str, Any] | None = None) -> Found:
    try:
        status = os.stat(path)
    except OSError:
        return Found(path, 0, 0, user_id, meta)  # opening it will tell why
    return Found(path, status.st_size, status.st_mtime_ns, user_id, meta, status.st_ctime_ns)


def _read_manifest(
    manifest: Path,
) -> dict[bytes, tuple[str | None, dict[str, Any] | None]]:
    """Entries by absolute path; paths are relative to the manifest's own folder.

    CSV: a header with ``path``, optional ``id`` and ``meta`` (JSON); JSONL: objects with the same
    keys. Every other column or key goes into meta.
    """
    rows = _jsonl_rows if manifest.suffix.lower() in (".jsonl", ".ndjson", ".json") else _csv_rows
    base = os.fsencode(manifest.parent.absolute())
    listed: dict[bytes, tuple[str | None, dict[str, Any] | None]] = {}
    lines: dict[bytes | str, int] = {}
    try:
        for line, row in rows(manifest):
            where = f"{manifest.name}, line {line}"
            path, user_id, meta = _entry(where, row)
            absolute = os.path.abspath(os.path.join(base, path))
            for key, what in ((absolute, "path"), (user_id, "id")):
                if key is not None and lines.setdefault(key, line) != line:
                    raise UserError(f"{where}: the {what} of line {lines[key]} again")
            listed[absolute] = (user_id, meta)
    except OSError as error:
        raise UserError(f"cannot read the manifest {manifest}: {error.strerror}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"the manifest {manifest} is not readable text (UTF-8): {error}") from error
    return listed


def _csv_rows(manifest: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with manifest.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        if reader.fieldnames is None or "path" not in reader.fieldnames:
            raise UserError(f"{manifest.name}: the first line must name a column 'path'")
        for row in reader:
            if None in row or None in row.values():
                raise UserError(
                    f"{manifest.name}, line {reader.line_num}: "
                    f"not {len(reader.fieldnames)} columns as in the first line"
                )
            meta: dict[str, Any] = {
                k: v for k, v in row.items() if k not in ("path", "id", "meta") and v != ""
            }
            if row.get("meta"):
                meta = {
                    **meta,
                    **_json_object(f"{manifest.name}, line {reader.line_num}", row["meta"]),
                }
            yield reader.line_num, {"path": row["path"], "id": row.get("id") or None, "meta": meta}


def _jsonl_rows(manifest: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with manifest.open(encoding="utf-8-sig") as file:
        for line, text in enumerate(file, 1):
            if text.strip():
                row = _json_object(f"{manifest.name}, line {line}", text)
                meta = row.pop("meta", None)
                rest = {k: v for k, v in row.items() if k not in ("path", "id")}
                if meta is not None and not isinstance(meta, dict):
                    raise UserError(f"{manifest.name}, line {line}: meta must be an object")
                yield (
                    line,
                    {
                        "path": row.get("path"),
                        "id": row.get("id"),
                        "meta": {**rest, **(meta or {})},
                    },
                )


def _json_object(where: str, text: str) -> dict[str, Any]:
    try:
        value = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: not JSON ({error})") from error
    if not isinstance(value, dict):
        raise UserError(f"{where}: a JSON object is expected")
    return value


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON value")


def _entry(where: str, row: dict[str, Any]) -> tuple[bytes, str | None, dict[str, Any] | None]:
    path, user_id = row["path"], row["id"]
    if not isinstance(path, str) or not path or "\0" in path:
        raise UserError(f"{where}: 'path' is missing")
    if user_id is not None and (isinstance(user_id, bool) or not isinstance(user_id, str | int)):
        raise UserError(f"{where}: 'id' must be text or a whole number")
    if isinstance(user_id, str) and ("\0" in user_id or not _is_text(user_id)):
        raise UserError(f"{where}: the 'id' holds characters that no database stores")
    try:
        name = os.fsencode(path)
    except UnicodeEncodeError as error:
        raise UserError(f"{where}: {path!r} cannot be the name of a file") from error
    return name, None if user_id is None else str(user_id), row["meta"] or None


def _is_text(text: str) -> bool:
    """Whether it has a UTF-8 form (lone surrogates have none)."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
