"""Answers that take long to compute, kept for a while; each is computed once at a time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any

_COSTS = 20.0
"""Times its own cost, and at most `_LONGEST_S`, an answer may be behind what changes meanwhile."""
_LONGEST_S = 3600.0
_MOST = 64


@dataclass(slots=True)
class _Answer:
    lock: threading.Lock = field(default_factory=threading.Lock)
    value: Any = None
    mark: Hashable = None
    made_at: float = -_LONGEST_S
    cost_s: float = 0.0


class StillCountingError(Exception):
    """The first answer of this key is being computed for somebody else: ask again in a while."""


class Kept:
    """Answers by key. `now` is a clock of seconds, for tests."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._answers: dict[Hashable, _Answer] = {}

    def answer(self, key: Hashable, mark: Hashable, make: Callable[[], Any]) -> Any:
        """What `make` gives, or gave a while ago.

        `mark` changes with what the answer depends on: an old answer of the same mark is kept for
        an hour, one of another mark for as long as the cost of computing it is worth. While a new
        one is computed for somebody else, the old one is given: nobody waits, so that a page that
        is loaded again and again does not take every thread.

        Raises:
            StillCountingError: there is no old one.
        """
        with self._lock:
            if key not in self._answers and len(self._answers) >= _MOST:
                self._answers.pop(next(iter(self._answers)))
            own = self._answers.setdefault(key, _Answer())
        if not own.lock.acquire(blocking=False):
            if own.mark is None:
                raise StillCountingError
            return own.value
        try:
            began = self._now()
            worth_s = _LONGEST_S if mark == own.mark else min(_LONGEST_S, _COSTS * own.cost_s)
            if began - own.made_at >= worth_s:
                own.value = make()
                own.mark, own.made_at = mark, self._now()
                own.cost_s = own.made_at - began
            return own.value
        finally:
            own.lock.release()
