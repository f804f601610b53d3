"""The torture corpus: hostile files and what must become of each, as one table.

A run over all of them ends as any other; every file is labelled or has one of the documented
reasons. `write` puts the corpus into a folder.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from audioset_core.errors import Reason
from tests.torture.makers import (
    F32,
    chunk,
    constant_flac,
    encoded,
    id3,
    noise,
    ogg_pages,
    pcm,
    png,
    sparse,
    tone,
    wav,
    with_ffmpeg,
)

LABELLED = "labelled"
PARTIAL = "labelled in part"
"""With a remark on what is missing; who is strict refuses it."""
PASSED_OVER = "passed over"
"""Not taken by a walk, and counted as such."""

Make = Callable[[Path], object]


@dataclass(frozen=True, slots=True)
class Hostile:
    """One entry; ``expected`` is `LABELLED`, `PARTIAL`, `PASSED_OVER`, or right reasons."""

    name: bytes
    content: bytes | Make
    expected: tuple[str, ...]

    def write(self, folder: Path) -> Path:
        """Write it; returns its path."""
        path = folder / os.fsdecode(self.name)
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(self.content, bytes):
            path.write_bytes(self.content)
        else:
            self.content(path)
        return path


@cache
def corpus() -> tuple[Hostile, ...]:
    """Everything hostile; each kind is in a folder of its own name."""
    kinds = {
        "nothing": _nothing, "cut": _cut, "other": _other, "lies": _lies, "coded": _coded,
        "samples": _samples, "figures": _figures, "flac": _flac, "ogg": _ogg, "mp3": _mp3,
        "ffmpeg": _ffmpeg, "special": _special, "names": _names,
    }  # fmt: skip
    return tuple(
        Hostile(kind.encode() + b"/" + name, content, tuple(map(str, expected)))
        for kind, entries in kinds.items()
        for name, content, *expected in entries()
    )


def write(folder: Path) -> list[Hostile]:
    """Write the whole corpus into the folder; what this system does not allow is left out."""
    written = []
    for hostile in corpus():
        try:
            hostile.write(folder)
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.EILSEQ, errno.ENOTSUP):
                raise
        else:
            written.append(hostile)
    return written


Entries = Iterator[tuple[Any, ...]]


def _sound(duration_s: float = 1.0, rate_hz: int = 16_000, n_channels: int = 1) -> F32:
    return noise(rate_hz, n_channels, duration_s)


def _nothing() -> Entries:
    yield b"zero-bytes.wav", b"", Reason.EMPTY
    yield b"zero-bytes.mp3", b"", Reason.EMPTY
    yield b"one-byte.flac", b"\x01", Reason.NOT_AUDIO
    none = np.zeros((0, 1), np.float32)
    for name in ("wav16", "aiff", "au", "caf", "w64", "rf64"):
        yield f"header-only-{name}.wav".encode(), encoded(name, none, 48_000), Reason.EMPTY
    flac = encoded("flac16", none, 48_000)
    yield b"header-only.flac", flac, Reason.EMPTY, Reason.DAMAGED
    vorbis = encoded("vorbis", _sound(), 16_000)
    yield b"headers-only.ogg", vorbis[: ogg_pages(vorbis)[2]], Reason.EMPTY, Reason.DAMAGED
    yield b"magic-only.wav", b"RIFF", Reason.DAMAGED
    yield b"magic-only.flac", b"fLaC", Reason.DAMAGED
    yield b"magic-only.ogg", b"OggS", Reason.DAMAGED
    yield b"tag-only.mp3", id3(10, bytes(10)), Reason.DAMAGED


def _cut() -> Entries:
    whole = encoded("wav16", _sound(), 16_000)
    for kept in (4, 8, 12, 20, 30, 43):
        yield f"wav-{kept}.wav".encode(), whole[:kept], Reason.DAMAGED, Reason.EMPTY
    yield b"wav-last-byte.wav", whole[:-1], LABELLED
    for name in ("wav16", "wav24", "wav float", "wav ima", "aiff", "au", "w64", "rf64"):
        data = encoded(name, _sound(2.0), 16_000)
        yield f"half-{name}.wav".encode(), data[: len(data) // 2], PARTIAL
    caf = encoded("caf", _sound(2.0), 16_000)
    yield b"half.caf", caf[: len(caf) // 2], PARTIAL
    for name in ("flac16", "vorbis", "opus", "mp3", "alac"):
        data = encoded(name, _sound(4.0, 48_000), 48_000)
        for percent in (2, 30, 80):
            yield (
                f"{percent}-percent.{name}.flac".encode(),
                data[: len(data) * percent // 100],
                *((PARTIAL, Reason.EMPTY, Reason.DAMAGED) if percent == 2 else (PARTIAL,)),
            )
    vorbis = encoded("vorbis", _sound(), 16_000)
    yield b"ogg-last-byte.ogg", vorbis[:-1], PARTIAL


def _other() -> Entries:
    others = {
        "text": b"Dear diary, today I recorded nothing.\n", "zip": b"PK\x03\x04" + bytes(500),
        "png": png(), "jpeg": b"\xff\xd8\xff\xe0" + bytes(500), "pdf": b"%PDF-1.7\n%\xe2\xe3",
        "gzip": b"\x1f\x8b\x08" + b"\1" * 100, "elf": b"\x7fELF" + bytes(200),
        "html": b"<!doctype html><title>404 Not Found</title>", "zeros": bytes(5_000),
        "ones": b"\xff" * 5_000, "counting": bytes(range(256)) * 20,
        "dice": np.random.default_rng(6).bytes(20_000),
        "python": b"import os\nos.system('true')\n", "sqlite": b"SQLite format 3\0" + bytes(100),
    }  # fmt: skip
    for name, content in others.items():
        yield f"{name}.wav".encode(), content, Reason.NOT_AUDIO
    for name, wrong in (("flac16", "wav"), ("mp3", "ogg"), ("wav16", "mp3"), ("vorbis", "aiff")):
        data = encoded(name, _sound(), 16_000)
        yield f"a-{name}.{wrong}".encode(), data, LABELLED


def _lies() -> Entries:
    data = pcm(20_000)
    for stated in (0x7FFFF000, 0x7FFFFFFF, 0xFFFFFFFF):
        yield f"from-a-pipe-{stated:x}.wav".encode(), wav(data, stated=stated), LABELLED
    yield b"much-more-than-there-is.wav", wav(data, stated=0x70000000), PARTIAL
    yield b"less-than-there-is.wav", wav(data, stated=20_000), LABELLED
    yield b"bytes-stated-none.wav", wav(data, stated=0), LABELLED
    riff = bytearray(wav(data))
    riff[4:8] = b"\xff\xff\xff\xff"
    yield b"riff-of-4-gib.wav", bytes(riff), LABELLED
    riff[4:8] = bytes(4)
    yield b"riff-of-nothing.wav", bytes(riff), LABELLED, Reason.DAMAGED
    riff = bytearray(wav(data))
    riff[16:20] = b"\xff\xff\xff\xff"
    yield b"fmt-of-4-gib.wav", bytes(riff), Reason.DAMAGED
    yield b"no-fmt.wav", _riff(chunk(b"data", data)), Reason.DAMAGED
    yield b"no-data.wav", wav(b"")[:36], Reason.DAMAGED, Reason.EMPTY
    form = wav(b"")[12:36]
    yield b"data-before-fmt.wav", _riff(chunk(b"data", data) + form), LABELLED
    two = _riff(form + chunk(b"data", data) + chunk(b"data", data))
    yield b"two-data-chunks.wav", two, PARTIAL
    yield b"two-fmt-chunks.wav", _riff(form + form + chunk(b"data", data)), LABELLED, Reason.DAMAGED
    huge = chunk(b"LIST", b"INFO", stated=0x7FFFFFF0)
    yield b"list-of-2-gib.wav", wav(data, extra=huge), LABELLED
    yield b"many-chunks.wav", wav(data, extra=chunk(b"junk", b"") * 20_000), LABELLED
    odd = b"note" + struct.pack("<I", 3) + b"abc"
    yield b"odd-chunk-without-padding.wav", wav(data, extra=odd), LABELLED
    yield b"block-align-0.wav", wav(data, frame=0), LABELLED, Reason.DAMAGED
    yield b"block-align-lies.wav", wav(data, frame=7), LABELLED, Reason.DAMAGED
    for bits in (0, 1, 13, 255, 65_535):
        lied = wav(data, bits=bits, frame=2)
        yield f"bits-{bits}.wav".encode(), lied, LABELLED, PARTIAL, Reason.UNSUPPORTED
    for code in (0, 0xFFFE, 0xFFFF, 0x1234):
        yield f"codec-{code:x}.wav".encode(), wav(data, code=code), Reason.UNSUPPORTED
    yield b"codec-55.wav", wav(data, code=0x55), Reason.DAMAGED
    rf64 = bytearray(encoded("rf64", _sound(), 16_000))
    rf64[28:36] = b"\xff" * 7 + b"\x7f"
    yield b"rf64-of-8-eib.wav", bytes(rf64), PARTIAL, LABELLED
    w64 = bytearray(encoded("w64", _sound(), 16_000))
    w64[16:24] = b"\xff" * 7 + b"\x7f"
    yield b"w64-of-8-eib.w64", bytes(w64), LABELLED, Reason.DAMAGED
    at = w64.find(b"data")
    w64[at + 16 : at + 24] = b"\xff" * 7 + b"\x7f"
    yield b"w64-data-of-8-eib.w64", bytes(w64), PARTIAL, LABELLED


def _riff(chunks: bytes) -> bytes:
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WAVE" + chunks


def _coded() -> Entries:
    for name in (
        "WAV/PCM_U8", "WAV/PCM_16", "WAV/PCM_24", "WAV/PCM_32", "WAV/FLOAT", "WAV/DOUBLE",
        "WAV/ULAW", "WAV/ALAW", "WAV/IMA_ADPCM", "WAV/MS_ADPCM", "WAV/GSM610", "WAV/G721_32",
        "RF64/PCM_16", "W64/PCM_24", "AIFF/PCM_S8", "AU/ULAW", "CAF/ALAC_24", "OGG/OPUS",
    ):  # fmt: skip
        rate_hz = 8_000 if "GSM" in name or "G721" in name else 16_000
        data = encoded(name, _sound(2.0, rate_hz), rate_hz)
        yield f"{name.replace('/', '-').lower()}.wav".encode(), data, LABELLED


def _samples() -> Entries:
    for name, value in (("nan", np.nan), ("inf", np.inf), ("minus-inf", -np.inf)):
        sound = _sound().astype(np.float64)
        sound[8_000] = value
        yield f"{name}.wav".encode(), encoded("wav double", sound, 16_000), Reason.NOT_FINITE
    beyond = _sound().astype(np.float64) * 1e300
    yield b"beyond-float32.wav", encoded("wav double", beyond, 16_000), Reason.NOT_FINITE
    for exponent in (5, 30, 37):
        loud = _sound() * np.float32(10.0**exponent)
        yield (
            f"times-1e{exponent}.wav".encode(), encoded("wav float", loud, 16_000),
            LABELLED, Reason.NOT_FINITE,
        )  # fmt: skip
    tiny = np.full((16_000, 1), 1e-42, np.float32)
    yield b"denormal.wav", encoded("wav float", tiny, 16_000), LABELLED
    flat = np.ones((16_000, 1), np.float32)
    yield b"silence.wav", encoded("wav16", flat * 0, 16_000), LABELLED
    yield b"silence.flac", encoded("flac16", flat * 0, 16_000), LABELLED
    yield b"constant.wav", encoded("wav float", flat, 16_000), LABELLED
    yield b"one-sample.wav", encoded("wav16", flat[:1], 16_000), LABELLED
    yield b"one-sample.flac", encoded("flac16", flat[:1], 44_100), LABELLED
    yield b"one-sample-of-many.wav", encoded("wav16", flat[:1], 384_000), LABELLED
    yield b"square.wav", encoded("wav float", np.sign(tone(16_000)), 16_000), LABELLED


def _figures() -> Entries:
    for rate_hz in (1, 999, 384_001, 1_000_000, 2**31 - 1):
        yield f"{rate_hz}-hz.wav".encode(), wav(pcm(2_000), rate_hz=rate_hz), Reason.OUT_OF_RANGE
    for rate_hz in (0, 2**31, 2**32 - 1):
        data = wav(pcm(2_000), rate_hz=rate_hz)
        yield f"{rate_hz}-hz.wav".encode(), data, Reason.OUT_OF_RANGE, Reason.DAMAGED
    for rate_hz in (1_000, 11_025, 44_101, 384_000):
        data = wav(pcm(2 * rate_hz), rate_hz=rate_hz)
        yield f"{rate_hz}-hz.wav".encode(), data, LABELLED
    yield b"0-channels.wav", wav(pcm(100), n_channels=0), Reason.OUT_OF_RANGE, Reason.DAMAGED
    for n_channels in (33, 255, 1_024):
        data = wav(pcm(4 * n_channels), n_channels=n_channels)
        yield f"{n_channels}-channels.wav".encode(), data, Reason.OUT_OF_RANGE
    data = wav(pcm(1_000), n_channels=65_535)
    yield b"65535-channels.wav", data, Reason.OUT_OF_RANGE, Reason.DAMAGED
    yield b"32-channels.wav", encoded("wav16", _sound(n_channels=32), 16_000), LABELLED


def _flac() -> Entries:
    whole = encoded("flac16", _sound(4.0), 16_000)

    def spoilt(at: int, data: bytes) -> bytes:
        return whole[:at] + data + whole[at + len(data) :]

    middle = len(whole) // 2
    bad = (PARTIAL,)
    yield b"a-frame-of-zeros.flac", spoilt(middle, bytes(3_000)), *bad
    yield b"a-bit-flipped.flac", spoilt(middle, bytes([whole[middle] ^ 0x10])), *bad
    yield b"a-frame-missing.flac", whole[:middle] + whole[middle + 5_000 :], *bad
    yield b"junk-between-frames.flac", whole[:middle] + bytes(999) + whole[middle:], *bad
    yield b"rate-0.flac", spoilt(18, bytes(2)), PARTIAL
    yield b"blocks-of-0.flac", spoilt(8, bytes(4)), Reason.DAMAGED, LABELLED
    yield b"metadata-of-16-mib.flac", spoilt(5, b"\xff\xff\xff"), Reason.DAMAGED
    yield b"samples-2-to-36.flac", spoilt(21, b"\x0f\xff\xff\xff\xff"), Reason.DAMAGED
    yield b"behind-a-tag.flac", id3(100, bytes(100)) + whole, LABELLED
    yield b"twice.flac", whole + whole, LABELLED
    yield b"ten-minutes-in-200-bytes.flac", constant_flac(600), LABELLED
    yield b"a-week.flac", constant_flac(7 * 86_400), Reason.TOO_LONG


def _ogg() -> Entries:
    one, two = (encoded("vorbis", _sound(s), 16_000) for s in (1.0, 2.0))
    opus = encoded("opus", _sound(), 16_000)
    pages = ogg_pages(two)
    yield b"chained.ogg", one + two, LABELLED
    yield b"chained-with-opus.ogg", one + opus, PARTIAL
    yield b"chained-and-cut.ogg", one + two[: len(two) // 2], PARTIAL
    yield b"chained-500-times.ogg", one * 500, LABELLED
    yield b"junk-behind.ogg", one + b"junk" * 1_000, LABELLED
    yield b"junk-before.ogg", b"junk" * 100 + one, Reason.NOT_AUDIO
    last = pages[-1]
    yield b"a-page-missing.ogg", two[: pages[-2]] + two[last:], PARTIAL
    spoilt = bytearray(two)
    spoilt[last + 22] ^= 0xFF
    yield b"wrong-checksum.ogg", bytes(spoilt), PARTIAL
    spoilt = bytearray(two)
    spoilt[last + 6 : last + 14] = struct.pack("<q", 1 << 40)
    yield b"position-2-to-40.ogg", bytes(spoilt), PARTIAL
    spoilt = bytearray(one)
    spoilt[len(one) // 3 : len(one) // 3 + 400] = bytes(400)
    yield b"headers-spoilt.ogg", bytes(spoilt), Reason.EMPTY, Reason.DAMAGED


def _mp3() -> Entries:
    whole = encoded("mp3", _sound(3.0), 16_000)
    middle = len(whole) // 2
    dice = np.random.default_rng(8).bytes(3_000)
    yield b"junk-before.mp3", bytes(2_000) + whole, LABELLED, Reason.NOT_AUDIO
    yield b"dice-before.mp3", dice + whole, LABELLED, Reason.NOT_AUDIO
    yield b"junk-amid.mp3", whole[:middle] + dice + whole[middle:], LABELLED, PARTIAL
    yield b"junk-behind.mp3", whole + dice, LABELLED
    yield b"tag-of-256-mib.mp3", id3((1 << 28) - 1) + whole, Reason.DAMAGED, LABELLED
    yield b"tag-of-4-mib.mp3", id3(4 << 20, bytes(4 << 20)) + whole, LABELLED, Reason.DAMAGED
    yield b"tags-in-a-row.mp3", id3(10, bytes(10)) * 5_000 + whole, LABELLED, Reason.DAMAGED
    yield b"tag-behind.mp3", whole + b"TAG" + bytes(125), LABELLED
    yield b"zeros-amid.mp3", whole[:middle] + bytes(500) + whole[middle:], LABELLED, PARTIAL
    long = encoded("mp3", _sound(20.0, 44_100), 44_100)
    yield b"long.mp3", long, LABELLED
    yield b"twice.mp3", long + long, LABELLED
    yield b"a-tagged-one-behind.mp3", long + id3(9, bytes(9)) + long, LABELLED, PARTIAL
    yield b"a-sync-word-forever.mp3", b"\xff\xfb\x90\x00" * 5_000, *(
        LABELLED, Reason.DAMAGED, Reason.NOT_AUDIO,
    )  # fmt: skip


def _ffmpeg() -> Entries:
    sound = tone(48_000, 1, 2.0)

    def written(codec: str, container: str, cut: float = 1.0, skip: int = 0) -> Make:
        def make(path: Path) -> None:
            with_ffmpeg(path, sound, 48_000, codec, container)
            data = bytearray(path.read_bytes())
            data[len(data) // 2 : len(data) // 2 + skip] = bytes(skip)
            path.write_bytes(data[: int(len(data) * cut)])

        return make

    bad = (Reason.DAMAGED, Reason.EMPTY)
    for codec, container in (
        ("aac", "ipod"), ("libopus", "webm"), ("aac", "adts"), ("pcm_s16le", "avi"),
    ):  # fmt: skip
        yield f"{container}.m4a".encode(), written(codec, container), LABELLED
        yield f"{container}-zeros-amid.m4a".encode(), written(codec, container, skip=400), *(
            LABELLED, PARTIAL,
        )  # fmt: skip
        if container != "avi":
            half = Reason.DAMAGED if container == "ipod" else PARTIAL  # without its index
            yield f"{container}-half.m4a".encode(), written(codec, container, 0.5), half
    yield b"mp4-named.wav", written("aac", "ipod"), LABELLED
    for head in (b"\0\0\0\x18ftypM4A ", b"\x1aE\xdf\xa3\x01", b"FLV\x01\x05\0\0\0\x09"):
        name = f"junk-{head[:5].hex()}.m4a".encode()
        yield name, head + bytes(range(256)) * 8, *bad, Reason.OUT_OF_RANGE
    yield b"box-of-4-gib.m4a", b"\0\0\0\x18ftypM4A " + bytes(12) + b"\xff\xff\xff\xffmoov", *bad
    nested = b"".join(struct.pack(">I", 8 * (500 - i)) + b"moov" for i in range(500))
    yield b"boxes-in-boxes.m4a", b"\0\0\0\x18ftypM4A " + bytes(12) + nested, *bad


def _special() -> Entries:
    yield b"folder.wav", lambda path: path.mkdir(), Reason.NOT_A_FILE
    yield b"pipe.wav", os.mkfifo, Reason.NOT_A_FILE
    yield b"socket.wav", _socket, Reason.NOT_A_FILE
    device = os.makedev(1, 3)
    yield b"null.wav", partial(os.mknod, mode=0o600 | stat.S_IFCHR, device=device), *(
        Reason.NOT_A_FILE, Reason.UNREADABLE,  # a container may hold it, but not open it
    )  # fmt: skip
    yield b"zeros-of-10-gb.wav", lambda path: sparse(path, b"", 10**10), Reason.NOT_AUDIO
    yield b"loop.wav", lambda path: path.symlink_to(path.name), PASSED_OVER
    yield b"to-itself", lambda path: path.symlink_to("."), PASSED_OVER
    yield b"dangling.wav", lambda path: path.symlink_to("nowhere"), PASSED_OVER
    yield b".hidden.wav", wav(pcm(20_000)), PASSED_OVER

    def forbidden(path: Path) -> None:
        path.write_bytes(wav(pcm(20_001)))
        path.chmod(0)

    # Root may read everything.
    yield b"forbidden.wav", forbidden, LABELLED if os.geteuid() == 0 else Reason.UNREADABLE


def _socket(path: Path) -> None:
    here = os.open(path.parent, os.O_RDONLY)
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(f"/proc/self/fd/{here}/{path.name}")  # the whole path may be too long
    finally:
        os.close(here)


def _names() -> Entries:
    for seed, name in enumerate((
        b"new\nline", b"it's", b'"quoted"', "\N{SPEAKER}\N{BIRD}".encode(), b"caf\xe9",
        b"\xff\xfe\xfd", b"x" * 251, b"-rf", b"--help", b" ", b"a\tb", b"\x07bell\x1b[31m",
        "\N{RIGHT-TO-LEFT OVERRIDE}gpj".encode(), b"%s%n{0}", b"$(true)`true`;true", b"back\\slash",
        b"*?[a]", "e\N{COMBINING ACUTE ACCENT}".encode(), b"NULL", b"'; DROP TABLE clips; --",
    )):  # fmt: skip
        yield name + b".wav", wav(pcm(20_010 + seed)), LABELLED
