"""Samples written over in a copy of their file, all of whose other bytes stay.

For WAV with its large and big-endian forms, AIFF, Wave64, CAF and AU, where samples lie in one
piece. Which way they are stored in is not read from the header but found: the way that turns what
was decoded into the very bytes of the file.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, BinaryIO

import numpy as np

from audioset_core.arrays import Floats
from audioset_core.audio.mono import StreamInfo
from audioset_core.file_headers.file_view import FileView
from audioset_core.file_headers.stated_sizes import sample_bytes, what_follows
from audioset_core.redaction.treatment import Pieces

Ways = dict[str, Callable[[Floats], np.ndarray[Any, Any]]]

_BEFORE_SAMPLES = {b"FORM": 8, b"caff": 4}
"""Bytes in the chunk of the samples before the first one (AIFF: offset and block size)."""
_PIECE_BYTES = 1 << 20


class NotInPlaceError(Exception):
    """The samples are not stored plainly, or not in one piece."""


def samples_at(view: FileView, info: StreamInfo, n_samples: int) -> int:
    """Where the samples begin.

    Raises:
        NotInPlaceError: as it says, or something besides chunks of notes follows them.
    """
    ways, found = _ways(info.sample_type), sample_bytes(view)
    if not ways or found is None:
        raise NotInPlaceError
    before = _BEFORE_SAMPLES.get(view.read(0, 4), 0)
    n_frame = info.n_channels * _bits(info.sample_type) // 8
    n_left = found.stated - before - n_samples * n_frame
    if not 0 <= n_left < n_frame or found.present < found.stated:
        raise NotInPlaceError
    if what_follows(view, found)[0] not in ("nothing", "chunks"):
        raise NotInPlaceError
    return found.start + before


def write_over(
    view: FileView,
    start: int,
    info: StreamInfo,
    pieces: Pieces,
    file: BinaryIO,
) -> None:
    """Write the file of `view` with other samples; `pieces` are those of `treatment.treated`.

    Raises:
        NotInPlaceError: the bytes are not those that were decoded; what was written is useless.
    """
    ways, at = _ways(info.sample_type), start
    _copy(view, 0, start, file)
    for before, after, part in pieces:
        n_bytes = len(next(iter(ways.values()))(before[:1]).reshape(-1)) * len(before)
        stored = np.frombuffer(view.read(at, n_bytes), np.uint8)
        ways = {k: way for k, way in ways.items() if np.array_equal(way(before).ravel(), stored)}
        if not ways:
            raise NotInPlaceError
        changed = stored.reshape(len(before), -1).copy()
        if part.start < part.stop:
            changed[part] = next(iter(ways.values()))(after[part])
        file.write(changed.tobytes())
        at += n_bytes
    _copy(view, at, view.size_bytes, file)


def _copy(view: FileView, start: int, end: int, file: BinaryIO) -> None:
    for at in range(start, end, _PIECE_BYTES):
        file.write(view.read(at, min(_PIECE_BYTES, end - at)))


def _ways(sample_type: str) -> Ways:
    """The ways in which samples of a type are stored, as functions that give bytes ``[n, m]``."""
    bits = _bits(sample_type)

    def whole(dtype: str, plus: int = 0, shift: int = 0, kept: slice = slice(None)) -> Any:
        def way(samples: Floats) -> np.ndarray[Any, Any]:
            values = np.rint(samples.astype(np.float64) * 2.0 ** (bits - 1)).astype(np.int64) + plus
            raw = np.ascontiguousarray((values << shift).astype(dtype))
            as_bytes = raw.view(np.uint8).reshape(*raw.shape, raw.itemsize)
            return as_bytes[..., kept].reshape(len(raw), -1)

        return way

    def real(dtype: str) -> Any:
        return lambda samples: np.ascontiguousarray(samples.astype(dtype)).view(np.uint8)

    if sample_type.startswith("float"):
        return {order: real(f"{order}f{bits // 8}") for order in "<>"}
    first, last = slice(0, 3), slice(1, 4)
    ways = {
        8: {"u": whole("u1", plus=128), "s": whole("i1")},
        16: {order: whole(f"{order}i2") for order in "<>"},
        24: {"<": whole("<i4", shift=8, kept=last), ">": whole(">i4", shift=8, kept=first)},
        32: {order: whole(f"{order}i4") for order in "<>"},
    }  # fmt: skip
    return ways.get(bits, {})


def _bits(sample_type: str) -> int:
    return int("".join(filter(str.isdigit, sample_type)) or 0)
