"""Spans of a file that was labelled: its samples from one place to another, mono or as stored."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from audioset_core.arrays import F32, Floats
from audioset_core.audio.decoders import DecodeOptions
from audioset_core.audio.recording import open_regular
from audioset_core.audio.sandbox import SandboxedDecoder, open_sandboxed
from audioset_core.errors import AudioError, Reason

# Lossy decoders give other samples until they have decoded a while.
_BEFORE_S = 1.0


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
    with opened(file, max(0.0, start_s - _BEFORE_S), is_exact=all_channels) as decoder:
        rate_hz = decoder.info.sample_rate_hz
        first, last = round(start_s * rate_hz), round(end_s * rate_hz)
        at, kept = decoder.first_sample, list[Floats]()
        for block in decoder.all_channels() if all_channels else decoder.blocks():
            kept.append(block[max(0, first - at) : max(0, last - at)])
            at += len(block)
            if at >= last:
                break
    samples: Floats = np.concatenate(kept) if kept else np.empty(0, np.float32)
    if not len(samples):
        raise AudioError(Reason.TRUNCATED, f"there is no sound at {start_s:.1f} s")
    return samples, rate_hz


def with_silence(samples: F32, n_before: int, n_samples: int) -> F32:
    """The samples after `n_before` zeros, and zeros after them up to `n_samples` in all."""
    room = np.zeros(n_samples, np.float32)
    room[n_before : n_before + len(samples)] = samples[: max(0, n_samples - n_before)]
    return room
