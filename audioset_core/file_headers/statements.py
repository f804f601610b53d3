"""What a recording says of itself beside the sound: chunks, tags and comments, as plain text.

Every reader gets bytes that were cut out of the file here, and never the file itself, so that a
size that lies is no longer than what is read, and pictures are passed over unread. ID3 and APE
tags are parsed by mutagen, which is imported where a file has one. The other forms are lists of
sizes and texts, for which the libraries at hand are worse than a few lines: guano refuses a chunk
with one line without a colon, metamoth reads UTC-3:30 as UTC-2:30 and knows neither milliseconds
nor newer endings, and wavinfo reads text as ASCII or not at all, and imports lxml (12 MB).

Source: EBU Tech 3285 (bext), ixml.info (iXML 3.01), GUANO 1.0 (guano-md.org), AudioMoth firmware
(``setHeaderComment``), Wildlife Acoustics ``wa_meta.h`` 1.0 (wamd), xiph.org (Vorbis comments),
RFC 9639 (FLAC), RFC 3533 (Ogg).
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timedelta
from functools import partial
from importlib import import_module
from io import BytesIO
from itertools import chain, islice
from typing import Any

from audioset_core.file_headers.file_view import FileView
from audioset_core.file_headers.stated_sizes import iff_chunks
from audioset_core.records import Statement

_MOST_BYTES, _MOST_TAG_BYTES = 1 << 18, 1 << 23
"""Of a chunk no more is read, and of a tag that may have pictures among its texts."""
MOST_STATEMENTS = 256
"""Of a file so many are kept."""
_MOST_CHARS, _MOST_DEPTH, _DAY_S = 1_000, 32, 86_400
_TIME_EXPANSION, _APE_TEXT = 15, 0
_MOST_PARTS = 20_000
"""Blocks and pages that are passed while looking for a comment."""
_BEXT = struct.Struct("<256s32s32s10s8sQH64s190x")
_WAMD = {
    1: "model", 2: "serial", 3: "firmware", 4: "name", 5: "start time", 6: "GPS", 8: "software",
    10: "notes", 11: "auto id", 12: "manual id", 15: "time expansion", 18: "microphone",
    19: "sensitivity", 20: "position", 21: "temperature", 22: "external temperature",
    23: "humidity", 24: "light",
}  # fmt: skip
_MOTH = re.compile(r"Recorded at \d\d:\d\d:\d\d.*?(?:by \w*Moth|during deployment)\b")
_OF_MOTH = {
    "device": r"Moth(?:-[\w-]+)? ([0-9A-Fa-f]{16})", "deployment": r"deployment ([0-9A-Fa-f]{16})",
    "gain": r"at (?:gain setting )?([\w-]+?)(?: gain(?: setting)?)? while",
    "battery": r"battery (?:state )?was ((?:less than |greater than |[<>] ?)?[\d.]+V)",
    "temperature": r"temperature was (-?[\d.]+C)", "microphone": r"using (external) microphone",
    "stopped": r"Recording (?:cancelled before completion|stopped) due to ([^.]+)",
}  # fmt: skip
# What no database or terminal takes as text: controls, halves of pairs, changes of direction.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff\u2028-\u202e\u2066-\u2069\ufffe\uffff]+")

_Pairs = Iterable[tuple[str, str]]
_Part = tuple[str, Callable[[bytes], _Pairs], bytes]
"""Where something stands, what reads it, and its bytes."""


def statements(view: FileView, kind: str | None, size_bytes: int) -> tuple[Statement, ...]:
    """Everything that a file states beside its sound, in the order of the file; never an error.

    The view is the file without tags around it, which are read from the file of `size_bytes` bytes.
    What cannot be read is a statement with the key ``not readable``.
    """
    found: list[Statement] = []
    parts = _INSIDE.get(kind or "", _nothing)(view)
    for source, reader, data in chain(parts, _around(FileView(view.fd, 0, size_bytes))):
        found += stated(source, _all_of(reader, data))
        if len(data) in (_MOST_BYTES, _MOST_TAG_BYTES):
            found += stated(source, [("left out", f"what is behind the first {len(data):,} bytes")])
        if len(found) > MOST_STATEMENTS:
            break
    return limited(found)


def stated(source: str, pairs: _Pairs) -> list[Statement]:
    """Statements of (key, value), as clean lines of text; empty values are none."""
    cleaned = ((_line(key, 100), _line(value)) for key, value in pairs)
    return [Statement(source, key, value) for key, value in cleaned if key and value]


def limited(found: Iterable[Statement]) -> tuple[Statement, ...]:
    """As many statements as are kept; the last one says if there are more."""
    kept = tuple(found)
    if len(kept) <= MOST_STATEMENTS:
        return kept
    left = Statement("file", "left out", f"everything after {MOST_STATEMENTS} statements")
    return (*kept[:MOST_STATEMENTS], left)


def _all_of(reader: Callable[[bytes], _Pairs], data: bytes) -> Iterator[tuple[str, str]]:
    """What the reader finds until it fails, and how it failed. Parsers of damage raise anything."""
    try:
        yield from islice(reader(data), MOST_STATEMENTS + 1)
    except Exception as error:
        yield "not readable", f"{error or type(error).__name__}"


def _line(text: str, n_chars: int = _MOST_CHARS) -> str:
    text = " ".join(_CONTROL.sub(" ", text[: 4 * n_chars]).split())
    return text if len(text) <= n_chars else text[: n_chars - 1] + "\u2026"


def _text(data: bytes) -> str:
    """Text up to its NUL. Programs write UTF-8, UTF-16 with its mark, or one byte a character."""
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return data.decode("utf-16", "replace").partition("\0")[0]
    data = data.removeprefix(b"\xef\xbb\xbf").partition(b"\0")[0]
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data.decode("latin-1")


def _int(data: bytes) -> int:
    return int.from_bytes(data, "little")


def _nothing(_: FileView) -> Iterable[_Part]:
    return ()


def _chunks(view: FileView) -> Iterator[_Part]:
    """Chunks of WAV and AIFF."""
    chunks = list(iff_chunks(view))
    rate_hz = next((_int(view.read(at + 4, 4)) for name, _, at in chunks if name == b"fmt "), 0)
    for name, size, at in chunks:
        if name == b"bext":
            yield "bext", partial(_bext, rate_hz=rate_hz), view.read(at, min(size, _MOST_BYTES))
        elif name in _CHUNKS:
            most = _MOST_TAG_BYTES if name in _ID3 else _MOST_BYTES
            yield (*_CHUNKS[name], view.read(at, min(size, most)))


def _blocks(view: FileView) -> Iterator[_Part]:
    """Blocks of FLAC, where a WAV file's chunks may be kept, too."""
    at, is_last = 4, False
    for _ in range(_MOST_PARTS):
        head = view.read(at, 4)
        if is_last or len(head) < 4:
            return
        is_last, kind, size = head[0] >> 7 == 1, head[0] & 0x7F, int.from_bytes(head[1:], "big")
        if kind == 4:
            yield "Vorbis", _vorbis, view.read(at + 4, min(size, _MOST_BYTES))
        elif kind == 2 and view.read(at + 4, 4) == b"riff":
            name, data = view.read(at + 8, 4), view.read(at + 16, min(size - 12, _MOST_BYTES))
            if name == b"bext":
                yield "bext", partial(_bext, rate_hz=0), data
            elif name in _CHUNKS:
                yield (*_CHUNKS[name], data)
        at += 4 + size


