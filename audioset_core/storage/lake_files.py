"""The files of a lake: which there are, and how they are replaced while others read.

A lake is a folder of Parquet files that any program reads by a glob, so a file has its final name
only when it is whole, and no row is ever in two files. A name tells the rows of its file (by a
digest), and is never used for others: programs open a file twice, and would mix two that have one
name. New files are written to ``_next``, where those that are whole outlast a stop. Once all are
there and synced, the new list of files is written beside them: from then on the change happens,
also if the process is killed, since whoever opens the lake next goes on with it. What has gone is
removed before what is new appears.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

from audioset_core.errors import UserError
from audioset_core.storage.atomic_files import (
    TEMP_SUFFIX,
    make_folder,
    move_into_place,
    replacing,
    sync_folder,
    write_atomically,
)

LIST = "_lake.json"
"""Readers of a folder leave names aside that begin with an underscore."""

_NEXT = "_next"
_LOCK = "_lock"


@dataclass(frozen=True, slots=True)
class LakeFile:
    """A file as it was written."""

    n_rows: int
    n_labellings: int
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Lake:
    """A lake that nobody else writes to; `files` by their paths in the folder.

    `ledger` tells from which database the rows are; None before the first were written.
    """

    folder: Path
    ledger: str | None
    files: Mapping[str, LakeFile]

    def has(self, name: str) -> bool:
        """Whether a file is there, of the size with which it was written."""
        told, path = self.files.get(name), self.folder / name
        return told is not None and path.is_file() and path.stat().st_size == told.size_bytes

    def next_file(self, name: str) -> AbstractContextManager[BinaryIO]:
        """A file to write to, which `replace` will give its name.

        Raises:
            OSError: the disk is full, ...; what is in the lake stays.
        """
        return replacing(self.next_path(name))

    def is_coming(self, name: str) -> bool:
        """Whether `next_file` has written a file already, also before a stop."""
        return self.next_path(name).is_file()

    def written(self, name: str, n_rows: int, n_labellings: int) -> LakeFile:
        """What is to be known of a file that `next_file` has written."""
        path = self.next_path(name)
        return LakeFile(n_rows, n_labellings, path.stat().st_size, sha256_of(path))

    def replace(self, files: Mapping[str, LakeFile], ledger: str | None) -> None:
        """Make these the files of the lake: others go, and those that were written come.

        Raises:
            OSError: the disk is full, ...; the change is finished when the lake is opened next.
        """
        told = {
            "ledger": ledger,
            "files": {name: asdict(file) for name, file in sorted(files.items())},
        }
        for name, path in _coming(self.folder).items():
            if name not in files:  # written before a stop, and of the past by now
                path.unlink()
        write_atomically(self.folder / _NEXT / LIST, json.dumps(told, indent=1).encode())
        _go_on(self.folder)

    def is_between(self) -> bool:
        """Whether a change was stopped amid its files; the next export finishes it."""
        return (self.folder / _NEXT / LIST).exists()

    def strays(self) -> list[str]:
        """Parquet files that others put into the lake, whose rows a glob would find as well."""
        found = (str(path.relative_to(self.folder)) for path in self.folder.rglob("*.parquet"))
        return sorted(set(found) - set(self.files))

    def next_path(self, name: str) -> Path:
        """Where a file is until it is given its name."""
        return self.folder / _NEXT / f"{name}{TEMP_SUFFIX}"


@contextmanager
def open_lake(folder: Path) -> Iterator[Lake]:
    """The lake in a folder to be changed, or a new one; what a killed process began is finished.

    Raises:
        UserError: somebody else has it open, or the folder holds something else.
        OSError: the folder cannot be written to.
    """
    if not _is_lake(folder) and folder.is_dir() and any(folder.iterdir()):
        raise UserError(f"the folder {folder} holds something else; name a new one for the lake")
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder, "w", fcntl.LOCK_EX):
        _go_on(folder)
        try:
            yield Lake(folder, *_read(folder / LIST))
        except OSError:  # the disk may be full
            _drop(folder)
            raise
        _drop(folder)


@contextmanager
def reading_lake(folder: Path) -> Iterator[Lake]:
    """The lake in a folder, which may be read-only: nothing is written. Others may read as well.

    Raises:
        UserError: somebody is changing it, or there is no lake.
    """
    if not _is_lake(folder):
        raise UserError(f"there is no lake in {folder}; audioset export lake {folder} makes one")
    with _locked(folder, "r", fcntl.LOCK_SH):
        yield Lake(folder, *_read(folder / LIST))


def _is_lake(folder: Path) -> bool:
    """Raises: UserError: it is a file."""
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file; name the folder of the lake")
    return (folder / LIST).exists() or (folder / _LOCK).exists()


@contextmanager
def _locked(folder: Path, mode: str, kind: int) -> Iterator[None]:
    with (folder / _LOCK).open(mode) as lock:
        try:
            fcntl.flock(lock, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"another process is at the lake {folder}: try again when that has ended"
            ) from None
        except OSError as error:
            raise UserError(
                f"the disk of {folder} has no locks ({error.strerror}): put the lake on another"
            ) from None
        yield


def sha256_of(path: Path) -> str:
    """The digest of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _go_on(folder: Path) -> None:
    """Finish a change whose list was written; repeating is harmless."""
    coming = folder / _NEXT
    if not (coming / LIST).exists():
        return
    _, files = _read(coming / LIST)
    written = _coming(folder)
    former = _read(folder / LIST)[1]
    gone = set(former) - set(files)
    for name in written:
        make_folder((folder / name).parent)
    # As fast as can be: between the two, whoever reads finds no row twice, but misses some.
    for table in sorted({name.partition("/")[0] for name in gone | set(written)}):
        for name in gone:
            if name.startswith(f"{table}/"):
                (folder / name).unlink(missing_ok=True)
        for name, path in written.items():
            if name.startswith(f"{table}/"):
                path.replace(folder / name)
    for changed in {(folder / name).parent for name in gone | _changed(former, files)}:
        if changed.is_dir():
            sync_folder(changed)
    for name in gone:
        _remove_empty((folder / name).parent, folder)
    move_into_place(coming / LIST, folder / LIST)
    shutil.rmtree(coming, ignore_errors=True)


def _coming(folder: Path) -> dict[str, Path]:
    """The files that are whole and have no name yet, by their names to be."""
    coming = folder / _NEXT
    return {
        str(path.relative_to(coming)).removesuffix(TEMP_SUFFIX): path
        for path in sorted(coming.rglob(f"*.parquet{TEMP_SUFFIX}"))
    }


def _drop(folder: Path) -> None:
    """Delete what was written for a change that has not begun."""
    if not (folder / _NEXT / LIST).exists():
        shutil.rmtree(folder / _NEXT, ignore_errors=True)


def _changed(former: Mapping[str, LakeFile], files: Mapping[str, LakeFile]) -> set[str]:
    return {name for name, file in files.items() if former.get(name) != file}


def _read(path: Path) -> tuple[str | None, dict[str, LakeFile]]:
    """(ledger, files); nothing, where there is no list."""
    if not path.exists():
        return None, {}
    try:
        told = json.loads(path.read_bytes())
        files = {name: LakeFile(**file) for name, file in told["files"].items()}
        return told["ledger"], files
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(
            f"{path} is damaged ({error}): delete the folder {path.parent}, and export anew"
        ) from None


def _remove_empty(folder: Path, root: Path) -> None:
    while folder != root and (not folder.exists() or not any(folder.iterdir())):
        if folder.exists():
            folder.rmdir()
        folder = folder.parent
