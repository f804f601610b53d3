"""The part of a file that a decoder sees: without tags around it, with a corrected size.

Programs write ID3 and APE tags before and after formats that have no tags, recorders leave zeros at
the end, and a size field may be wrong. Decoders fail on each of these. Here such bytes are left out
or replaced in what the decoder reads; the file itself stays unchanged.
"""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from audioset_core.file_headers.signatures import kind_of

_ZEROS_BYTES = 1 << 20
"""At most so many zeros before a recording are skipped; more count as part of the file."""
_LEAST_ZEROS_BYTES = 32
"""Fewer may be the beginning of a size or a start code."""
_MOST_TAGS = 10_000
_READ_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class FileView:
    """Bytes ``start`` to ``end`` of an open file, some of them replaced, after the bytes ``lead``.

    ``patches`` maps positions in the view to the bytes that replace those of the file.
    """

    fd: int
    start: int
    end: int
    patches: Mapping[int, bytes] = field(default_factory=dict)
    lead: bytes = b""

    @property
    def size_bytes(self) -> int:
        """How many bytes the view has."""
        return len(self.lead) + self.end - self.start

    def read(self, at: int, n_bytes: int) -> bytes:
        """Up to so many bytes from a position in the view."""
        n_bytes = min(n_bytes, len(self.lead) + self.end - self.start - at)
        if n_bytes <= 0:
            return b""
        if not self.lead and not self.patches:
            return os.pread(self.fd, n_bytes, self.start + at)
        data = self.lead[at : at + n_bytes]
        if len(data) < n_bytes:
            place = self.start + at + len(data) - len(self.lead)
            data += os.pread(self.fd, n_bytes - len(data), place)
        for place, value in self.patches.items():
            if at - len(value) < place < at + len(data):
                data = _overlaid(data, place - at, value)
        return data

    def patched(self, at: int, value: bytes) -> FileView:
        """The same view with other bytes at a position."""
        return replace(self, patches={**self.patches, at: value})

    def open(self) -> ViewReader:
        """A file object that reads the view; each has its own position."""
        return ViewReader(self)


def _overlaid(data: bytes, offset: int, value: bytes) -> bytes:
    """The data with `value` written at an offset; what is outside the data is cut off."""
    first, last = max(0, offset), min(len(data), offset + len(value))
    return data[:first] + value[first - offset : last - offset] + data[last:]


class ViewReader(io.RawIOBase):
    """A `FileView` as a file object. It has no name, so decoders cannot go by the ending."""

    def __init__(self, view: FileView) -> None:
        self._view, self._at = view, 0

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes."""
        return True

    def read(self, n_bytes: int | None = -1) -> bytes:
        """Up to so many bytes; without a number, all that are left."""
        wanted = self._view.size_bytes if n_bytes is None or n_bytes < 0 else n_bytes
        data = self._view.read(self._at, wanted)
        self._at += len(data)
        return data

    def readinto(self, room: object) -> int:
        """Fill the buffer; returns how many bytes were read."""
        target = memoryview(room).cast("B")  # type: ignore[arg-type]
        data = self.read(len(target))
        target[: len(data)] = data
        return len(data)

    def tell(self) -> int:
        """The position."""
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a position; returns it."""
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._view.size_bytes}[whence]
        self._at = max(0, start + offset)
        return self._at


def without_tags(fd: int, size_bytes: int) -> FileView:
    """The file without zeros and ID3v2 tags at its beginning, and ID3v1 and APE tags at its end.

    Source: id3.org (ID3v1; ID3v2.4.0, 3.1 and 3.4), wiki.hydrogenaudio.org (APEv2 specification).
    """
    view = FileView(fd, 0, size_bytes)
    start = _after_zeros(view, _after_id3(view, 0))
    start = _after_id3(view, start) if start else 0
    if start >= size_bytes:
        return view  # the file has nothing but tags: the decoder will refuse it
    return FileView(fd, start, max(start, _before_tags(view)))


def _after_id3(view: FileView, at: int) -> int:
    for _ in range(_MOST_TAGS):
        tag = view.read(at, 10)
        if tag[:3] != b"ID3" or len(tag) < 10 or max(tag[6:]) >= 0x80:
            break
        size = sum(byte << shift for byte, shift in zip(tag[6:], (21, 14, 7, 0), strict=True))
        at += 10 + size + (10 if tag[5] & 0x10 else 0)  # a footer
    return at


def _after_zeros(view: FileView, at: int) -> int:
    """The position after a row of zeros; the given position if there are too many zeros."""
    for start in range(at, at + _ZEROS_BYTES, _READ_BYTES):
        data = view.read(start, _READ_BYTES)
        rest = data.lstrip(b"\0")
        if rest or not data:
            first = start + len(data) - len(rest)
            return _beginning(view, first) if rest and first - at >= _LEAST_ZEROS_BYTES else at
    return at


def _beginning(view: FileView, first: int) -> int:
    """Where a format begins, whose own first bytes may be zeros, up to three."""
    return next((at for at in range(first - 3, first) if kind_of(view.read(at, 64))), first)


def without_zeros_behind(view: FileView, n_kept: int) -> FileView:
    """The view without the zeros at its end, except for `n_kept` that may belong to a frame."""
    end = view.size_bytes
    while end > 0:
        data = view.read(max(0, end - _READ_BYTES), min(end, _READ_BYTES))
        kept = len(data.rstrip(b"\0"))
        end -= len(data) - kept
        if kept:
            break
    n_zeros = view.size_bytes - end - n_kept
    return view if n_zeros < _LEAST_ZEROS_BYTES else replace(view, end=view.end - n_zeros)


def _before_tags(view: FileView) -> int:
    """Where the tags at the end begin."""
    end = view.size_bytes
    for _ in range(4):
        if view.read(max(0, end - 128), 3) == b"TAG" and end >= 128:
            end -= 128
        elif (foot := view.read(max(0, end - 32), 32))[:8] == b"APETAGEX" and end >= 32:
            size = int.from_bytes(foot[12:16], "little")
            has_header = int.from_bytes(foot[20:24], "little") >> 31
            size += 32 * has_header
            if not 32 <= size <= end:
                break
            end -= size
        else:
            break
    return end
