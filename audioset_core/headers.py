"""What containers state about their own size, to tell a whole file from one cut short.

libsndfile and FFmpeg play what is there without a word, and libsndfile's log, which names the
difference for some formats, is cut off after 2 KB of other chunks.

Source: RIFF and AIFF-C (EA IFF 85), EBU Tech 3306 (RF64), Sony Wave64, Apple's CAF and Sun's AU
specifications, RFC 8794 (EBML), RFC 3533 (Ogg).
"""

from __future__ import annotations

import os
import zlib
from typing import Literal

OggFault = Literal["cut", "damaged", "chained"]

_MAX_CHUNKS = 10_000
_MP3_SLACK_BYTES = 1 << 16
_EBML, _SEGMENT = b"\x1aE\xdf\xa3", b"\x18S\x80g"


def stated_size(fd: int, size_bytes: int) -> tuple[int, int] | None:
    """(stated, present) bytes of the samples, or None where the header makes no promise."""
    head = os.pread(fd, 128, 0)
    magic = head[:4]
    if magic in (b"RIFF", b"RIFX", b"FORM", b"RF64"):
        stated, start = _riff_chunk(fd, head)
    elif magic == b"riff":
        stated, start = _wave64_chunk(fd)
    elif magic == b"caff":
        stated, start = _caf_chunk(fd)
    elif magic == b".snd":
        stated, start = int.from_bytes(head[8:12], "big"), int.from_bytes(head[4:8], "big")
    elif magic == _EBML:
        stated, start = _matroska_segment(head)
    else:
        return None
    return (stated, max(0, size_bytes - start)) if _is_promise(stated) else None


def ogg_fault(fd: int, size_bytes: int) -> OggFault | None:
    """What is wrong with an Ogg file's pages; libsndfile passes over it without a word.

    A page whose checksum is wrong or that is missing is left out, and of several streams one
    behind the other only the first is read.
    """
    sequence: dict[bytes, int] = {}
    is_last, has_data, has_sound, at = False, False, False, 0
    while at + 27 <= size_bytes:
        head = os.pread(fd, 282, at)
        n_segments = head[26] if len(head) > 26 and head[:4] == b"OggS" else -1
        if n_segments < 0:
            break  # tags that some programs put behind the last page
        n_bytes = 27 + n_segments + sum(head[27 : 27 + n_segments])
        if at + n_bytes > size_bytes:
            return "cut"
        page = os.pread(fd, n_bytes, at)
        flags, serial, number = page[5], page[14:18], int.from_bytes(page[18:22], "little")
        if _ogg_checksum(page) != int.from_bytes(page[22:26], "little"):
            return "damaged"
        if flags & 0x02:  # a stream begins
            if has_data:
                return "chained"
        # Who records a live stream has its headers, and then the pages of the moment.
        elif has_sound and number != sequence.get(serial, -1) + 1:
            return "damaged"
        has_data = has_data or not flags & 0x02
        has_sound = has_sound or int.from_bytes(page[6:14], "little", signed=True) > 0
        sequence[serial] = number
        is_last = bool(flags & 0x04)
        at += n_bytes
    return None if is_last else "cut"


def mp3_goes_on(fd: int, size_bytes: int) -> bool:
    """Whether much more MP3 follows where the first frame says that it ends.

    That is where decoders stop: of MP3 files joined end to end they play the first.
    """
    at = 0
    while (tag := os.pread(fd, 10, at))[:3] == b"ID3":
        at += 10 + sum(byte << shift for byte, shift in zip(tag[6:], (21, 14, 7, 0), strict=False))
    head = os.pread(fd, 64, at)
    found = max(head.find(b"Xing"), head.find(b"Info"))
    if found < 0 or len(head) < found + 16 or not head[found + 7] & 0x02:
        return False
    field = found + 8 + 4 * (head[found + 7] & 0x01)
    stated = int.from_bytes(head[field : field + 4], "big")
    if size_bytes - at - stated < max(_MP3_SLACK_BYTES, stated // 20):
        return False
    after = os.pread(fd, 4096, at + stated)
    return any(_is_same_mp3(head, after[n:]) for n in range(len(after) - 4))


def _is_same_mp3(head: bytes, other: bytes) -> bool:
    """Whether both begin as frames of the same version, layer and rate."""
    return other[0] == 0xFF and other[1] & 0xFE == head[1] & 0xFE and other[2] & 12 == head[2] & 12


_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def _ogg_checksum(page: bytes) -> int:
    """CRC-32 with the bits the other way round than zlib's, from 0, the checksum itself as 0."""
    blank = page[:22] + bytes(4) + page[26:]
    crc = zlib.crc32(blank.translate(_REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int.from_bytes(crc.to_bytes(4, "little").translate(_REVERSED), "big")


def _is_promise(size: int) -> bool:
    """Not what writers to a pipe leave behind: 0, or (nearly) the largest size there is.

    SoX states 0x7FFFF000 or a little less, arecord 0x7FFFFF00, FFmpeg 0xFFFFFFFF.
    """
    return 0 < size < 1 << 56 and not any(
        top - 0x2000 <= size <= top for top in (1 << 31, (1 << 32) - 1)
    )


# Each of these answers (stated bytes, where they begin); (0, 0) where nothing is stated.


def _riff_chunk(fd: int, head: bytes) -> tuple[int, int]:
    wanted = b"SSND" if head[:4] == b"FORM" else b"data"
    at = 12
    for _ in range(_MAX_CHUNKS):
        chunk = os.pread(fd, 8, at)
        if len(chunk) < 8:
            break
        size = int.from_bytes(chunk[4:], "big" if head[:4] in (b"FORM", b"RIFX") else "little")
        if chunk[:4] == wanted:
            if head[:4] == b"RF64" and size == 0xFFFFFFFF and head[12:16] == b"ds64":
                size = int.from_bytes(head[28:36], "little")
            return size, at + 8
        at += 8 + size + size % 2
    return 0, 0


def _wave64_chunk(fd: int) -> tuple[int, int]:
    at = 40
    for _ in range(_MAX_CHUNKS):
        chunk = os.pread(fd, 24, at)
        size = int.from_bytes(chunk[16:], "little")  # counts these 24 bytes
        if len(chunk) < 24 or not 24 <= size < 1 << 56:
            break
        if chunk[:4] == b"data":
            return size - 24, at + 24
        at += size + -size % 8
    return 0, 0


def _caf_chunk(fd: int) -> tuple[int, int]:
    at = 8
    for _ in range(_MAX_CHUNKS):
        chunk = os.pread(fd, 12, at)
        size = int.from_bytes(chunk[4:], "big")  # -1: up to the end of the file
        if len(chunk) < 12 or (size >= 1 << 56 and chunk[:4] != b"data"):
            break
        if chunk[:4] == b"data":
            return size, at + 12
        at += 12 + size
    return 0, 0


def _matroska_segment(head: bytes) -> tuple[int, int]:
    """The segment is everything after the EBML header, unless it is a live stream."""
    size, at = _ebml_size(head, len(_EBML))
    at += size
    if head[at : at + 4] != _SEGMENT:
        return 0, 0
    return _ebml_size(head, at + 4)


def _ebml_size(head: bytes, at: int) -> tuple[int, int]:
    """(value, what follows it) of a variable-length integer; all ones mean "unknown"."""
    first = head[at] if at < len(head) else 0
    if not first:
        return 0, at
    n_bytes = 9 - first.bit_length()
    value = int.from_bytes(head[at : at + n_bytes], "big") & ((1 << 7 * n_bytes) - 1)
    return (0 if value == (1 << 7 * n_bytes) - 1 else value), at + n_bytes
