"""Faults of an Ogg file's pages, which decoders skip without a message.

Source: RFC 3533 (Ogg).
"""

from __future__ import annotations

import zlib
from typing import Literal

from audioset_core.file_headers.file_view import FileView

OggFault = Literal["cut", "damaged", "chained"]

_SEARCH_BYTES = 1 << 16


def n_streams(view: FileView) -> int:
    """How many streams begin together: a video and its sound, or several tracks."""
    at, n = 0, 0
    while (head := view.read(at, 282))[:4] == b"OggS" and len(head) > 26 and head[5] & 0x02:
        n += 1
        at += _length(head)
    return n


def ogg_fault(view: FileView) -> OggFault | None:
    """The first fault of the pages; None if there is none.

    ``damaged``: a page is missing, or its checksum is wrong; decoders leave that page out.
    ``chained``: another stream follows the first; decoders read the first only. ``cut``: the last
    page is missing.
    """
    sequence: dict[bytes, int] = {}
    is_last, has_data, has_sound, at = False, False, False, 0
    while at + 27 <= view.size_bytes:
        head = view.read(at, 282)
        if head[:4] != b"OggS":
            # Between pages this is damage; after the last page some programs write tags.
            return "damaged" if _has_page(view, at) else None if is_last else "cut"
        n_bytes = _length(head)
        if at + n_bytes > view.size_bytes:
            return "cut"
        page = view.read(at, n_bytes)
        flags, serial, number = page[5], page[14:18], int.from_bytes(page[18:22], "little")
        if ogg_checksum(page) != int.from_bytes(page[22:26], "little"):
            return "damaged"
        if flags & 0x02:  # a stream begins
            if has_data:
                return "chained"
        # A recorded live stream has the headers, and then the pages from some moment on.
        elif has_sound and number != sequence.get(serial, -1) + 1:
            return "damaged"
        has_data = has_data or not flags & 0x02
        has_sound = has_sound or int.from_bytes(page[6:14], "little", signed=True) > 0
        sequence[serial] = number
        is_last = bool(flags & 0x04)
        at += n_bytes
    return None if is_last else "cut"


def _length(head: bytes) -> int:
    return 27 + head[26] + sum(head[27 : 27 + head[26]])


def _has_page(view: FileView, at: int) -> bool:
    return b"OggS\0" in view.read(at, _SEARCH_BYTES)


_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def ogg_checksum(page: bytes) -> int:
    """CRC-32 with bits in the reverse order of zlib's, from 0, its own field counted as 0."""
    blank = page[:22] + bytes(4) + page[26:]
    crc = zlib.crc32(blank.translate(_REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int.from_bytes(crc.to_bytes(4, "little").translate(_REVERSED), "big")
