"""Writes files so that a crash or a power cut leaves the old or the new file, never a half one.

A file is written in full under a temporary name in its final folder, synced, renamed, and then
its folder is synced: only after that may a database row point to it. A failed sync is never
retried (the kernel may have dropped the pages, and a second sync would report success): the
temporary file is removed and the error is raised.
"""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

# The ending of temporary files, by which those of a killed process are found and removed.
TEMP_SUFFIX = ".tmp"

Block = bytes | memoryview
"""A part of a file's content."""


def write_atomically(path: Path, data: bytes) -> None:
    """Replace one file, durably; on any error the old file stays and no temporary is left.

    Raises:
        OSError: the disk is full, a sync failed, ...
    """
    write_many([(path, data)])


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write to; it replaces `path` when the block ends without an error.

    Raises:
        OSError: the disk is full, a sync failed, ...; the old file stays.
    """
    make_folder(path.parent)
    temp = path.with_name(f".{secrets.token_hex(8)}{TEMP_SUFFIX}")
    try:
        with temp.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temp.replace(path)
    except BaseException as error:
        temp.unlink(missing_ok=True)
        if isinstance(error, OSError):
            error.filename = error.filename or str(path.parent)  # which disk is full
        raise
    sync_folder(path.parent)


def move_into_place(part: Path, path: Path) -> None:
    """Give a synced file of the same folder its final name, durably.

    Raises:
        OSError: the folder cannot be written to.
    """
    part.replace(path)
    sync_folder(path.parent)


def make_folder(folder: Path) -> None:
    """Like mkdir -p, but durable: a synced file in a folder that vanishes is lost all the same."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Make what has changed in a folder durable: names that came, and names that went.

    Network disks may have no such sync (SMB, FUSE): the kernel says EINVAL where a file system has
    none, and EIO where one failed.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
    finally:
        os.close(descriptor)


def write_text(path: Path, texts: Iterable[str]) -> None:
    """Replace a file by a text in UTF-8, written part by part.

    Raises:
        OSError: the disk is full, a sync failed, ...; the old file stays.
    """
    with replacing(path) as file:
        for text in texts:
            file.write(text.encode())


def write_many(items: Iterable[tuple[Path, bytes | Sequence[Block]]]) -> None:
    """Write several files, whole or in blocks; durable when it returns.

    All temporary files are written and synced, then all are renamed, then each folder is synced.
    On an error no temporary file is left; files renamed before it stay, whole but not promised.

    Raises:
        OSError: the disk is full, a sync failed, ...
    """
    written: list[tuple[Path, Path]] = []
    try:
        for path, content in items:
            make_folder(path.parent)
            temp = path.with_name(f".{secrets.token_hex(8)}{TEMP_SUFFIX}")
            descriptor = os.open(temp, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
            written.append((temp, path))
            try:
                for block in (content,) if isinstance(content, bytes) else content:
                    _write_all(descriptor, block)
                os.fsync(descriptor)
            except OSError as error:
                error.filename = error.filename or str(path.parent)  # which disk is full
                raise
            finally:
                os.close(descriptor)
        for temp, path in written:
            temp.replace(path)
    except BaseException:
        for temp, _ in written:
            temp.unlink(missing_ok=True)
        raise
    for folder in dict.fromkeys(path.parent for _, path in written):
        sync_folder(folder)


def _write_all(descriptor: int, block: Block) -> None:
    """os.write reports a full disk with its errno, which numpy's own writer does not."""
    rest = memoryview(block)
    while rest:
        n_bytes = os.write(descriptor, rest)
        if n_bytes == 0:
            raise OSError(errno.EIO, "nothing could be written")
        rest = rest[n_bytes:]
