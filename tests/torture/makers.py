"""Sounds and spoilt sounds, written by program: what the decoder's tests and the corpus share."""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray

F32 = NDArray[np.float32]

# Name, subtype, ending, rates it can have, most channels it can have, its loss in amplitude.
FORMATS: dict[str, tuple[str, str, tuple[int, ...], int, float]] = {
    "wav16": ("WAV", "PCM_16", (1_000, 8_000, 44_100, 384_000), 32, 1e-4),
    "wav24": ("WAV", "PCM_24", (1_000, 44_100, 384_000), 32, 1e-6),
    "wav8": ("WAV", "PCM_U8", (8_000,), 32, 1e-2),
    "wav float": ("WAV", "FLOAT", (1_000, 48_000, 384_000), 32, 0.0),
    "wav double": ("WAV", "DOUBLE", (44_100,), 32, 1e-7),
    "wav u-law": ("WAV", "ULAW", (8_000,), 2, 5e-2),
    "wav ima": ("WAV", "IMA_ADPCM", (22_050,), 2, 0.2),
    "wavex": ("WAVEX", "PCM_24", (48_000,), 32, 1e-6),
    "w64": ("W64", "PCM_16", (48_000, 384_000), 32, 1e-4),
    "rf64": ("RF64", "PCM_24", (48_000, 384_000), 32, 1e-6),
    "flac16": ("FLAC", "PCM_16", (1_000, 44_100, 384_000), 8, 1e-4),
    "flac24": ("FLAC", "PCM_24", (48_000,), 8, 1e-6),
    "aiff": ("AIFF", "PCM_16", (1_000, 44_100, 384_000), 32, 1e-4),
    "aiff float": ("AIFF", "FLOAT", (44_100,), 32, 0.0),
    "au": ("AU", "PCM_16", (8_000, 384_000), 32, 1e-4),
    "caf": ("CAF", "PCM_24", (44_100, 384_000), 32, 1e-6),
    "alac": ("CAF", "ALAC_16", (44_100,), 2, 1e-4),
    "vorbis": ("OGG", "VORBIS", (8_000, 44_100, 192_000), 8, 0.3),
    "opus": ("OGG", "OPUS", (8_000, 16_000, 48_000), 8, 0.3),
    "mp3": ("MP3", "MPEG_LAYER_III", (8_000, 22_050, 44_100, 48_000), 2, 0.3),
}


def tone(rate_hz: int, n_channels: int = 1, duration_s: float = 1.0) -> F32:
    """Channels of different loudness; 100 Hz, which every rate can hold."""
    t = np.arange(round(rate_hz * duration_s)) / rate_hz
    mono = 0.5 * np.sin(2 * np.pi * 100 * t)
    return (mono[:, np.newaxis] * 0.9 ** np.arange(n_channels)).astype(np.float32)


def noise(rate_hz: int, n_channels: int = 1, duration_s: float = 1.0, seed: int = 0) -> F32:
    """Nothing that a coder could leave out."""
    shape = (round(rate_hz * duration_s), n_channels)
    return np.random.default_rng(seed).normal(0, 0.1, shape).astype(np.float32)


def encoded(name: str, samples: Any, rate_hz: int) -> bytes:
    """The samples in one of the `FORMATS`, or in ``CONTAINER/SUBTYPE``."""
    container, subtype = name.split("/") if "/" in name else FORMATS[name][:2]
    file = io.BytesIO()
    soundfile.write(file, samples, rate_hz, format=container, subtype=subtype)
    return file.getvalue()


def pcm(n_samples: int) -> bytes:
    return (np.random.default_rng(3).standard_normal(n_samples) * 3000).astype("<i2").tobytes()


def wav(
    data: bytes,
    *,
    stated: int | None = None,
    rate_hz: int = 16_000,
    n_channels: int = 1,
    bits: int = 16,
    code: int = 1,
    extra: bytes = b"",
    frame: int | None = None,
) -> bytes:
    """A WAV file by hand, so that its header may lie."""
    frame = n_channels * bits // 8 if frame is None else frame
    form = struct.pack(
        "<HHIIHH", code, n_channels, rate_hz, min(rate_hz * frame, 2**32 - 1), frame % 65536, bits
    )
    size = len(data) if stated is None else stated
    body = b"WAVEfmt " + struct.pack("<I", len(form)) + form + extra
    body += b"data" + struct.pack("<I", size) + data
    riff = len(body) if stated is None else min(size + len(body) - len(data), 2**32 - 1)
    return b"RIFF" + struct.pack("<I", riff) + body


