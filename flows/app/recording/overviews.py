"""Overviews of whole recordings, each computed once, in memory, when it is first looked at.

They are kept in memory rather than in the home, which may be read-only or on another machine.
One is computed at a time; one that nobody looks at any more is given up.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Iterable, Sequence

from audioset_core.errors import AudioError, Reason
from audioset_core.previews.spans import SeenFile
from audioset_core.previews.zoom_columns import (
    Columns,
    all_columns,
    n_columns_of,
    overview_level,
)

_KEPT_BYTES = 256_000_000
_LOOKED_AT_S = 30.0
_END_S = 5.0
GONE = AudioError(Reason.VANISHED, "the recording is no longer anywhere")


class Overview:
    """The columns of a whole recording, as far as they are known by now."""

    def __init__(self, n_samples: int) -> None:
        self.level = overview_level(n_samples)
        self.columns = Columns.empty(n_columns_of(n_samples, self.level))
        self.n_done = 0
        self.is_done = False
        self.error: AudioError | None = None
        self.looked_at = time.monotonic()

    @property
    def n_bytes(self) -> int:
        """Memory that the columns take."""
        return sum(x.nbytes for x in (self.columns.low, self.columns.high, self.columns.bands))

    @property
    def done(self) -> float:
        """Which part is known, from 0 to 1."""
        return 1.0 if self.is_done else min(0.999, self.n_done / len(self.columns.low))

    def take(self, pieces: Iterable[Columns], is_closing: threading.Event) -> None:
        """Take in the columns of a file as they come; gives up when nobody looks any more."""
        self.n_done = 0
        for piece in pieces:
            last = min(self.n_done + len(piece.low), len(self.columns.low))
            n = last - self.n_done
            for name in ("low", "high", "bands"):
                getattr(self.columns, name)[self.n_done : last] = getattr(piece, name)[:n]
            self.n_done = last
            if is_closing.is_set() or time.monotonic() - self.looked_at > _LOOKED_AT_S:
                raise _GivenUpError


class _GivenUpError(Exception):
    """Nobody looks at the picture that is being computed."""


class Overviews:
    """The overviews that were looked at last; safe for several threads."""

    def __init__(self) -> None:
        self._lock, self._turn = threading.Lock(), threading.Lock()
        self._is_closing = threading.Event()
        self._kept: OrderedDict[str, Overview] = OrderedDict()

    def of(self, clip: str, n_samples: int, files: Sequence[SeenFile]) -> Overview:
        """The overview of a clip, which may still be growing.

        Raises:
            AudioError: none of the files can be read.
        """
        with self._lock:
            found = self._kept.get(clip)
            if found is None:
                found = self._kept[clip] = Overview(n_samples)
                threading.Thread(
                    target=self._compute, args=(clip, found, files), daemon=True
                ).start()
            self._kept.move_to_end(clip)
            found.looked_at = time.monotonic()
            while len(self._kept) > 1 and sum(x.n_bytes for x in self._kept.values()) > _KEPT_BYTES:
                self._kept.popitem(last=False)
        if found.error is not None:
            self._forget(clip, found)  # the disk may be there the next time
            raise found.error
        return found

    def close(self) -> None:
        """Give up what is being computed: a thread in native code would end the process badly."""
        self._is_closing.set()
        self._turn.acquire(timeout=_END_S)

    def _compute(self, clip: str, overview: Overview, files: Sequence[SeenFile]) -> None:
        error = GONE
        with self._turn:
            for file in files:
                try:
                    overview.take(all_columns(file, overview.level), self._is_closing)
                except AudioError as failed:
                    error = failed
                except _GivenUpError:
                    self._forget(clip, overview)
                    return
                else:
                    break
            overview.is_done = overview.n_done > 0
            overview.error = None if overview.is_done else error

    def _forget(self, clip: str, overview: Overview) -> None:
        with self._lock:
            if self._kept.get(clip) is overview:
                del self._kept[clip]