def _packet(view: FileView) -> Iterator[_Part]:
    """The second packet of an Ogg file's first stream: its comments."""
    at, packets, serial = 0, [bytearray()], view.read(14, 4)
    for _ in range(_MOST_PARTS):
        head = view.read(at, 282)
        if head[:4] != b"OggS" or len(head) < 28 or len(packets) > 2:
            break
        lacing = head[27 : 27 + head[26]]
        at += 27 + len(lacing)
        if head[14:18] == serial and len(packets[-1]) < _MOST_TAG_BYTES:
            body, start = view.read(at, sum(lacing)), 0
            for size in lacing:
                packets[-1] += body[start : start + size]
                start += size
                if size < 255:
                    packets.append(bytearray())
        elif head[14:18] == serial:
            break
        at += sum(lacing)
    comments = bytes(packets[1][:_MOST_TAG_BYTES]) if len(packets) > 1 else b""
    marks = {b"\x03": 7, b"O": 8, b"\x04": 4, b"\x84": 4}  # Vorbis, Opus, FLAC; Speex has none
    if comments:
        yield "Vorbis", _vorbis, comments[marks.get(comments[:1], 0) :]


def _around(whole: FileView) -> Iterator[_Part]:
    """Tags before and behind any format."""
    head, end = whole.read(0, 10), whole.size_bytes
    if head[:3] == b"ID3":
        yield "ID3", _id3, whole.read(0, min(10 + _synchsafe(head[6:]), _MOST_TAG_BYTES))
    if (old := whole.read(max(0, end - 128), 128))[:3] == b"TAG":
        yield "ID3", _id3v1, old
        end -= 128
    foot = whole.read(max(0, end - 32), 32)
    if foot[:8] == b"APETAGEX":
        has_header = _int(foot[20:24]) >> 31
        size = _int(foot[12:16]) + 32 * has_header
        if not 32 <= size < _MOST_TAG_BYTES:
            yield "APE", _refused, foot
        else:
            yield "APE", _ape, whole.read(max(0, end - size), size)


