"""Glob patterns over file names as bytes, with a rule for symbolic links.

Like `glob.glob(recursive=True)`, except for links: a link that a wildcard matches is skipped unless
links are followed, and `**` enters no folder twice. `glob` itself follows all links, and does not
end where two links point to their own folder.
"""

from __future__ import annotations

import fnmatch
import os
from collections import deque
from collections.abc import Iterator

_MAGIC = frozenset(b"*?[")


class EnteredFolders:
    """The folders entered so far, by device and inode, so that a loop of links ends."""

    def __init__(self) -> None:
        self._known: set[tuple[int, int]] = set()

    def enter(self, folder: bytes) -> bool:
        """Remember a folder; False if it was entered before."""
        try:
            status = os.stat(folder)
        except OSError:
            return True  # listing the folder will raise, and tell why
        key = (status.st_dev, status.st_ino)
        is_new = key not in self._known
        self._known.add(key)
        return is_new


class Pattern:
    """One pattern, and the links that it matched but did not follow."""

    def __init__(self, pattern: bytes, *, follow_symlinks: bool = False) -> None:
        self._pattern, self._follow = pattern, follow_symlinks
        self._links: set[bytes] = set()

    @property
    def n_links(self) -> int:
        """How many links were skipped so far."""
        return len(self._links)

    def paths(self) -> list[bytes]:
        """Everything that matches, sorted, nothing twice."""
        parts: list[bytes] = []
        for part in self._pattern.split(b"/"):
            # One ** after another means no more than one, and would cost a walk in every folder.
            if part and not (part == b"**" and parts and parts[-1] == b"**"):
                parts.append(part)
        start = b"/" if self._pattern.startswith(b"/") else b""
        found = set(self._matches(start, parts))
        if self._pattern.endswith(b"/"):
            found = {path for path in found if os.path.isdir(path)}
        return sorted(found - {b""})

    def _matches(self, folder: bytes, parts: list[bytes]) -> Iterator[bytes]:
        if not parts:
            yield folder
            return
        first, rest = parts[0], parts[1:]
        if first == b"**":
            for path in self._below(folder, with_files=not rest):
                yield from self._matches(path, rest)
        elif not _MAGIC.intersection(first):
            path = os.path.join(folder, first)
            if os.path.lexists(path):
                yield from self._matches(path, rest)
        else:
            for entry in _entries(folder, with_hidden=first.startswith(b".")):
                if fnmatch.fnmatchcase(entry.name, first) and not self._is_skipped(entry):
                    yield from self._matches(os.path.join(folder, entry.name), rest)

    def _below(self, folder: bytes, *, with_files: bool) -> Iterator[bytes]:
        """The folder and all folders below it; folders behind links last, if at all."""
        if not os.path.isdir(folder or b"."):
            return
        entered = EnteredFolders()
        entered.enter(folder or b".")
        yield folder
        real, linked = [folder], deque[bytes]()
        while real or linked:
            if not real:
                path = linked.popleft()
                if not entered.enter(path):
                    self._links.add(path)
                    continue
                yield path
                real.append(path)
            path = real.pop()
            for entry in _entries(path):
                below = os.path.join(path, entry.name)
                if self._is_skipped(entry):
                    continue
                if not os.path.isdir(below):
                    if with_files:
                        yield below
                elif entry.is_symlink():
                    linked.append(below)
                elif not self._follow or entered.enter(below):
                    yield below
                    real.append(below)

    def _is_skipped(self, entry: os.DirEntry[bytes]) -> bool:
        if not entry.is_symlink() or self._follow:
            return False
        self._links.add(entry.path)
        return True


def _entries(folder: bytes, *, with_hidden: bool = False) -> list[os.DirEntry[bytes]]:
    try:
        with os.scandir(folder or b".") as listing:
            entries = [e for e in listing if with_hidden or not e.name.startswith(b".")]
    except OSError:  # not a folder, or not readable: nothing matches there
        return []
    return sorted(entries, key=lambda entry: entry.name)
