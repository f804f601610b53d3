"""Folders over time: which files are ready to be read, and which are gone.

A file that is still being written waits for the next run. One that a complete walk did not meet, or
whose content lies elsewhere now, is looked for by name, and only if it is truly not there it is
marked missing.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
from sqlalchemy import Engine

from audioset_core.errors import AudioError, UserError
from audioset_core.inputs.walk import Found
from audioset_core.object_storage.addresses import is_address, plain_start, read_address
from audioset_core.object_storage.stores import listed, look_at_each
from db.catalog.vanished_files import copies_elsewhere, mark_missing, present_sources
from db.records import FileState, KnownSource, Triaged
from db.types import path_digest

_KNOWN_CONTENT = frozenset({FileState.DONE, FileState.FAILED, FileState.UNLABELLED})


def usable_roots(roots: Sequence[str]) -> tuple[list[str], list[str]]:
    """The watched folders that are there, absolute, and for each other one why it is not used.

    Raises:
        UserError: no root, or none of them can be used.
    """
    if not roots:
        raise UserError("nothing to watch: give at least one folder")
    usable, problems = [], []
    for root in roots:
        try:
            address = read_address(root)
            place = os.fsdecode(address or Path(root).expanduser().absolute()).rstrip("/") or "/"
            if _is_empty(place) and address is not None and plain_start(address):
                raise UserError(f"{place}: a pattern cannot be watched; name its folder")
        except OSError as error:
            problems.append(f"{root}: {_WORDS.get(type(error), error.strerror)}")
        except AudioError as error:
            problems.append(f"{place}: {error.detail}")
        except UserError as error:
            problems.append(str(error))
        else:
            usable.append(place)
    if not usable:
        raise UserError("; ".join(problems))
    return usable, problems


_WORDS = {FileNotFoundError: "no such folder", NotADirectoryError: "not a folder"}


def _is_empty(folder: str) -> bool:
    if is_address(address := os.fsencode(folder)):
        return next(listed(address), None) is None
    with os.scandir(folder) as entries:
        return next(entries, None) is None


class Watch:
    """One walk over folders: judges what it meets, remembers it in 8 bytes a file.

    With `settle_s` the folders are watched ones, in which files are still being written.
    """

    def __init__(self, roots: Sequence[str], settle_s: float | None, now: datetime) -> None:
        self._roots = list(roots)
        self._settle_s, self._now = settle_s, now
        self._met = array("Q")

    def meet(self, found: Found) -> None:
        """Note that a file is there."""
        self._met.append(_key(path_digest(found.path)))

    def is_ready(self, found: Found, judgement: Triaged) -> bool:
        """Whether a file may be read now.

        Known content always may. Another file must not have been touched for the settle time, by
        the file system's clock; or, as that clock may be wrong, it was seen so long ago with the
        same size and time.
        """
        if self._settle_s is None or judgement.state in _KNOWN_CONTENT:
            return True
        waiting_since = judgement.waiting_since
        settle = timedelta(seconds=self._settle_s)
        if waiting_since is not None and self._now - waiting_since >= settle:
            return True
        now_s = self._now.timestamp()
        # A time of the content may be set by hand, and lie ahead; ctime may not.
        touched_s = max(t / 1e9 for t in (found.mtime_ns, found.ctime_ns) if t <= found.ctime_ns)
        return now_s - touched_s >= self._settle_s

    def mark_vanished(self, engine: Engine, now: datetime) -> tuple[int, list[str]]:
        """Mark the known files below the roots that were not met and are not there.

        Returns how many, and what is odd: an empty folder in which files are known may be a disk
        that is not mounted, so its files are not marked.
        """
        met = np.sort(np.frombuffer(self._met, dtype=np.uint64))
        count, problems = 0, []
        for root in self._roots:
            name = os.fsencode(root)
            if not _has_entries(root):
                if any(present_sources(engine, [name])):
                    problems.append(f"{root}: empty, though files are known; is its disk mounted?")
                continue
            # The pages go by id: a source that is marked leaves no gap in them.
            for page in present_sources(engine, [name]):
                gone = _gone(_not_in(met, page))
                count += mark_missing(engine, [source.path_digest for source in gone], now)
        return count, problems


def mark_moved_away(engine: Engine, roots: Sequence[str], run_id: str | None, now: datetime) -> int:
    """Mark the paths that are gone, and whose content lies below the roots or was met by the run.

    That tells a folder that was renamed and is labelled by its new name. Returns how many.
    """
    empty = tuple(os.fsencode(root).rstrip(b"/") + b"/" for root in roots if not _has_entries(root))
    count = 0
    for page in copies_elsewhere(engine, [os.fsencode(root) for root in roots], run_id):
        gone = _gone([source for source in page if not source.path.startswith(empty)])
        count += mark_missing(engine, [source.path_digest for source in gone], now)
    return count


def _has_entries(folder: str) -> bool:
    try:
        return not _is_empty(folder)
    except (OSError, AudioError):
        return False


def _key(digest: bytes) -> int:
    return int.from_bytes(digest[:8], "little")


def _not_in(
    met: np.ndarray[tuple[int], np.dtype[np.uint64]], page: list[KnownSource]
) -> list[KnownSource]:
    keys = np.array([_key(source.path_digest) for source in page], dtype=np.uint64)
    at = np.searchsorted(met, keys)
    was_met = np.zeros(len(keys), dtype=bool)
    inside = at < len(met)
    was_met[inside] = met[at[inside]] == keys[inside]
    return [source for source, known in zip(page, was_met, strict=True) if not known]


def _gone(known: list[KnownSource]) -> list[KnownSource]:
    """Those that are not there; of objects, many are asked about at a time."""
    objects = [source for source in known if is_address(source.path)]
    looks = look_at_each([source.path for source in objects])
    gone = [source for source, look in zip(objects, looks, strict=True) if look is None]
    return gone + [s for s in known if not is_address(s.path) and not _is_there(s.path)]


def _is_there(path: bytes) -> bool:
    """Unless the file system says that it is not, it is: a folder may just be unreadable."""
    try:
        Path(os.fsdecode(path)).lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return True
