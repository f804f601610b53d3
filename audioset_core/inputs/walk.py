"""Which recordings a person means: folders, globs, single files and manifests.

Names are bytes, as the file system has them, so that every name is possible. Nothing is opened
here: only a file's size and time are asked for. What is skipped is counted.
"""

from __future__ import annotations

import difflib
import glob
import os
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any

from audioset_core.audio.recording import AUDIO_SUFFIXES
from audioset_core.errors import AudioError, UserError
from audioset_core.inputs.globs import EnteredFolders, Pattern
from audioset_core.inputs.manifest import Listed, read_manifest
from audioset_core.inputs.written_paths import meant_path
from audioset_core.object_storage.addresses import (
    is_address,
    parts_of,
    pattern_regex,
    plain_start,
    read_address,
)
from audioset_core.object_storage.stores import Look, listed, look_at, look_at_each, siblings

# Names such as rec.20240518 give every file an ending of its own.
_MOST_ENDINGS = 200
_OBJECTS_AT_ONCE = 1_000
_AUDIO_SUFFIXES = frozenset(os.fsencode(suffix) for suffix in AUDIO_SUFFIXES)


@dataclass(frozen=True, slots=True)
class Found:
    """One recording's file. ``user_id`` and ``meta`` come from a manifest.

    ``ctime_ns`` is when the file system last changed anything about the file. A file that is named
    may not be there. ``etag`` names the version of an object.
    """

    path: bytes
    size_bytes: int
    mtime_ns: int
    user_id: str | None = None
    meta: dict[str, Any] | None = None
    ctime_ns: int = 0
    is_there: bool = True
    etag: str | None = None


@dataclass(slots=True)
class PassedOver:
    """Counts of what a walk skipped, so that nothing is skipped in silence."""

    by_suffix: Counter[str] = field(default_factory=Counter)
    n_links: int = 0
    n_hidden: int = 0
    unlistable: list[str] = field(default_factory=list)

    def count_ending(self, name: bytes) -> None:
        """Count a file that is skipped for its ending."""
        suffix = os.path.splitext(name)[1].lower()
        self.by_suffix[os.fsdecode(suffix) or "no ending"] += 1

    @property
    def endings(self) -> str:
        """Every ending that was skipped, with its count, the most frequent first."""
        counted = sorted(self.by_suffix.items(), key=lambda pair: (-pair[1], pair[0]))
        shown = [f"{suffix} {count:,}" for suffix, count in counted[:_MOST_ENDINGS]]
        n_more = len(counted) - len(shown)
        return ", ".join(shown) + (f" and {n_more:,} more endings" if n_more else "")

    @property
    def described(self) -> str:
        """What was skipped in a folder without a recording, and what to do."""
        parts = [f"cannot list {folder}" for folder in self.unlistable]
        if self.by_suffix:
            parts.append(
                f"its files have other endings ({self.endings}); name a file, or a pattern such as "
                f"'folder/*.xyz', to label it whatever its ending"
            )
        if self.n_links:
            parts.append(f"{self.n_links:,} links: --follow-symlinks")
        if self.n_hidden:
            parts.append(f"{self.n_hidden:,} hidden")
        return "; ".join(parts) or "it is empty (is its disk mounted?)"


@dataclass(frozen=True, slots=True)
class Inputs:
    """Checked inputs: single files and folders (absolute), and manifest entries by path.

    ``n_links`` counts the links that patterns matched and skipped.
    """

    files: tuple[bytes, ...]
    folders: tuple[bytes, ...]
    listed: Listed
    follow_symlinks: bool = False
    n_links: int = 0
    remarks: tuple[str, ...] = ()
    """What a person should know of the manifest."""
    named_folders: tuple[bytes, ...] = ()
    """The folders that a person named, in `folders` or inside them; none that a pattern matched."""
    patterns: tuple[bytes, ...] = ()
    """Patterns over addresses of objects, which are matched while they are listed."""

    @property
    def are_folders_named(self) -> bool:
        """Whether the inputs are named folders and nothing else."""
        is_more = (
            self.files
            or self.listed
            or self.patterns
            or set(self.folders) - set(self.named_folders)
        )
        return not is_more


