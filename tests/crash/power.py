"""What a power cut may leave on a disk: every outcome of the writes that were not synced yet.

The model, for a file system that keeps no more than it promises:

- a file's data may be there in full, by half, as zeros, or not at all until the file is synced;
- a name made, replaced or removed may have reached the disk or not until its folder is synced, each
  independently of the others in the order they were made; a rename is never seen by half;
- a folder that is not there has nothing in it;
- a commit is durable when it returns (PostgreSQL), or the last commits may be lost, in order and
  never by half (SQLite in WAL mode with synchronous = NORMAL).
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

from tests.crash.steps import Step

Tree = Mapping[str, bytes]
"""Content by path, relative to the home folder."""


@dataclass(frozen=True, slots=True)
class Op:
    """One change that was asked for; `path` and `to` are below the home folder."""

    kind: str
    path: str
    data: bytes = b""
    to: str = ""


@dataclass(slots=True)
class Recorder:
    """Handler that notes every change below `home`, and the database after every commit."""

    home: Path
    database: Path
    ops: list[Op] = field(default_factory=list)
    commits: list[tuple[int, bytes]] = field(default_factory=list)
    """(number of ops before it, the database as it was then)"""
    _is_committing: bool = False

    def __call__(self, step: Step, call: Callable[[], Any]) -> Any:
        """Carry the step out and note it."""
        self.snapshot()
        self._is_committing = step.kind == "commit"
        path = self._below(step.path)
        existed = step.path is not None and step.path.exists()
        outcome = call()
        if path is None or (path and not path.startswith("scores")):
            return outcome
        if step.kind == "open":
            flags = step.arguments[1]
            if flags & os.O_CREAT and not existed:
                self.ops.append(Op("create", path))
            elif flags & os.O_TRUNC:
                self.ops.append(Op("truncate", path))
        elif step.kind == "write":
            self.ops.append(Op("write", path, bytes(step.arguments[1])[:outcome]))
        elif step.kind == "replace":
            self.ops.append(Op("rename", path, to=str(self._below(Path(step.arguments[1])))))
        elif step.kind in ("fsync", "mkdir", "unlink"):
            self.ops.append(Op(step.kind, path))
        return outcome

    def snapshot(self) -> None:
        """Keep the database if the step before was a commit."""
        if self._is_committing:
            self._is_committing = False
            self.commits.append((len(self.ops), database_bytes(self.database)))

    def _below(self, path: Path | None) -> str | None:
        if path is None or not path.is_relative_to(self.home):
            return None
        return str(path.relative_to(self.home)).removeprefix(".")


def database_bytes(path: Path) -> bytes:
    """A SQLite database as a reader sees it now, in one file."""
    with sqlite3.connect(path) as source, sqlite3.connect(":memory:") as copy:
        source.backup(copy)
        data = copy.serialize()
    source.close()
    copy.close()
    return data


@dataclass(slots=True)
class _Inode:
    cached: bytes = b""
    synced: bytes | None = None

    def outcomes(self) -> set[bytes]:
        """What its data may be after the cut."""
        if self.synced == self.cached:
            return {self.cached}
        half = self.cached[: len(self.cached) // 2]
        return {self.synced or b"", b"", half, bytes(len(self.cached)), self.cached}


Names = dict[str, Any]
"""An inode, or True for a folder, by name; None removes one."""


@dataclass(slots=True)
class _Folder:
    durable: Names = field(default_factory=dict)
    pending: list[Names] = field(default_factory=list)

    def outcomes(self) -> Iterator[Names]:
        for is_there in product((False, True), repeat=len(self.pending)):
            names = dict(self.durable)
            for change, reached in zip(self.pending, is_there, strict=True):
                if reached:
                    names |= change
            yield {name: node for name, node in names.items() if node is not None}

    def sync(self) -> None:
        for change in self.pending:
            self.durable |= change
        self.pending.clear()


class Disk:
    """The state of the model after some operations."""

    def __init__(self) -> None:
        self._folders = {"": _Folder()}
        self._files: dict[str, _Inode] = {}

    def apply(self, op: Op) -> None:
        """Carry out one operation."""
        folder, name = os.path.split(op.path)
        match op.kind:
            case "mkdir":
                self._folders[op.path] = _Folder()
                self._folders[folder].pending.append({name: True})
            case "create":
                self._files[op.path] = _Inode()
                self._folders[folder].pending.append({name: self._files[op.path]})
            case "truncate":
                self._files[op.path].cached = b""
            case "write":
                self._files[op.path].cached += op.data
            case "rename":
                inode = self._files.pop(op.path)
                self._files[op.to] = inode
                assert op.to.startswith(f"{folder}/")
                change = {name: None, op.to[len(folder) + 1 :]: inode}
                self._folders[folder].pending.append(change)
            case "unlink":
                self._files.pop(op.path, None)
                self._folders[folder].pending.append({name: None})
            case "fsync" if op.path in self._folders:
                self._folders[op.path].sync()
            case "fsync":
                self._files[op.path].synced = self._files[op.path].cached

    def outcomes(self) -> Iterator[Tree]:
        """Every disk that a power cut now may leave."""
        known = set()
        paths = list(self._folders)
        for choice in product(*(self._folders[path].outcomes() for path in paths)):
            entries = dict(zip(paths, choice, strict=True))
            found = dict(_walk(entries, ""))
            inodes = list({id(inode): inode for inode in found.values()}.values())
            for contents in product(*(inode.outcomes() for inode in inodes)):
                of = {id(inode): data for inode, data in zip(inodes, contents, strict=True)}
                tree = {path: of[id(inode)] for path, inode in found.items()}
                key = tree_key(tree)
                if key not in known:
                    known.add(key)
                    yield tree


def tree_key(tree: Tree) -> tuple[tuple[str, str], ...]:
    """The same for the same disk."""
    return tuple((path, hashlib.sha256(tree[path]).hexdigest()) for path in sorted(tree))


def _walk(entries: Mapping[str, Names], folder: str) -> Iterator[tuple[str, _Inode]]:
    for name, node in entries[folder].items():
        path = f"{folder}/{name}".lstrip("/")
        if node is True:
            yield from _walk(entries, path)
        else:
            yield path, node
