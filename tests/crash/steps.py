"""Every step of the commit protocol, seen from below: system calls on files, statements, commits.

Production code is left as it is: the functions of `os` that it calls, and SQLAlchemy's events, lead
to a handler. (PostgreSQL's and SQLite's own files are their business.)
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, event


@dataclass(frozen=True, slots=True)
class Step:
    """One step; `half` does the first half of a write, where the step is one."""

    kind: str
    arguments: tuple[Any, ...]
    path: Path | None = None
    half: Callable[[], Any] | None = None

    @property
    def name(self) -> str:
        """What a person calls it: ``fsync file``, ``sql INSERT``."""
        if self.kind == "sql":
            return f"sql {str(self.arguments[0]).split()[0]}"
        if self.kind == "fsync":
            return "fsync folder" if self.path is not None and self.path.is_dir() else "fsync file"
        return self.kind


Handler = Callable[[Step, Callable[[], Any]], Any]
"""Is given each step, and a function that carries it out."""

CALLS = ("open", "write", "fsync", "replace", "mkdir", "unlink")


@contextmanager
def handled(handler: Handler) -> Iterator[None]:
    """Lead every step inside the block to the handler."""
    real = {name: getattr(os, name) for name in CALLS}

    def wrapper(name: str) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            first = arguments[0]
            path = _path_of(first)
            half = None
            if name == "write":
                half = lambda: real["write"](first, bytes(arguments[1])[: len(arguments[1]) // 2])  # noqa: E731
            step = Step(name, arguments, path, half)
            return handler(step, lambda: real[name](*arguments, **named))

        return call

    def statement(_conn: Any, _cursor: Any, text: str, *_: Any) -> None:
        handler(Step("sql", (text,)), lambda: None)

    def ending(kind: str) -> Callable[..., None]:
        return lambda _conn: handler(Step(kind, ()), lambda: None)

    listeners = {
        "before_cursor_execute": statement,
        **{kind: ending(kind) for kind in ("begin", "commit", "rollback")},
    }
    for name, function in listeners.items():
        event.listen(Engine, name, function)
    for name in CALLS:
        setattr(os, name, wrapper(name))
    try:
        yield
    finally:
        for name in CALLS:
            setattr(os, name, real[name])
        for name, function in listeners.items():
            event.remove(Engine, name, function)


def _path_of(first: Any) -> Path:
    if isinstance(first, int):
        return Path(f"/proc/self/fd/{first}").readlink()
    return Path(os.fspath(first))