def read_inputs(
    paths: Sequence[str], manifest: Path | None = None, *, follow_symlinks: bool = False
) -> Inputs:
    """Check what a person typed and sort it into files, folders and manifest entries.

    A path that a person names may be a link; links that a walk or a pattern finds are followed only
    with `follow_symlinks`.

    Raises:
        UserError: a path or pattern without a file, an unreadable manifest, or no input at all.
    """
    files: dict[bytes, None] = {}
    folders: dict[bytes, None] = {}
    named: dict[bytes, None] = {}
    patterns: dict[bytes, None] = {}
    n_links = 0
    for text in paths:
        if (address := _address_meant(text)) is not None:
            place, kind = _object_place(address)
            {"file": files, "folder": folders, "pattern": patterns}[kind][place] = None
            if kind == "folder":
                named[place] = None
            continue
        expanded, n_passed_over = _expand(text, follow_symlinks)
        n_links += n_passed_over
        for path in expanded:
            is_folder, place = os.path.isdir(path), os.path.abspath(path)
            (folders if is_folder else files)[place] = None
            if is_folder and os.path.lexists(os.path.expanduser(os.fsencode(text))):
                named[place] = None
    if not paths and manifest is None:
        raise UserError("nothing to label: give files, folders or globs, or --manifest FILE")
    listed, remarks = read_manifest(manifest) if manifest is not None else ({}, ())
    return Inputs(
        files=tuple(files),
        folders=tuple(_outermost(folders)),
        listed=listed,
        follow_symlinks=follow_symlinks,
        n_links=n_links,
        remarks=remarks,
        named_folders=tuple(named),
        patterns=tuple(patterns),
    )


def find_recordings(inputs: Inputs, passed_over: PassedOver) -> Iterator[Found]:
    """Every recording of the inputs once, in a stable order; manifest entries first."""
    yield from _found_each((path, *said) for path, said in inputs.listed.items())
    yield from _found_each((path, None, None) for path in inputs.files if path not in inputs.listed)
    # A file that a person names counts whatever its ending, hidden or a link; the walk, which might
    # skip such a file, leaves it out.
    named = inputs.listed.keys() | set(inputs.files)
    passed_over.n_links += inputs.n_links
    walk = _Walk(named, passed_over, follow_symlinks=inputs.follow_symlinks)
    for folder in inputs.folders:
        yield from walk.below(folder)
    yield from walk.behind_links()
    for pattern in inputs.patterns:
        yield from walk.matching(pattern, inputs.folders)


def folders_without_recordings(inputs: Inputs) -> list[str]:
    """A line for each named folder without a recording, with what it holds instead.

    Each folder is walked as far as its first recording.
    """
    said = []
    for folder in inputs.named_folders:
        passed_over = PassedOver()
        walk = _Walk(frozenset(), passed_over, follow_symlinks=inputs.follow_symlinks)
        if next(chain(walk.below(folder), walk.behind_links()), None) is None:
            said.append(f"no recording in {os.fsdecode(folder)!r}: {passed_over.described}")
    return said


def _expand(text: str, follow_symlinks: bool) -> tuple[list[bytes], int]:
    """The paths that are meant, and how many links a pattern skipped."""
    path = os.path.expanduser(os.fsencode(text))
    if os.path.lexists(path):
        return [path], 0
    meant = meant_path(text) if "\0" not in text else path
    if os.path.lexists(meant):
        return [meant], 0
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


def _address_meant(text: str) -> bytes | None:
    """The address that a person means; None for a path, also one that looks like an address."""
    is_path = "\0" in text or os.path.lexists(os.path.expanduser(os.fsencode(text)))
    return None if is_path else read_address(text)


def _object_place(address: bytes) -> tuple[bytes, str]:
    """An address, and whether it is a file, a folder or a pattern.

    Raises:
        UserError: there is no object there, or the server cannot be asked.
    """
    shown, place = os.fsdecode(address), address.rstrip(b"/")
    scheme, _, key = parts_of(address)
    try:
        if key and not key.endswith("/") and look_at(address) is not None:
            return address, "file"
        if scheme not in ("http", "https"):
            if (start := plain_start(address)) is not None:
                fits = pattern_regex(address).fullmatch
                if any(fits(look.address) for look in listed(start)):
                    return address, "pattern"
                raise UserError(f"no object matches {shown!r}")
            not_listed: list[str] = []
            if next(listed(place, not_listed), None) is not None or not key:
                return place, "folder"
            if not_listed:
                raise UserError(not_listed[0])
    except AudioError as error:
        raise UserError(f"{shown}: {error.detail}") from None
    if scheme in ("http", "https"):
        raise UserError(
            f"no file at {shown!r}; https has no folders: name each file, or list them in a "
            f"--manifest"
        )
    names = {os.fsdecode(found): None for found in siblings(place)}
    nearest = difflib.get_close_matches(os.fsdecode(place), names, n=1)
    hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
    raise UserError(f"no object at or below {shown!r}{hint}")


