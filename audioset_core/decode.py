"""Compressed or raw bytes to mono float32 blocks, in bounded memory.

libsndfile decodes what it knows (wav, flac, ogg, opus, mp3, aiff, caf, ...), FFmpeg (the
extra ``ffmpeg``) an allow-list of other containers. Neither is believed about lengths: blocks
are read until there are no more, and what came is compared with what the header promised.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray

from audioset_core.errors import AudioError, Reason
from audioset_core.headers import OggFault, mp3_goes_on, ogg_fault, stated_size
from audioset_core.vorbis import vorbis_blocks

F32 = NDArray[np.float32]

MIN_RATE_HZ, MAX_RATE_HZ = 1_000, 384_000
MAX_CHANNELS = 32
BLOCK_SAMPLES = 1 << 16
"""Sample frames per block (1.5 s at 44.1 kHz); fewer with many channels."""

# A header may promise this many samples too many before the file counts as truncated: MP3
# and AAC encoders round to frames of 1,152 and 1,024 and differ about their delay.
_SLACK_SAMPLES = 4 * 1152
# Lengths above this are placeholders of streamed files, not promises (2**40 samples: 290 days
# at 44.1 kHz).
_MAX_PROMISE = 1 << 40

_SIGNATURES: tuple[tuple[int, bytes, str], ...] = (
    (4, b"ftyp", "MP4"),
    (0, b"\x1aE\xdf\xa3", "Matroska"),
    (0, b"0&\xb2u\x8ef\xcf\x11", "ASF"),
    (0, b"#!AMR", "AMR"),
    (0, b"FLV\x01", "FLV"),
    (8, b"AVI ", "AVI"),
    (0, b"\xff\xf1", "AAC"),
    (0, b"\xff\xf9", "AAC"),
)
# FFmpeg's name of the demuxer for each signature: an allow-list, nothing else is opened.
_DEMUXERS = {
    "MP4": "mov", "Matroska": "matroska", "ASF": "asf", "AMR": "amr", "FLV": "flv",
    "AVI": "avi", "AAC": "aac",
}  # fmt: skip

_OTHER_SIGNATURES = (
    (b"PK\x03\x04", "a zip archive"),
    (b"\x89PNG", "a PNG picture"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"%PDF", "a PDF document"),
    (b"GIF8", "a GIF picture"),
    (b"\x7fELF", "a program"),
    (b"\x1f\x8b", "a gzip archive"),
)


_OGG_FAULTS: dict[OggFault, tuple[Reason, str]] = {
    "cut": (Reason.TRUNCATED, "the Ogg stream breaks off after {:.2f} s"),
    "damaged": (Reason.DAMAGED, "an Ogg page is spoilt or missing; {:.2f} s could be read"),
    "chained": (Reason.UNSUPPORTED, "another Ogg stream follows the first, which is {:.2f} s long"),
}


@dataclass(frozen=True, slots=True)
class StreamInfo:
    """What the header says. ``promised_samples`` is None where it makes no promise."""

    format: str
    sample_rate_hz: int
    n_channels: int
    promised_samples: int | None


class Decoder:
    """One open stream: its `info`, and its samples as mono blocks."""

    info: StreamInfo

    def blocks(self) -> Iterator[F32]:
        """Mono float32 blocks ``[n]`` at the recording's own rate, now and then an empty one.

        Raises:
            AudioError: damaged, truncated, empty, or with samples that are not finite.
        """
        n_samples = 0
        for block in self._raw_blocks():
            mono = mix_to_mono(block)
            finite = np.isfinite(mono)
            if not finite.all():
                at_s = (n_samples + int(finite.argmin())) / self.info.sample_rate_hz
                raise AudioError(Reason.NOT_FINITE, f"NaN or infinity at {at_s:.2f} s")
            n_samples += len(mono)
            yield mono
        self._check_length(n_samples)

    def skip(self, n_samples: int) -> int:  # noqa: ARG002 - a decoder that can will need it
        """Go on to about that sample before the first block is read; returns where that is.

        0 where the format cannot; whoever skips stops before the end, whose length is checked.
        """
        return 0

    def close(self) -> None:
        """Release the decoder (not the file)."""

    def _raw_blocks(self) -> Iterator[F32]:
        """Blocks ``[n, n_channels]``, each good until the next is asked for."""
        raise NotImplementedError

    def _check_length(self, n_samples: int) -> None:
        if n_samples == 0:
            raise AudioError(Reason.EMPTY, "a header, but no samples")
        promised = self.info.promised_samples
        slack = 0 if self.info.format.startswith("FLAC") else _SLACK_SAMPLES
        if promised is not None and n_samples + slack < promised:
            raise _truncated(n_samples, promised, self.info.sample_rate_hz)


def mix_to_mono(block: F32) -> F32:
    """Average of the channels. Shape: ``[n, n_channels]`` -> ``[n]``.

    Written as sums: ``mean(axis=1)`` is 16 times slower on two interleaved channels.
    """
    n_channels = block.shape[1]
    if n_channels == 1:
        return block[:, 0].copy()
    with np.errstate(over="ignore", invalid="ignore"):
        total = block[:, 0] + block[:, 1]
        for channel in range(2, n_channels):
            total += block[:, channel]
        total *= np.float32(1.0 / n_channels)
    return total


def open_decoder(fd: int, size_bytes: int) -> Decoder:
    """Choose a decoder by the file's first bytes.

    Raises:
        AudioError: not audio, a format without a decoder here, or figures out of range.
    """
    head = os.pread(fd, 16, 0)
    container = _container(head)
    decoder = (
        _FFmpegDecoder(fd, container, size_bytes)
        if container
        else _SndfileDecoder(fd, head, size_bytes)
    )
    try:
        _check_range(decoder.info)
    except AudioError:
        decoder.close()
        raise
    return decoder


def _check_range(info: StreamInfo) -> None:
    if not MIN_RATE_HZ <= info.sample_rate_hz <= MAX_RATE_HZ:
        raise AudioError(
            Reason.OUT_OF_RANGE,
            f"{info.sample_rate_hz} Hz; {MIN_RATE_HZ} to {MAX_RATE_HZ} Hz are read",
        )
    if not 1 <= info.n_channels <= MAX_CHANNELS:
        raise AudioError(
            Reason.OUT_OF_RANGE, f"{info.n_channels} channels; 1 to {MAX_CHANNELS} are read"
        )


def _container(head: bytes) -> str | None:
    for offset, magic, name in _SIGNATURES:
        if head[offset : offset + len(magic)] == magic:
            return name
    return None


def _check_size(fd: int, size_bytes: int, n_samples: int, info: StreamInfo) -> None:
    """Compare the file with the size that its own header states."""
    sizes = stated_size(fd, size_bytes)
    if sizes is not None and sizes[0] > sizes[1]:
        stated, present = sizes
        raise _truncated(n_samples, n_samples * stated // max(1, present), info.sample_rate_hz)


def _truncated(n_samples: int, promised: int, rate_hz: int) -> AudioError:
    return AudioError(
        Reason.TRUNCATED,
        f"the header promises {promised / rate_hz:.2f} s, {n_samples / rate_hz:.2f} s are there",
    )


def after(n_samples: int, blocks: Iterator[F32]) -> Iterator[F32]:
    """What follows the first samples; empty blocks for these, so that nobody waits in vain."""
    n_seen = 0
    for block in blocks:
        yield block[max(0, n_samples - n_seen) :]
        n_seen += len(block)


class _StreamedSoundFile(soundfile.SoundFile):  # type: ignore[misc]
    """Reads straight on: no seek after each block, no trust in the stated length."""

    def seekable(self) -> bool:
        return False


class _SndfileDecoder(Decoder):
    def __init__(self, fd: int, head: bytes, size_bytes: int) -> None:
        os.lseek(fd, 0, os.SEEK_SET)
        self._fd, self._size_bytes, self._is_for_a_part = fd, size_bytes, False
        try:
            self._file = _StreamedSoundFile(fd, closefd=False)
        except (soundfile.LibsndfileError, RuntimeError, ValueError, TypeError) as error:
            raise _not_audio(head, str(error)) from error
        promised = int(self._file.frames)
        self.info = StreamInfo(
            format=f"{self._file.format}/{self._file.subtype}",
            sample_rate_hz=int(self._file.samplerate),
            n_channels=int(self._file.channels),
            promised_samples=promised if 0 < promised < _MAX_PROMISE else None,
        )

    def _raw_blocks(self) -> Iterator[F32]:
        promised, n_given = self.info.promised_samples or 0, 0
        for block in self._fast_blocks() if promised else ():
            wanted = block[: promised - n_given]
            n_given += len(wanted)
            yield wanted
            if n_given == promised:
                return
        yield from after(n_given, self._own_blocks())

    def _fast_blocks(self) -> Iterator[F32]:
        """What a faster decoder gives, as far as it gets."""
        info = self.info
        # Of faulty pages decoders make different things, and a part is not worth a look at all.
        if info.format != "OGG/VORBIS" or self._is_for_a_part or self._ogg_fault:
            return iter(())
        return vorbis_blocks(
            self._fd, self._size_bytes, info.sample_rate_hz, info.n_channels, self._block_samples
        )

    @cached_property
    def _ogg_fault(self) -> OggFault | None:
        return ogg_fault(self._fd, self._size_bytes)

    @property
    def _block_samples(self) -> int:
        return max(1024, BLOCK_SAMPLES // self.info.n_channels)

    def _own_blocks(self) -> Iterator[F32]:
        want = self._block_samples
        # One buffer for all blocks: fresh memory costs as much as mixing what is in it.
        buffer = np.empty((want, self.info.n_channels), np.float32)
        n_samples = 0
        while True:
            try:
                block = self._file.read(out=buffer)
            except (soundfile.LibsndfileError, RuntimeError) as error:
                raise self._broken(n_samples, error) from error
            n_samples += len(block)
            if len(block):
                yield block
            if len(block) < want:
                return

    def skip(self, n_samples: int) -> int:
        """As `Decoder.skip`; a file that is not what its header says is read from the start."""
        self._is_for_a_part = True
        if not 0 < n_samples < (self.info.promised_samples or 0):
            return 0
        try:
            return int(self._file.seek(n_samples))
        except (soundfile.LibsndfileError, RuntimeError):
            return int(self._file.seek(0))

    def _broken(self, n_samples: int, error: Exception) -> AudioError:
        at_s = n_samples / self.info.sample_rate_hz
        if os.lseek(self._fd, 0, os.SEEK_CUR) >= self._size_bytes and self.info.promised_samples:
            return _truncated(n_samples, self.info.promised_samples, self.info.sample_rate_hz)
        return AudioError(Reason.DAMAGED, f"after {at_s:.1f} s: {_plain(error)}")

    def _check_length(self, n_samples: int) -> None:
        super()._check_length(n_samples)
        if self._file.format == "OGG" and (fault := self._ogg_fault):
            at_s = n_samples / self.info.sample_rate_hz
            reason, detail = _OGG_FAULTS[fault]
            raise AudioError(reason, detail.format(at_s))
        if self._file.format in ("MP3", "MPEG") and mp3_goes_on(self._fd, self._size_bytes):
            at_s = n_samples / self.info.sample_rate_hz
            raise AudioError(Reason.UNSUPPORTED, f"more MP3 follows its stated end at {at_s:.2f} s")
        _check_size(self._fd, self._size_bytes, n_samples, self.info)

    def close(self) -> None:
        self._file.close()


class _FFmpegDecoder(Decoder):
    """Containers that libsndfile does not read, through PyAV."""

    def __init__(self, fd: int, container: str, size_bytes: int) -> None:
        self._size_bytes = size_bytes
        try:
            import av
        except ImportError as error:
            raise AudioError(
                Reason.UNSUPPORTED,
                f"{container} needs FFmpeg: pip install 'audioset-flows[ffmpeg]'",
            ) from error
        os.lseek(fd, 0, os.SEEK_SET)
        self._file = os.fdopen(os.dup(fd), "rb")
        try:
            self._container = av.open(self._file, mode="r", format=_DEMUXERS[container])
            if not self._container.streams.audio:
                raise AudioError(Reason.EMPTY, f"{container} without an audio stream")
            self._stream = self._container.streams.audio[0]
            codec = self._stream.codec_context
            codec.thread_count = 1  # files fill the cores
            self.info = StreamInfo(
                format=f"{container}/{codec.name}",
                sample_rate_hz=int(codec.sample_rate or 0),
                n_channels=int(codec.channels or 0),
                promised_samples=_promised(self._stream, container),
            )
            # What the stream turns into later (rate, channels) is brought to what was announced.
            self._resampler = av.AudioResampler("flt", codec.layout, self.info.sample_rate_hz)
        except (AudioError, MemoryError):
            self.close()
            raise
        except Exception as error:  # PyAV answers damage with any type at all
            self.close()
            raise AudioError(Reason.DAMAGED, f"{container}: {_plain(error)}") from error

    def _raw_blocks(self) -> Iterator[F32]:
        try:
            for frame in self._container.decode(self._stream):
                yield from self._planes(frame)
            yield from self._planes(None)
        except (AudioError, MemoryError):
            raise
        except Exception as error:  # PyAV answers damage with any type at all
            raise AudioError(Reason.DAMAGED, _plain(error)) from error

    def _check_length(self, n_samples: int) -> None:
        super()._check_length(n_samples)
        _check_size(self._file.fileno(), self._size_bytes, n_samples, self.info)

    def _planes(self, frame: Any) -> Iterator[F32]:
        for piece in self._resampler.resample(frame):
            samples = piece.to_ndarray().reshape(-1, self.info.n_channels)
            if len(samples):
                yield samples.astype(np.float32, copy=False)

    def close(self) -> None:
        with contextlib.suppress(Exception):  # also where it never came to be
            self._container.close()
        self._file.close()


def _promised(stream: Any, container: str) -> int | None:
    """Samples per channel by an MP4's index; other containers only estimate, or state nothing."""
    if container != "MP4" or not stream.duration or not stream.codec_context.sample_rate:
        return None
    return int(stream.duration * stream.time_base * stream.codec_context.sample_rate)


def _not_audio(head: bytes, message: str) -> AudioError:
    for magic, name in _OTHER_SIGNATURES:
        if head.startswith(magic):
            return AudioError(Reason.NOT_AUDIO, f"this is {name}")
    if head and all(byte >= 32 or byte in b"\t\r\n" for byte in head) and head.isascii():
        # RIFF and its kin are text-like at first: only name it text if no container claims it.
        if not head.startswith((b"RIFF", b"RIFX", b"RF64", b"FORM", b"OggS", b"fLaC", b"caff")):
            return AudioError(Reason.NOT_AUDIO, "this is text")
        return AudioError(Reason.DAMAGED, "the header breaks off")
    if head.startswith((b"RIFF", b"RIFX", b"RF64", b"FORM", b"OggS", b"fLaC", b"caff", b"ID3")):
        return AudioError(Reason.DAMAGED, f"the header is not readable ({_plain(message)})")
    return AudioError(Reason.NOT_AUDIO, "no known audio format begins like this")


def _plain(error: object) -> str:
    """A library's message on one short line."""
    return " ".join(str(error).split())[:160]