def _refused(data: bytes) -> _Pairs:
    yield "not readable", f"a tag that states {_int(data[12:16]):,} bytes"


def _guano(data: bytes) -> _Pairs:
    text = data.replace(b"\0", b"").decode("utf-8", "replace")
    for line in text.splitlines():
        key, _, value = line.partition(":")
        yield key.strip(), value.replace("\\n", " ")


def _bext(data: bytes, rate_hz: int) -> _Pairs:
    """The fixed fields, with date and time as one."""
    fields = _BEXT.unpack(data[: _BEXT.size].ljust(_BEXT.size, b"\0"))
    about, by, reference, day, time, since_midnight, _, umid = fields
    yield from zip(
        ("Description", "Originator", "OriginatorReference", "OriginationDate"),
        (_text(about), _text(by), _text(reference), f"{_text(day)} {_text(time)}".strip()),
        strict=True,
    )
    if since_midnight:
        after_s = since_midnight / rate_hz if rate_hz else _DAY_S
        clock = datetime.min + timedelta(seconds=after_s % _DAY_S)
        when = f": {clock.time().isoformat('milliseconds')}" if after_s < _DAY_S else ""
        yield "TimeReference", f"{since_midnight} samples{when}"
    yield "UMID", umid.hex() if any(umid) else ""
    yield "CodingHistory", _text(data[_BEXT.size :])


def _ixml(data: bytes) -> _Pairs:
    """Every element with text, by its path. Entities and document types are refused.

    Expat reports elements as they end, so that those before an error are kept.
    """
    from xml.parsers import expat

    parser = expat.ParserCreate("utf-8")
    path: list[str] = []
    texts: list[str] = [""]
    found: list[tuple[str, str]] = []

    def begin(name: str, _: object) -> None:
        path.append(name)
        texts.append("")
        if len(path) > _MOST_DEPTH or len(found) > MOST_STATEMENTS:
            raise ValueError("more elements than are read")

    def end(_: str) -> None:
        found.append(("/".join(path[1:]), texts.pop()))
        path.pop()

    def text(part: str) -> None:
        texts[-1] += part[:_MOST_CHARS] if len(texts[-1]) < _MOST_CHARS else ""

    def refuse(*_: object) -> None:
        raise ValueError("a document type or entities: refused")

    parser.StartElementHandler, parser.EndElementHandler = begin, end
    parser.CharacterDataHandler = text
    parser.StartDoctypeDeclHandler = parser.EntityDeclHandler = refuse
    failed = None
    try:
        parser.Parse(_text(data).strip().encode("utf-8", "replace"), True)
    except (expat.ExpatError, ValueError) as error:
        failed = error if path or not found else None  # recorders leave bytes behind the end
    said = dict(reversed(found))
    day, time = (said.get(f"BEXT/BWF_ORIGINATION_{of}", "").strip() for of in ("DATE", "TIME"))
    yield from ((k, f"{day} {time}" if k.endswith("ORIGINATION_DATE") else v) for k, v in found)
    if failed is not None:
        raise failed


def _info(data: bytes) -> _Pairs:
    if data[:4] != b"INFO":
        return
    at = 4
    while at + 8 <= len(data):
        name, size = data[at : at + 4], _int(data[at + 4 : at + 8])
        yield name.decode("latin-1").strip(), _text(data[at + 8 : at + 8 + size])
        at += 8 + size
        at += size % 2 if not data[at : at + 1].isupper() else 0  # some programs do not pad