def _outermost(folders: dict[bytes, None]) -> Iterator[bytes]:
    for folder in folders:
        names = folder.split(b"/")
        parents = (b"/".join(names[:n]) or b"/" for n in range(1, len(names)))
        if folder == b"/" or not any(parent in folders for parent in parents):
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
        if is_address(folder):
            yield from self._objects(folder)
            return
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
                    yield Found(
                        entry.path, 0, 0
                    )  # becomes a failure with the reason "not a regular file"
                if entry.is_symlink():
                    self._linked.append(entry.path)
                else:
                    open_folders.append(self._entries(entry.path))
            elif _is_audio_name(entry.name):
                yield _found(entry.path)
            else:
                self._passed_over.count_ending(entry.name)

    def behind_links(self) -> Iterator[Found]:
        """The recordings in the folders that links led to, and in those that links there do."""
        while self._linked:
            yield from self.below(self._linked.popleft())

    def matching(self, pattern: bytes, walked: Sequence[bytes]) -> Iterator[Found]:
        """The objects that a pattern matches, whatever their ending, and not in walked folders."""
        fits, start = pattern_regex(pattern).fullmatch, plain_start(pattern) or pattern
        others = tuple(folder + b"/" for folder in walked)
        for look in self._looks(start):
            if fits(look.address) and not look.address.startswith(others):
                yield _found_object(look)

    def _objects(self, folder: bytes) -> Iterator[Found]:
        for look in self._looks(folder):
            name = look.address.rpartition(b"/")[2]
            if b"/." in look.address[len(folder) :]:
                self._passed_over.n_hidden += 1
            elif _is_audio_name(name):
                yield _found_object(look)
            else:
                self._passed_over.count_ending(name)

    def _looks(self, folder: bytes) -> Iterator[Look]:
        """The objects of a folder that are not named; what cannot be listed is noted."""
        try:
            for look in listed(folder, self._passed_over.unlistable):
                if look.address not in self._named:
                    yield look
        except AudioError as error:
            self._passed_over.unlistable.append(f"{os.fsdecode(folder)}: {error.detail}")

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
    # The target of a link may be unreadable, or the link a loop: then it is not a folder.
    return os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir(follow_symlinks=False)


def _is_audio_name(name: bytes) -> bool:
    return os.path.splitext(name)[1].lower() in _AUDIO_SUFFIXES


_Named = tuple[bytes, str | None, dict[str, Any] | None]


def _found_each(named: Iterable[_Named]) -> Iterator[Found]:
    """Paths with id and meta as found; of objects, many are asked about at a time."""
    rest = iter(named)
    while batch := list(islice(rest, _OBJECTS_AT_ONCE)):
        addresses = [path for path, _, _ in batch if is_address(path)]
        looks = dict(zip(addresses, look_at_each(addresses), strict=True)) if addresses else {}
        for path, user_id, meta in batch:
            look = looks.get(path)
            if not is_address(path):
                yield _found(path, user_id, meta)
            elif isinstance(look, Look):
                yield _found_object(look, user_id, meta)
            else:  # opening it will tell why it cannot be asked about
                yield Found(path, 0, 0, user_id, meta, is_there=look is not None)


def _found_object(
    look: Look, user_id: str | None = None, meta: dict[str, Any] | None = None
) -> Found:
    return Found(
        look.address, look.size_bytes, look.mtime_ns, user_id, meta,
        ctime_ns=look.mtime_ns, etag=look.etag,
    )  # fmt: skip


def _found(path: bytes, user_id: str | None = None, meta: dict[str, Any] | None = None) -> Found:
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return Found(path, 0, 0, user_id, meta, is_there=False)
    except OSError:
        return Found(path, 0, 0, user_id, meta)  # opening it will tell why
    return Found(path, status.st_size, status.st_mtime_ns, user_id, meta, status.st_ctime_ns)
