"""Spans of a file that was labelled: its samples from one place to another, mono or as stored."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np

from audioset_core.arrays import F32, Floats
from audioset_core.audio.decoders import DecodeOptions
from audioset_core.audio.recording import open_regular
from audioset_core.audio.sandbox import SandboxedDecoder, open_sandboxed
from audioset_core.errors import AudioError, Reason

# Lossy decoders give other samples until they have decoded a while.
_BEFORE_S = 1.0
_WORTH_KEEPING_S = 10.0
_MOST_OPEN = 4


@dataclass(frozen=True, slots=True)
class SeenFile:
    """A file as it was when its clip was labelled; `track`: the one that was.

    ``is_partial``: decoders did not agree on all of it, so nothing of it is skipped.
    """

    path: bytes
    size_bytes: int
    mtime_ns: int
    track: int | str = "default"
    is_partial: bool = False


@contextmanager
def opened(
    file: SeenFile, start_s: float | None, *, is_exact: bool = False
) -> Iterator[SandboxedDecoder]:
    """A decoder from about `start_s` on (None: from the beginning, as when it was labelled).

    Raises:
        AudioError: the file is gone, has changed since it was labelled, or is unreadable.
    """
    fd = open_regular(file.path)
    try:
        now = os.fstat(fd)
        if (now.st_size, now.st_mtime_ns) != (file.size_bytes, file.mtime_ns):
            raise AudioError(Reason.CHANGED, "the file has changed since it was labelled")
        options = DecodeOptions(file.track, is_exact=is_exact)
        decoder = open_sandboxed(fd, now.st_size, options, None if file.is_partial else start_s)
        try:
            yield decoder
        finally:
            decoder.stop_reading()
    except OSError as error:
        raise AudioError(Reason.UNREADABLE, error.strerror or str(error)) from error
    finally:
        os.close(fd)


def read_span(
    file: SeenFile, start_s: float, end_s: float, *, all_channels: bool = False
) -> tuple[Floats, int]:
    """The samples of a span, and their rate in Hz; fewer where the recording ends before.

    Shape: ``[n]``, mono, or with `all_channels` ``[n, n_channels]``, float64

    Raises:
        AudioError: as `opened`, or there is no sound in the span.
    """
    with closing(_Reading(file, start_s, all_channels)) as reading:
        return reading.span(start_s, end_s), reading.rate_hz


class SpanReader:
    """As `read_span`, for one span after the other; safe for several threads.

    Where a format can be read only from its beginning, a few files stay open, so that a later span
    goes on from there.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[SeenFile, bool], _Reading] = OrderedDict()
        self._turns: dict[tuple[SeenFile, bool], AbstractContextManager[Any]] = {}

    def read(
        self, file: SeenFile, start_s: float, end_s: float, *, all_channels: bool = False
    ) -> tuple[Floats, int]:
        """As `read_span`."""
        key = (file, all_channels)
        with self._lock:
            turn = self._turns.setdefault(key, threading.Lock())
        with turn:
            reading = self._taken(key)
            if reading is not None and not reading.may_have(start_s):
                reading.close()
                reading = None
            reading = reading or _Reading(file, start_s, all_channels)
            try:
                found = reading.span(start_s, end_s), reading.rate_hz
            except BaseException:
                reading.close()
                raise
            self._keep(key, reading)
        return found

    def _taken(self, key: tuple[SeenFile, bool]) -> _Reading | None:
        with self._lock:
            return self._kept.pop(key, None)

    def _keep(self, key: tuple[SeenFile, bool], reading: _Reading) -> None:
        left = [reading]
        with self._lock:
            if reading.has_skipped:  # several threads may read it at a time
                self._turns[key] = nullcontext()
            if reading.is_from_beginning and not reading.is_over:
                left = [self._kept[key]] if key in self._kept else []
                self._kept[key] = reading
                while len(self._kept) > _MOST_OPEN:
                    left.append(self._kept.popitem(last=False)[1])
        for each in left:
            each.close()


class _Reading:
    """A file that is being read; keeps the last samples, which the next span may begin with."""

    def __init__(self, file: SeenFile, start_s: float, all_channels: bool) -> None:
        self._stack = ExitStack()
        start_s = max(0.0, start_s - _BEFORE_S)
        opening = opened(file, start_s, is_exact=all_channels)
        decoder = self._stack.enter_context(opening)
        self.rate_hz = decoder.info.sample_rate_hz
        self.has_skipped = decoder.first_sample > 0
        self.is_from_beginning = not decoder.first_sample and start_s > _WORTH_KEEPING_S
        self.is_over = False
        self._blocks = decoder.all_channels() if all_channels else decoder.blocks()
        self._recent: list[Floats] = []
        self._begin = self._end = decoder.first_sample

    def may_have(self, start_s: float) -> bool:
        """Whether what is before `start_s` has not been thrown away."""
        return round(start_s * self.rate_hz) >= self._begin

    def span(self, start_s: float, end_s: float) -> Floats:
        first, last = round(start_s * self.rate_hz), round(end_s * self.rate_hz)
        while self._end < last and not self.is_over:
            block = next(self._blocks, None)
            if block is None:
                self.is_over = True
                break
            self._recent.append(block)
            self._end += len(block)
            # A few blocks before the span, since the next one may overlap with it.
            least = first - round(_BEFORE_S * self.rate_hz)
            while self._recent and self._begin + len(self._recent[0]) < least:
                self._begin += len(self._recent.pop(0))
        samples = np.concatenate(self._recent) if self._recent else np.empty(0, np.float32)
        found: Floats = samples[max(0, first - self._begin) : max(0, last - self._begin)]
        if not len(found):
            raise AudioError(Reason.TRUNCATED, f"there is no sound at {start_s:.1f} s")
        return found

    def close(self) -> None:
        self._stack.close()


def with_silence(samples: F32, n_before: int, n_samples: int) -> F32:
    """The samples after `n_before` zeros, and zeros after them up to `n_samples` in all."""
    room = np.zeros(n_samples, np.float32)
    room[n_before : n_before + len(samples)] = samples[: max(0, n_samples - n_before)]
    return room
