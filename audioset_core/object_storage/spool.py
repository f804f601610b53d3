"""Copies of objects while they are read: files without a name, of bounded size in all.

A file without a name ends with its last descriptor, however a process ends. What will be needed
next is fetched ahead, in order and as far as there is room. The descriptor alone tells whether a
copy is still there, so that whoever has it closes it as that of any other file. The last objects
that somebody looked at, and listens to in several places, are kept.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
import time
from collections.abc import Iterable
from concurrent.futures import Future
from functools import cache
from pathlib import Path

from audioset_core.errors import AudioError, Reason
from audioset_core.object_storage.server_errors import GONE
from audioset_core.object_storage.stores import fetch, look_at

AHEAD = 8
"""Objects of a shard that are fetched before they are needed."""

_SPOOL_BYTES = 4 << 30
_LEFT_FREE_BYTES = 256 << 20
_PATIENCE_S = 600.0
_MOST_KEPT = 4

_File = tuple[int, int]  # device and inode
Wanted = tuple[bytes, str | None, int]
"""Address, ETag and size of an object as it was found."""


def spool() -> Spool:
    """The spool of this process, in the folder AUDIOSET_SPOOL (or TMPDIR, or ``/var/tmp``)."""
    return _spool(os.getpid())


@cache
def _spool(process_id: int) -> Spool:
    del process_id  # the cache's key
    named = os.environ.get("AUDIOSET_SPOOL") or os.environ.get("TMPDIR")
    folder = Path(named or "/var/tmp")  # noqa: S108 (on disk, where /tmp may be memory)
    return Spool(folder if folder.is_dir() else Path(tempfile.gettempdir()))


class Spool:
    """Fetches objects into files of one folder."""

    def __init__(self, folder: Path, most_bytes: int = _SPOOL_BYTES) -> None:
        self._folder, self._most_bytes = folder, most_bytes
        self._lock = threading.Lock()
        self._held: dict[int, tuple[_File | None, int]] = {}  # where it lies, and its size
        self._kept: dict[tuple[bytes, str | None], int] = {}
        self._coming: dict[tuple[bytes, str | None], Future[int]] = {}

    @property
    def used_bytes(self) -> int:
        """The size of all copies whose descriptors are open."""
        with self._lock:
            return self._used()

    def open(self, address: bytes, etag: str | None = None, size_bytes: int | None = None) -> int:
        """A descriptor of the object's bytes, with the object's time of change.

        `etag` and `size_bytes` are those of the version that is wanted, and wait until there is
        room, ten minutes at most. Without them somebody looks at the object: a request tells the
        newest version, of which a copy is kept, and nothing waits.

        Raises:
            AudioError: the object cannot be had, or is larger than what is free on the disk.
        """
        with self._lock:
            coming = self._coming.pop((address, etag), None)
        if coming is not None:
            return coming.result()
        is_newest = size_bytes is None
        if size_bytes is None:
            look = look_at(address)
            if look is None:
                raise AudioError(*GONE)
            etag, size_bytes = look.etag, look.size_bytes
            if (fd := self._kept_copy(address, etag)) is not None:
                return fd
        until = time.monotonic() + (0 if is_newest else _PATIENCE_S)
        while (fd := self._reserve(size_bytes, is_patient=time.monotonic() < until)) is None:
            time.sleep(0.1)
        self._fill(fd, (address, etag, size_bytes))
        if is_newest and etag is not None and size_bytes <= self._most_bytes // 2:
            self._keep(fd, (address, etag, size_bytes))
        return fd

    def fetch_ahead(self, wanted: Iterable[Wanted]) -> None:
        """Begin to fetch what will be opened next, as far as there is room."""
        for each in wanted:
            address, etag, size_bytes = each
            with self._lock:
                if (address, etag) in self._coming:
                    continue
            try:
                fd = self._reserve(size_bytes)
            except AudioError:
                return  # told when it is opened
            if fd is None:
                return  # none after it either, or they would keep the room that it waits for
            future: Future[int] = Future()
            with self._lock:
                self._coming[address, etag] = future
            threading.Thread(
                target=self._come, args=(future, fd, each), name="fetch", daemon=True
            ).start()

    def forget(self, wanted: Iterable[Wanted]) -> None:
        """Drop what was fetched ahead and will not be opened."""
        for address, etag, _ in wanted:
            with self._lock:
                coming = self._coming.pop((address, etag), None)
            if coming is not None:
                coming.add_done_callback(_close)

    def _kept_copy(self, address: bytes, etag: str | None) -> int | None:
        with self._lock:
            kept = self._kept.pop((address, etag), None)
            if kept is None:
                return None
            self._kept[address, etag] = kept  # the last to be dropped
            return _opened_again(kept)

    def _keep(self, fd: int, wanted: Wanted) -> None:
        address, etag, size_bytes = wanted
        with self._lock:
            if (address, etag) not in self._kept and (kept := _opened_again(fd)) is not None:
                self._kept[address, etag] = kept
                self._held[kept] = (_file(kept), size_bytes)
            while len(self._kept) > _MOST_KEPT:
                self._drop_kept()

    def _drop_kept(self) -> None:
        os.close(self._kept.pop(next(iter(self._kept))))

    def _come(self, future: Future[int], fd: int, wanted: Wanted) -> None:
        try:
            future.set_result(self._fill(fd, wanted))
        except BaseException as error:
            future.set_exception(error)

    def _fill(self, fd: int, wanted: Wanted) -> int:
        address, etag, size_bytes = wanted
        try:
            look = fetch(address, etag, fd)
            if look.size_bytes != size_bytes:
                raise AudioError(
                    Reason.CHANGED, f"{look.size_bytes:,} bytes came, {size_bytes:,} were listed"
                )
            os.lseek(fd, 0, os.SEEK_SET)
            os.utime(fd, ns=(look.mtime_ns, look.mtime_ns))
        except BaseException:
            os.close(fd)
            raise
        return fd

    def _reserve(self, size_bytes: int, *, is_patient: bool = True) -> int | None:
        """A new file with room for so many bytes; None: the others have to go first.

        Raises:
            AudioError: it does not fit on the disk.
        """
        with self._lock:
            while (used := self._used()) and used + size_bytes > self._most_bytes and self._kept:
                self._drop_kept()
            if is_patient and used and used + size_bytes > self._most_bytes:
                return None
            try:
                free = shutil.disk_usage(self._folder).free
                if size_bytes + _LEFT_FREE_BYTES > free:
                    if is_patient and used:
                        return None
                    raise AudioError(
                        Reason.UNREADABLE,
                        f"its {size_bytes / 1e9:.1f} GB do not fit into the spool {self._folder} "
                        f"({free / 1e9:.1f} GB free); name another folder with AUDIOSET_SPOOL",
                    )
                with tempfile.TemporaryFile(dir=self._folder, buffering=0) as file:
                    fd = os.dup(file.fileno())
            except OSError as error:
                why = f"the spool {self._folder}: {error.strerror}; AUDIOSET_SPOOL names another"
                raise AudioError(Reason.UNREADABLE, why) from None
            self._held[fd] = (_file(fd), size_bytes)
            return fd

    def _used(self) -> int:
        # A descriptor that was closed, or has become a copy in memory, is no longer of its file.
        self._held = {fd: held for fd, held in self._held.items() if _file(fd) == held[0]}
        return sum(dict(self._held.values()).values())


def _opened_again(fd: int) -> int | None:
    """The same file, read from a place of its own; None where the system cannot."""
    try:
        return os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None


def _file(fd: int) -> _File | None:
    try:
        status = os.fstat(fd)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _close(coming: Future[int]) -> None:
    if coming.exception() is None:
        os.close(coming.result())
