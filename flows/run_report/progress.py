"""How a running flow tells whoever started it in this process how far it is.

The command line draws a bar with it; a flow that Prefect started tells nobody, and its task
runs and artifacts speak for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol

from tasks.labelling.shards import Receipt
from tasks.labelling.worklist import Discovery


class Listener(Protocol):
    """Hears of discovery once and of every shard that is in the database."""

    def begin(self, found: Discovery) -> None:
        """The work list is known."""

    def advance(self, receipt: Receipt) -> None:
        """A shard is in the database."""


class _Nobody:
    def begin(self, found: Discovery) -> None:
        pass

    def advance(self, receipt: Receipt) -> None:
        pass


_listener: ContextVar[Listener | None] = ContextVar("listener", default=None)


def listener() -> Listener:
    """Whoever listens in this context."""
    return _listener.get() or _Nobody()


@contextmanager
def listening(to_whom: Listener) -> Iterator[None]:
    """Have ``to_whom`` hear of flows that run inside the block."""
    token = _listener.set(to_whom)
    try:
        yield
    finally:
        _listener.reset(token)
