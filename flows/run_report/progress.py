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


lasting_server: ContextVar[bool] = ContextVar("lasting_server", default=True)
"""Whether the Prefect server that runs report to goes on when this process ends."""

_listeners: ContextVar[tuple[Listener, ...]] = ContextVar("listeners", default=())


def listeners() -> tuple[Listener, ...]:
    """Those that listen in this context."""
    return _listeners.get()


@contextmanager
def listening(to_whom: Listener) -> Iterator[None]:
    """Flows inside the block report to ``to_whom``."""
    token = _listeners.set((to_whom,))
    try:
        yield
    finally:
        _listeners.reset(token)
