"""What containers state about the size of their samples, and whether the file agrees.

Decoders stop where a size field says, without a message. The field is wrong where a recorder lost
power, wrote to a pipe, or went beyond 4 GiB.

Source: RIFF and AIFF-C (EA IFF 85), EBU Tech 3306 (RF64), ITU-R BS.2088 (BW64), Sony Wave64,
Apple's CAF and Sun's AU specifications, RFC 8794 (EBML), ISO/IEC 14496-12 (MP4).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from audioset_core.file_headers.file_view import FileView
from audioset_core.file_headers.signatures import kind_of

_MAX_CHUNKS = 10_000
_EBML, _SEGMENT = b"\x1aE\xdf\xa3", b"\x18S\x80g"
_MOST_BYTES = 1 << 56
"""A larger size is a placeholder."""
_4_GIB = 1 << 32
_SEARCH_BYTES, _MOST_FMT_BYTES = 1 << 16, 1_000
_FEW_BYTES = 64
"""Up to so many bytes after the samples are never sound."""


@dataclass(frozen=True, slots=True)
class _Form:
    """How a format writes its chunks, each with a name, a size and a body."""

    data: bytes
    first: int
    n_name: int = 4
    n_size: int = 4
    order: Literal["little", "big"] = "little"
    counts_itself: bool = False
    align: int = 2

    @property
    def n_head(self) -> int:
        return self.n_name + self.n_size


_FORMS = {
    b"RIFF": _Form(b"data", 12),
    b"RF64": _Form(b"data", 12),
    b"BW64": _Form(b"data", 12),
    b"RIFX": _Form(b"data", 12, order="big"),
    b"FORM": _Form(b"SSND", 12, order="big"),
    b"riff": _Form(b"data", 40, n_name=16, n_size=8, counts_itself=True, align=8),
    b"caff": _Form(b"data", 8, n_size=8, order="big", align=1),
}


@dataclass(frozen=True, slots=True)
class SampleBytes:
    """Where a file's samples are, by its header: ``stated`` bytes from ``start`` on.

    ``present`` bytes are really there. The size field has ``n_field`` bytes at ``field_at``, and
    counts ``added`` bytes besides the samples.
    """

    start: int
    stated: int
    present: int
    field_at: int
    n_field: int
    order: Literal["little", "big"]
    added: int = 0

    @property
    def is_placeholder(self) -> bool:
        """Whether the size is what programs write to a pipe: (nearly) the largest possible.

        SoX states 0x7FFFF000 or a little less, arecord 0x7FFFFF00, FFmpeg 0xFFFFFFFF.
        """
        near = any(top - 0x2000 <= self.stated <= top for top in (1 << 31, _4_GIB - 1))
        return near or self.stated >= _MOST_BYTES or self.stated < 0

    def corrected(self, view: FileView, n_bytes: int) -> FileView | None:
        """The view with another size in the field; None if the size does not fit."""
        value = n_bytes + self.added
        if value >> (8 * self.n_field):
            return None
        return view.patched(self.field_at, value.to_bytes(self.n_field, self.order))


def sample_bytes(view: FileView) -> SampleBytes | None:
    """Where the samples are; None where the format states no size, or states it in parts."""
    head = view.read(0, 128)
    magic = head[:4]
    if magic == b".snd" and len(head) >= 24:
        start = int.from_bytes(head[4:8], "big")
        return _found(view, start, int.from_bytes(head[8:12], "big"), 8, 4, "big")
    if magic == b".SoX" and len(head) >= 32:
        start = 4 + int.from_bytes(head[4:8], "little")
        n_samples = int.from_bytes(head[8:16], "little")  # 0: unknown
        return _found(view, start, 4 * n_samples, 0, 0, "little") if n_samples else None
    form = _FORMS.get(magic)
    if form is None:
        return None
    for name, size, at, body in _chunks(view, form, form.first):
        if name[:4] == form.data:
            field_at = at + form.n_name
            # RF64 has its size in a chunk of its own.
            if magic in (b"RF64", b"BW64") and size >= _4_GIB - 1 and head[12:16] == b"ds64":
                return _found(view, body, int.from_bytes(head[28:36], "little"), 28, 8, "little")
            added = form.n_head if form.counts_itself else 0
            return _found(view, body, size, field_at, form.n_size, form.order, added)
    return None


def what_follows(view: FileView, found: SampleBytes) -> tuple[str, int]:
    """What comes after the stated end of the samples, and where it begins.

    ``nothing`` (or zeros), ``chunks`` that the format allows there, ``data`` (another chunk of
    samples), ``recording`` (another whole file), or ``sound``.
    """
    form = _FORMS.get(view.read(0, 4))
    end = found.start + found.stated
    if end + _FEW_BYTES >= view.size_bytes:
        return "nothing", end
    if form is None:
        return ("nothing" if _is_blank(view, end) else "sound"), end
    for at in dict.fromkeys((end + -end % form.align, end)):  # some programs do not pad
        kind, where = _chain(view, form, at)
        if kind:
            return kind, where
    is_wrapped = view.size_bytes - end >= _4_GIB
    return ("nothing" if not is_wrapped and _is_blank(view, end) else "sound"), end


def whole_size(view: FileView, found: SampleBytes) -> int:
    """True bytes of samples where the stated size is too small: wrapped at 4 GiB, or to the end."""
    form = _FORMS.get(view.read(0, 4))
    size = found.stated
    while form is not None and (size := size + _4_GIB) <= found.present:
        end = found.start + size
        if end == view.size_bytes or _chain(view, form, end + -end % form.align)[0]:
            return size
    return found.present


def rebuilt_wav(view: FileView, start: int = 0, n_bytes: int = 0) -> FileView | None:
    """A WAV file's samples after a new header, which has room for any size (EBU Tech 3306).

    With `n_bytes`, for sizes beyond 4 GiB: that many bytes from `start` on. Without, for chunks at
    wrong positions, since programs omit the padding byte of a chunk of odd size: the samples are
    searched for.
    """
    head = view.read(0, _SEARCH_BYTES)
    fmt_at = head.find(b"fmt ")
    n_fmt = int.from_bytes(head[fmt_at + 4 : fmt_at + 8], "little")
    if head[:4] != b"RIFF" or fmt_at < 0 or not 16 <= n_fmt <= _MOST_FMT_BYTES:
        return None
    if not n_bytes:
        data_at = head.find(b"data", fmt_at + 8 + n_fmt)
        start = data_at + 8
        stated = int.from_bytes(head[data_at + 4 : start], "little")
        n_bytes = stated if 0 < stated <= view.size_bytes - start else view.size_bytes - start
        if data_at < 0 or n_bytes <= 0:
            return None
    form = head[fmt_at : fmt_at + 8 + n_fmt] + bytes(n_fmt % 2)
    unknown = b"\xff" * 4
    sizes = (len(form) + 48 + n_bytes).to_bytes(8, "little") + n_bytes.to_bytes(8, "little")
    ds64 = b"ds64" + (28).to_bytes(4, "little") + sizes + bytes(12)
    lead = b"RF64" + unknown + b"WAVE" + ds64 + form + b"data" + unknown
    end = min(view.end, view.start + start + n_bytes)
    return replace(view, start=view.start + start, end=end, patches={}, lead=lead)


def iff_chunks(view: FileView) -> Iterator[tuple[bytes, int, int]]:
    """(name, size as written, position of the body) of the chunks of a WAV or AIFF file.

    Also of chunks behind one of odd size that was not padded, as some programs write them.
    """
    form = _FORMS.get(view.read(0, 4))
    if form is None or form.first != 12:
        return
    at = form.first
    for _ in range(_MAX_CHUNKS):
        head = view.read(at, form.n_head)
        if len(head) < form.n_head:
            return
        name, size = head[: form.n_name], int.from_bytes(head[form.n_name :], form.order)
        yield name, size, at + form.n_head
        if name == form.data and size >= _4_GIB - 1 and (found := sample_bytes(view)):
            size = found.stated
        at += form.n_head + size
        if size % 2 and not (_is_name(view.read(at, 4)) and not _is_name(view.read(at + 1, 4))):
            at += 1


def _is_name(name: bytes) -> bool:
    return len(name) == 4 and all(0x20 <= byte < 0x7F for byte in name)


def matroska_size(view: FileView) -> tuple[int, int] | None:
    """(stated, present) bytes of a Matroska segment; None for a live stream."""
    head = view.read(0, 128)
    if not head.startswith(_EBML):
        return None
    size, at = _ebml_size(head, len(_EBML))
    at += size
    if head[at : at + 4] != _SEGMENT:
        return None
    stated, start = _ebml_size(head, at + 4)
    return (stated, max(0, view.size_bytes - start)) if 0 < stated < _MOST_BYTES else None


def mp4_goes_on(view: FileView) -> int | None:
    """Where another MP4 begins after the first one, which is the only one that players play."""
    beginnings = [at for name, at in _boxes(view) if name == b"ftyp"]
    return beginnings[1] if len(beginnings) > 1 else None


def mp3_tag(view: FileView) -> tuple[int, int] | None:
    """(samples, bytes) by a Xing or Info tag; None without a tag, or if its figures are impossible.

    Programs write 0 frames there, the count of a longer file, or that of the first of several.
    """
    head = view.read(0, 256)
    about = _mpeg_frame(head)
    found = max(head.find(b"Xing"), head.find(b"Info"))
    if about is None or found < 0 or len(head) < found + 16 or head[found + 7] & 0x03 != 0x03:
        return None
    rate_hz, samples_per_frame = about
    n_frames = int.from_bytes(head[found + 8 : found + 12], "big")
    n_bytes = int.from_bytes(head[found + 12 : found + 16], "big")
    if not n_frames:
        return None
    n_samples = n_frames * samples_per_frame
    bits_per_s = 8 * n_bytes / n_samples * rate_hz
    return (n_samples, n_bytes) if 7_000 <= bits_per_s <= 330_000 else None


def has_mp4_index(view: FileView) -> bool:
    """Whether an MP4 has its index, which recorders write last and decoders cannot do without."""
    return any(name in (b"moov", b"moof") for name, _ in _boxes(view))


_MPEG_RATES_HZ = {
    3: (44_100, 48_000, 32_000),
    2: (22_050, 24_000, 16_000),
    0: (11_025, 12_000, 8_000),
}


def _mpeg_frame(head: bytes) -> tuple[int, int] | None:
    """Sample rate and number of samples of the layer III frame at the beginning of the bytes.

    Source: ISO/IEC 11172-3, 2.4.1.3.
    """
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE6 != 0xE2:
        return None
    version, rate = head[1] >> 3 & 3, head[2] >> 2 & 3
    if version == 1 or rate == 3:
        return None
    return _MPEG_RATES_HZ[version][rate], 1152 if version == 3 else 576


def _found(
    view: FileView,
    start: int,
    size: int,
    field_at: int,
    n_field: int,
    order: Literal["little", "big"],
    added: int = 0,
) -> SampleBytes:
    present = max(0, view.size_bytes - start)
    return SampleBytes(start, size - added, present, field_at, n_field, order, added)


def _chunks(view: FileView, form: _Form, at: int) -> Iterator[tuple[bytes, int, int, int]]:
    """(name, size as written, position of the chunk, position of its body)."""
    for _ in range(_MAX_CHUNKS):
        head = view.read(at, form.n_head)
        if len(head) < form.n_head:
            return
        size = int.from_bytes(head[form.n_name :], form.order)
        yield head[: form.n_name], size, at, at + form.n_head
        if form.counts_itself:
            if size < form.n_head:
                return
            size -= form.n_head
        end = at + form.n_head + size
        at = end + -end % form.align


def _chain(view: FileView, form: _Form, at: int) -> tuple[str, int]:
    """What the chunks from a position to the end of the file are; empty if they are no chunks."""
    n_found = 0
    for name, size, start, body in _chunks(view, form, at):
        if name[:4] in _FORMS and kind_of(view.read(start, 16)):
            return "recording", start
        length = size - (form.n_head if form.counts_itself else 0)
        if not _is_name(name[:4]) or not 0 <= length < _MOST_BYTES:
            return ("nothing", at) if n_found and _is_blank(view, start) else ("", at)
        if body + length > view.size_bytes + form.align:
            return "", at
        if name[:4] == form.data:
            return "data", start
        n_found += 1
    return ("chunks" if n_found else ""), at


def _is_blank(view: FileView, start: int) -> bool:
    """Whether only zeros follow, judged by samples of the bytes."""
    n_bytes = view.size_bytes - start
    step = max(4096, n_bytes // 64)
    return not any(
        any(view.read(at, 4096))
        for at in (*range(start, view.size_bytes, step), view.size_bytes - 4)
    )


def _boxes(view: FileView) -> Iterator[tuple[bytes, int]]:
    """Name and position of an MP4's outermost boxes."""
    at = 0
    for _ in range(_MAX_CHUNKS):
        head = view.read(at, 16)
        size = int.from_bytes(head[:4], "big")
        if len(head) >= 16 and size == 1:
            size = int.from_bytes(head[8:16], "big")
        if len(head) < 8:
            return
        yield head[4:8], at
        if size < 8:
            return
        at += size


def _ebml_size(head: bytes, at: int) -> tuple[int, int]:
    """(value, what follows it) of a variable-length integer; all ones mean "unknown"."""
    first = head[at] if at < len(head) else 0
    if not first:
        return 0, at
    n_bytes = 9 - first.bit_length()
    value = int.from_bytes(head[at : at + n_bytes], "big") & ((1 << 7 * n_bytes) - 1)
    return (0 if value == (1 << 7 * n_bytes) - 1 else value), at + n_bytes
