"""Checks of result files against their rows, and lists of the files in the results folders.

A file's name has the first 16 hex digits of its SHA-256. So if a file and its row disagree, the one
that agrees with the name is right.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path, PurePosixPath
from typing import get_args

from audioset_core.arrays import Floats
from audioset_core.errors import AudioError
from audioset_core.features.config import FrontendConfig
from audioset_core.storage.atomic_files import TEMP_SUFFIX
from audioset_core.storage.score_files import Kind, is_finite, read_scores, scores_path

KINDS: tuple[Kind, ...] = get_args(Kind)

_NAME = re.compile(r"([0-9a-f]{64})-([0-9a-f]{16})\.npy")
_TEMPORARY = re.compile(r"\.[0-9a-f]{16}" + re.escape(TEMP_SUFFIX))


class Fault(Enum):
    """What is wrong with a file, or with its row."""

    MISSING = "missing"
    UNREADABLE = "unreadable"
    """The system refuses to read it, perhaps only now; the content is unknown."""
    DAMAGED = "damaged"
    PROMISE = "promise"
    """The file is as it was written; its row says something else."""


@dataclass(frozen=True, slots=True)
class Promise:
    """What a row says about a file; None where it says nothing."""

    sha256: str | None
    n_patches: int | None
    dtype: str | None
    n_columns: int | None


@dataclass(frozen=True, slots=True)
class Checked:
    """The result of a check; the facts are those of the file, None where they are unknown."""

    fault: Fault | None = None
    reason: str = ""
    n_patches: int | None = None
    dtype: str | None = None
    sha256: str | None = None
    """Known only if the whole file was read."""


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file in a results folder; `path` is relative to the home, with forward slashes."""

    path: str
    mtime_s: float
    clip_sha256: str | None
    """None for a temporary file, see `is_temporary`."""
    is_temporary: bool


def is_place_of(path: str, kind: Kind, model: str, clip_sha256: str) -> bool:
    """Whether a result of this clip may have this path; a file at any other path is not read."""
    match = _NAME.fullmatch(PurePosixPath(path).name)
    if match is None:
        return False
    return path == str(scores_path(model, clip_sha256, match[2].ljust(64, "0"), kind))


def check_file(path: Path, promise: Promise, *, is_deep: bool) -> Checked:
    """Compare a result file with its promise.

    Only its header and size, unless `is_deep` or something does not fit: then the file is read in
    full, its SHA-256 is compared with its name and its row, and all values must be finite.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return Checked(Fault.DAMAGED, "not a regular file")
        array = read_scores(path, mmap=True)
        n_patches, n_columns = array.shape
        seen = (n_patches, str(array.dtype))
        if promise.n_columns is not None and n_columns != promise.n_columns:
            said = f"{n_columns} columns, the model has {promise.n_columns}"
            return Checked(Fault.DAMAGED, said)
        in_name = _digest_in_name(path)
        is_odd = seen != (promise.n_patches, promise.dtype) or (
            promise.sha256 is None or not promise.sha256.startswith(in_name)
        )
        if is_deep or is_odd:
            return _read_in_full(path, array, promise)
        return Checked(None, "", *seen)
    except FileNotFoundError:
        return Checked(Fault.MISSING, "no such file")
    except AudioError as error:
        what = error.detail.replace(f"scores file {path} is ", "").partition(";")[0]
        return Checked(Fault.DAMAGED, what)
    except OSError as error:
        return Checked(Fault.UNREADABLE, error.strerror or str(error))


def fitting_patches(config: FrontendConfig, n_samples: int, rate_hz: int) -> range:
    """The possible numbers of patches of a recording, by the front end's own rule.

    A resampler may end a few samples earlier or later: one frame hop is allowed for it.
    """
    n_resampled = n_samples * config.sample_rate_hz // rate_hz
    slack = 0 if rate_hz == config.sample_rate_hz else config.frame_hop_samples
    least = config.n_rows(max(0, n_resampled - slack))
    return range(least, config.n_rows(n_resampled + slack) + 1)


def stored_files(home: Path) -> Iterator[StoredFile | str]:
    """Every file in the results folders; only the path of a file that no labelling run wrote.

    Folders are read entry by entry, so memory does not grow with their size.
    """
    for kind in KINDS:
        for model in _folders(home / kind):
            for part in _folders(model):
                yield from _files(home, part)


def _folders(folder: Path) -> Iterator[Path]:
    try:
        with os.scandir(folder) as entries:
            yield from (Path(entry.path) for entry in entries if entry.is_dir())
    except FileNotFoundError:
        return


def _files(home: Path, folder: Path) -> Iterator[StoredFile | str]:
    with os.scandir(folder) as entries:
        for entry in entries:
            path = Path(entry.path).relative_to(home).as_posix()
            match, is_temporary = _NAME.fullmatch(entry.name), _TEMPORARY.fullmatch(entry.name)
            try:
                if not (match or is_temporary) or not entry.is_file(follow_symlinks=False):
                    yield path
                    continue
                mtime_s = entry.stat(follow_symlinks=False).st_mtime
            except FileNotFoundError:
                continue  # renamed or removed meanwhile
            yield StoredFile(path, mtime_s, match[1] if match else None, bool(is_temporary))


def _digest_in_name(path: Path) -> str:
    match = _NAME.fullmatch(path.name)
    return match[2] if match else ""


def _read_in_full(path: Path, array: Floats, promise: Promise) -> Checked:
    # First with read(): a bad sector is an error there, but a signal in mapped memory.
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if not digest.startswith(_digest_in_name(path)):
        return Checked(Fault.DAMAGED, f"its SHA-256 begins with {digest[:16]}, unlike its name")
    if not is_finite(array):
        return Checked(Fault.DAMAGED, "not all values are finite")
    facts = (len(array), str(array.dtype), digest)
    pairs = {
        "patches": (promise.n_patches, len(array)),
        "type": (promise.dtype, str(array.dtype)),
        "SHA-256": (promise.sha256, digest),
    }
    wrong = [f"{what} {said}, not {is_}" for what, (said, is_) in pairs.items() if said != is_]
    if wrong:
        return Checked(Fault.PROMISE, f"the row says {'; '.join(wrong)}", *facts)
    return Checked(None, "", *facts)
