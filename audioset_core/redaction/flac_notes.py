"""A FLAC file's notes (tags, pictures, cue sheets) around the sound of another FLAC file.

Source: RFC 9639, section 8
"""

from __future__ import annotations

from collections.abc import Iterator

from audioset_core.file_headers.file_view import FileView

_STREAMINFO, _SEEKTABLE, _INVALID = 0, 3, 127
_MOST_BLOCKS = 10_000


def blocks_of(view: FileView) -> tuple[list[tuple[int, bytes]], int] | None:
    """The blocks of metadata (kind, body) and where the sound begins; None if it is no plain FLAC.

    An ID3 tag before the file is passed over.
    """
    head = view.read(0, 10)
    at = 0
    if head[:3] == b"ID3" and len(head) == 10:
        at = 10 + sum(byte << 7 * place for byte, place in zip(head[6:], (3, 2, 1, 0), strict=True))
    if view.read(at, 4) != b"fLaC":
        return None
    at, found = at + 4, list[tuple[int, bytes]]()
    for _ in range(_MOST_BLOCKS):
        block = view.read(at, 4)
        kind, size = (block[0] & 0x7F, int.from_bytes(block[1:], "big")) if block else (_INVALID, 0)
        body = view.read(at + 4, size)
        if kind == _INVALID or len(block) < 4 or len(body) < size:
            return None
        found.append((kind, body))
        at += 4 + size
        if block[0] & 0x80:
            return found, at
    return None


def with_notes(notes: FileView, sound: FileView) -> Iterator[bytes] | None:
    """The bytes of `sound` with the notes of another file, in parts; None if one is no FLAC.

    The table of places for jumps is left out, since these places are those of the other file.
    """
    source, own = blocks_of(notes), blocks_of(sound)
    if source is None or own is None:
        return None
    kept = [block for block in own[0] if block[0] == _STREAMINFO]
    kept += [block for block in source[0] if block[0] not in (_STREAMINFO, _SEEKTABLE)]
    return _parts(kept, sound, own[1])


def _parts(blocks: list[tuple[int, bytes]], sound: FileView, start: int) -> Iterator[bytes]:
    yield b"fLaC"
    for number, (kind, body) in enumerate(blocks, start=1):
        last = 0x80 if number == len(blocks) else 0
        yield bytes([kind | last]) + len(body).to_bytes(3, "big") + body
    for at in range(start, sound.size_bytes, 1 << 20):
        yield sound.read(at, 1 << 20)
