"""Progress of a flow for the program that started the flow in this process.

The command line draws a bar with it. A flow that Prefect started has no such listener; its task
runs and artifacts show the progress.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol

from tasks.labelling.shards import Receipt
from tasks.labelling.worklist import Discovery


class Listener(Protocol):
    """Is told of discovery once, and of every shard that is stored."""

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
    """The listener of this context; without one, one that does nothing."""
    return _listener.get() or _Nobody()


@contextmanager
def listening(to_whom: Listener) -> Iterator[None]:
    """Flows inside the block report to ``to_whom``."""
    token = _listener.set(to_whom)
    try:
        yield
    finally:
        _listener.reset(token)
