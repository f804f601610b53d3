"""The folder that `label_dataset` writes to:

    audio_pred.json             the labels' index, schema of https://github.com/w-hc/torch_audioset
    audio_pred/<name>.npy       logits of one item
    audio_pred.failures.jsonl   the items that the last call could not label, one in each line
    audio_pred.journal          the finished items; delete it to label all items again

An item is finished when its line is in the journal, which is written after its `.npy` is durable.
Each line has a checksum, so that a line that a crash cut off is ignored. The JSON is made from the
journal.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audioset_core.errors import UserError
from audioset_core.storage.atomic_files import write_many
from audioset_core.storage.score_files import npy_bytes

SCORES_FOLDER = "audio_pred"
JSON_NAME = "audio_pred.json"
FAILURES_NAME = "audio_pred.failures.jsonl"
JOURNAL_NAME = "audio_pred.journal"

# New ids are sorted in among the old ones once there are this many.
_MERGE_IDS = 1 << 16
# Names that mean the same on every file system, also where case does not count.
_PLAIN_ID = re.compile(r"[a-z0-9][a-z0-9_.-]{0,99}")
_UNSAFE = re.compile(r"[^A-Za-z0-9_-]+")


class LabelFolder:
    """The results on disk, locked by one call at a time.

    Raises (from `__init__`):
        UserError: the path cannot be a folder, or another call has locked it.
    """

    def __init__(self, out: Path, variant: str) -> None:
        self.json_path, self.failures_path = out / JSON_NAME, out / FAILURES_NAME
        self._scores, self._variant = out / SCORES_FOLDER, variant
        self._finished, self._outdated = IdSet(), IdSet()
        try:
            self._scores.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise UserError(f"out: there is a file where the folder {out} should be") from error
        self._journal = (out / JOURNAL_NAME).open("a+b")
        try:
            fcntl.flock(self._journal, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._load()
            self._failures = self.failures_path.open("w", encoding="ascii")
        except BlockingIOError as error:
            self._journal.close()
            raise UserError(f"out: another call is writing to {out}; wait for its end") from error
        except BaseException:
            self._journal.close()
            raise

    def __enter__(self) -> LabelFolder:
        return self

    def __exit__(self, *_: object) -> None:
        self._failures.close()
        self._journal.close()

    def is_finished(self, item_id: str) -> bool:
        """Whether an earlier call labelled it in this folder with the same parameters."""
        return digest(item_id) in self._finished

    def finish(self, results: list[tuple[dict[str, Any], NDArray[Any]]]) -> None:
        """Make results durable: first the files, then their lines in the journal."""
        if not results:
            return
        # The line of a file with other parameters is cancelled before the file is overwritten.
        self._append(
            {"id": entry["id"], "variant": None}
            for entry, _ in results
            if digest(entry["id"]) in self._outdated
        )
        files = [(scores_name(entry["id"]), npy_bytes(logits)) for entry, logits in results]
        write_many((self._scores / name, data) for name, data in files)
        self._append(
            {**entry, "variant": self._variant, "file": name, "size_bytes": len(data)}
            for (entry, _), (name, data) in zip(results, files, strict=True)
        )

    def note_failure(self, failure: Mapping[str, Any]) -> None:
        """Add a line to the file of failures."""
        self._failures.write(json.dumps(failure) + "\n")
        self._failures.flush()

    def entries(self) -> Iterator[dict[str, Any]]:
        """The items finished with these parameters, in the order of finishing."""
        for entry in self._last_entries():
            if entry["variant"] == self._variant and self._is_there(entry):
                yield entry

    def _load(self) -> None:
        for entry in self._last_entries():
            is_current = entry["variant"] == self._variant and self._is_there(entry)
            (self._finished if is_current else self._outdated).add(digest(entry["id"]))
        if len(self._outdated):
            # The JSON names files that are going to be overwritten with other parameters.
            self.json_path.unlink(missing_ok=True)

    def _is_there(self, entry: Mapping[str, Any]) -> bool:
        try:
            return bool((self._scores / entry["file"]).stat().st_size == entry["size_bytes"])
        except FileNotFoundError:
            return False

    def _append(self, entries: Iterable[Mapping[str, Any]]) -> None:
        """Lines of `crc32 JSON`, durable when it returns."""
        bodies = [json.dumps(entry).encode("ascii") for entry in entries]
        if bodies:
            # The leading line break separates them from an unfinished line of an earlier call.
            lines = (b"\n%08x %s" % (zlib.crc32(body), body) for body in bodies)
            self._journal.write(b"".join(lines) + b"\n")
            self._journal.flush()
            os.fsync(self._journal.fileno())

    def _last_entries(self) -> Iterator[dict[str, Any]]:
        """The last whole line of each id; read twice, so that memory holds only ids."""
        digests = b"".join(digest(entry["id"]) for entry in self._lines())
        keys = np.frombuffer(digests, dtype="S16")[::-1]
        is_last = np.zeros(len(keys), dtype=bool)
        is_last[len(keys) - 1 - np.unique(keys, return_index=True)[1]] = True
        for entry, is_kept in zip(self._lines(), is_last, strict=True):
            if is_kept and entry["variant"] is not None:
                yield entry

    def _lines(self) -> Iterator[dict[str, Any]]:
        self._journal.seek(0)
        for line in self._journal:
            checksum, _, body = line.rstrip(b"\n").partition(b" ")
            if checksum == b"%08x" % zlib.crc32(body) and body:
                yield json.loads(body)


class IdSet:
    """Digests of ids in a sorted array: 16 bytes each, where a set takes a hundred."""

    def __init__(self) -> None:
        self._sorted = np.empty(0, "S16")
        self._recent: set[bytes] = set()

    def __len__(self) -> int:
        return len(self._sorted) + len(self._recent)

    def __contains__(self, digest: bytes) -> bool:
        if digest in self._recent:
            return True
        at = int(np.searchsorted(self._sorted, np.bytes_(digest)))
        return at < len(self._sorted) and bool(self._sorted[at] == digest)

    def add(self, digest: bytes) -> bool:
        """Add a digest; False if it was there before."""
        if digest in self:
            return False
        self._recent.add(digest)
        if len(self._recent) >= max(_MERGE_IDS, len(self._sorted) // 8):
            recent = np.array(list(self._recent), "S16")
            self._sorted = np.sort(np.concatenate([self._sorted, recent]))
            self._recent.clear()
        return True


def scores_name(item_id: str) -> str:
    """A file name for any id: the id itself where that is safe everywhere, else with a digest.

    Safe are up to 100 characters of `a-z 0-9 _ . -`. As `~` is not one of them, the two kinds of
    name never collide.

    >>> scores_name("tone-1"), scores_name("Tone 1")
    ('tone-1.npy', 'Tone_1~4b1e47c6ef6c08389840c49b729188.npy')
    """
    if _PLAIN_ID.fullmatch(item_id):
        return f"{item_id}.npy"
    readable = _UNSAFE.sub("_", item_id[:60]).strip("_-")
    return f"{readable or 'id'}~{digest(item_id).hex()[:30]}.npy"


def digest(item_id: str) -> bytes:
    """15 bytes of SHA-256 and a dot: numpy drops zeros at the end."""
    # File names may have bytes that are not UTF-8, as lone surrogates.
    return hashlib.sha256(item_id.encode("utf-8", "surrogatepass")).digest()[:15] + b"."