def _wamd(data: bytes) -> _Pairs:
    at = 0
    while at + 6 <= len(data):
        tag, size = _int(data[at : at + 2]), _int(data[at + 2 : at + 6])
        value, at = data[at + 6 : at + 6 + size], at + 6 + size
        if tag in _WAMD:
            yield _WAMD[tag], str(_int(value)) if tag == _TIME_EXPANSION else _text(value)


def _vorbis(data: bytes) -> _Pairs:
    """Comments in Vorbis's form, without pictures."""
    at = 4 + _int(data[:4])
    yield "vendor", _text(data[4:at])
    n_comments, at = _int(data[at : at + 4]), at + 4
    for _ in range(n_comments):
        if at + 4 > len(data):
            yield "not readable", "the list of comments is cut, or longer than what is read"
            return
        size = _int(data[at : at + 4])
        key, _, value = data[at + 4 : at + 4 + size].partition(b"=")
        at += 4 + size
        if key.upper() not in (b"METADATA_BLOCK_PICTURE", b"COVERART"):
            yield _text(key), _text(value)


def _id3(data: bytes) -> _Pairs:
    """Frames of text. The tag's size is set to what was read, so that a cut tag has its beginning.

    mutagen makes one time stamp (TDRC) of the year, day and time of older versions.
    """
    size = min(len(data) - 10, _synchsafe(data[6:10]))
    head = data[:6] + bytes(size >> shift & 0x7F for shift in (21, 14, 7, 0))
    return _frames(_mutagen("id3").ID3(BytesIO(head + data[10 : 10 + size])).values())


def _synchsafe(size: bytes) -> int:
    return sum((byte & 0x7F) << 7 * at for at, byte in enumerate(reversed(size)))


def _id3v1(data: bytes) -> _Pairs:
    return _frames((_mutagen("id3").ParseID3v1(data) or {}).values())


def _mutagen(module: str) -> Any:
    """A module of mutagen, which has no types; it is imported where a file has such a tag."""
    return import_module(f"mutagen.{module}")


def _frames(frames: Iterable[Any]) -> _Pairs:
    for frame in frames:
        text = getattr(frame, "text", None)
        if text:
            value = text if isinstance(text, str) else "; ".join(map(str, text))
            yield frame.HashKey.rstrip(":"), value


def _ape(data: bytes) -> _Pairs:
    items = _mutagen("apev2").APEv2(BytesIO(data)).items()
    return ((key, str(value)) for key, value in items if value.kind == _APE_TEXT)


def with_moth(said: Iterable[Statement]) -> list[Statement]:
    """The statements; instead of an AudioMoth's comment, what it says one by one."""
    found: list[Statement] = []
    for each in said:
        if not _MOTH.search(each.value):
            found.append(each)
            continue
        matches = ((key, re.search(shape, each.value)) for key, shape in _OF_MOTH.items())
        values = [(key, match[1]) for key, match in matches if match]
        found += stated("AudioMoth", [("comment", each.value), *values])
    if any(each.name == "AudioMoth comment" for each in found):
        # Where the comment names a deployment, the device is in the artist's place.
        artists = (re.search(_OF_MOTH["device"], each.value) for each in found)
        devices = [match[1] for match in artists if match][:1]
        if not any(each.name == "AudioMoth device" for each in found):
            found += stated("AudioMoth", [("device", each) for each in devices])
    return found


_ID3 = (b"id3 ", b"ID3 ")
_CHUNKS: dict[bytes, tuple[str, Callable[[bytes], _Pairs]]] = {
    b"guan": ("GUANO", _guano), b"wamd": ("wamd", _wamd), b"iXML": ("iXML", _ixml),
    b"LIST": ("INFO", _info), **dict.fromkeys(_ID3, ("ID3", _id3)),
    b"NAME": ("AIFF", lambda data: [("name", _text(data))]),
    b"AUTH": ("AIFF", lambda data: [("author", _text(data))]),
    b"ANNO": ("AIFF", lambda data: [("annotation", _text(data))]),
}  # fmt: skip
"""The chunks that are read, where a statement says it is from, and what reads it."""

_INSIDE: dict[str, Callable[[FileView], Iterable[_Part]]] = {
    "WAV": _chunks, "AIFF": _chunks, "FLAC": _blocks, "OGG": _packet, "MP3": _nothing,
}  # fmt: skip
TAGGED_KINDS = frozenset(_INSIDE)
"""Formats whose own tags are read here; of others, by FFmpeg, which opens them anyway."""