def chunk(name: bytes, data: bytes, *, stated: int | None = None) -> bytes:
    """A RIFF chunk, padded to an even size."""
    size = len(data) if stated is None else stated
    return name + struct.pack("<I", size) + data + bytes(len(data) % 2)


def png() -> bytes:
    def part(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    return b"\x89PNG\r\n\x1a\n" + part(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0))


def with_ffmpeg(
    path: Path,
    samples: F32,
    rate_hz: int,
    codec: str,
    container: str,
    *,
    tags: Mapping[str, str] = MappingProxyType({}),
    **options: str,
) -> None:
    """Write a container that libsndfile does not know."""
    import av

    layout = "stereo" if samples.shape[1] == 2 else "mono"
    with av.open(str(path), "w", format=container, options=options) as file:
        file.metadata.update(tags)
        stream = file.add_stream(codec, rate=rate_hz, layout=layout)
        frame = av.AudioFrame.from_ndarray(
            np.ascontiguousarray(samples.T), format="fltp", layout=layout
        )
        frame.sample_rate, frame.pts = rate_hz, 0
        fit = av.AudioResampler(
            stream.format, layout, rate_hz, frame_size=stream.codec_context.frame_size or 1024
        )
        for piece in [*fit.resample(frame), *fit.resample(None)]:
            file.mux(stream.encode(piece))
        file.mux(stream.encode(None))


def constant_flac(duration_s: float, rate_hz: int = 1_000) -> bytes:
    """Silence as FLAC can hold it: 14 bytes for 65,535 samples.

    Source: RFC 9639, sections 8.2 and 9.
    """
    block = 65_535
    n_blocks = int(-(-duration_s * rate_hz // block))
    info = struct.pack(">HH", block, block) + bytes(6)
    packed = (rate_hz << 44) | (0 << 41) | (15 << 36) | (n_blocks * block)
    info += packed.to_bytes(8, "big") + bytes(16)
    frames = bytearray()
    for number in range(n_blocks):
        # Fixed block size, stated in 16 bits; rate as in STREAMINFO; mono; 16 bits.
        head = b"\xff\xf8\x70\x08" + chr(number).encode("utf-8", "surrogatepass")
        head += struct.pack(">H", block - 1)
        head += bytes([_crc(head, 8, 0x07)])
        frame = head + b"\x00" + bytes(2)  # one constant subframe, its value
        frames += frame + _crc(frame, 16, 0x8005).to_bytes(2, "big")
    return b"fLaC" + b"\x80" + len(info).to_bytes(3, "big") + info + bytes(frames)


def _crc(data: bytes, bits: int, polynomial: int) -> int:
    table, mask, crc = _crc_table(bits, polynomial), (1 << bits) - 1, 0
    for byte in data:
        crc = ((crc << 8) & mask) ^ table[(crc >> (bits - 8)) ^ byte]
    return crc


@cache
def _crc_table(bits: int, polynomial: int) -> tuple[int, ...]:
    table = []
    for byte in range(256):
        crc = byte << (bits - 8)
        for _ in range(8):
            crc = (crc << 1) ^ polynomial if crc & (1 << (bits - 1)) else crc << 1
        table.append(crc & ((1 << bits) - 1))
    return tuple(table)


def ogg_pages(data: bytes) -> list[int]:
    """Where the pages of an Ogg file begin."""
    return [at for at in range(len(data)) if data[at : at + 4] == b"OggS"]


def id3(size: int, body: bytes = b"") -> bytes:
    """An ID3v2 tag that claims `size` bytes."""
    return b"ID3\x04\0\0" + bytes((size >> shift) & 0x7F for shift in (21, 14, 7, 0)) + body


def sparse(path: Path, head: bytes, size_bytes: int) -> None:
    """A file with a hole behind its head."""
    path.write_bytes(head)
    os.truncate(path, size_bytes)
