"""A recording as a file: opened once, hashed, decoded and resampled in bounded memory.

The path may be an address in object storage; its bytes come through the spool.

A recording is opened without blocking, by its name in bytes, so that a FIFO, a device or a name
that is not valid text does no harm. The digest is of the very bytes that are decoded: small files
are copied into memory while they are hashed; for large files, changes are detected.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import PurePath
from typing import TypeVar

from audioset_core.arrays import F32
from audioset_core.audio.decoders import DecodeOptions
from audioset_core.audio.mono import Decoder
from audioset_core.audio.remarks import Remark
from audioset_core.audio.sandbox import open_sandboxed
from audioset_core.errors import AudioError, Reason
from audioset_core.object_storage.addresses import is_address
from audioset_core.object_storage.spool import spool
from audioset_core.records import Health

IN_MEMORY_BYTES = 8 << 20
"""Up to this size the bytes are copied while hashed; above, the file is read twice."""

_READ_BYTES = 1 << 20
_NO_FILE = "a folder, device, socket or pipe"
_AGAIN = "the next run tries it again"

T = TypeVar("T")

_LOSSLESS = """
    wav wave bwf rf64 bw64 w64 flac aif aiff aifc au snd caf caff wv tta ape tak shn dsf dff voc sph
    nist 8svx sox ircam avr qoa"""
_COMPRESSED = """
    mp3 mp2 mp1 mpa m2a ogg oga opus spx m4a m4b m4r aac adts loas latm 3ga ac3 eac3 ec3 dts thd mlp
    wma amr awb gsm qcp mpc mp+ ra mka weba oma aea lc3"""
_VIDEO = """
    mp4 m4v mov qt 3gp 3gpp 3g2 3gp2 f4v f4a mkv mk3d webm ogv ogx ogm avi divx asf wmv flv rm rmvb
    ts mts m2ts m2t trp mpg mpeg mpe vob mxf gxf wtv nut dv swf"""
AUDIO_SUFFIXES = frozenset(f".{name}" for name in f"{_LOSSLESS} {_COMPRESSED} {_VIDEO}".split())
"""Endings that count as recordings when a folder is walked (a file named outright always does)."""

# Usual bytes per second by ending, only for planning the work.
_USUAL_BYTES_PER_S = {
    ".wav": 176_400, ".wave": 176_400, ".bwf": 288_000, ".aif": 176_400, ".aiff": 176_400,
    ".flac": 90_000, ".w64": 288_000, ".rf64": 288_000, ".au": 88_200, ".caf": 88_200,
}  # fmt: skip
_USUAL_COMPRESSED_BYTES_PER_S = 16_000


class Recording:
    """An open recording.

    Attributes:
        sha256: digest of the file's bytes, in hex: the clip's identity.
        size_bytes, mtime_ns: those of the file system when the file was opened, or the object's.
        info: the figures of the header (format, rate, channels, exact length if stated).
        n_samples: samples per channel decoded so far, at the recording's own rate.
    """

    def __init__(
        self,
        path: bytes,
        options: DecodeOptions | None = None,
        version: tuple[str | None, int] | None = None,
    ) -> None:
        self._options = options
        self._fd = open_regular(path, version)
        self._is_open = True
        try:
            self._before = os.fstat(self._fd)
            self.size_bytes = self._before.st_size
            self.mtime_ns = self._before.st_mtime_ns
            if self.size_bytes > IN_MEMORY_BYTES:
                self._open_decoder().close()  # before reading gigabytes that are not sound
                os.lseek(self._fd, 0, os.SEEK_SET)
            self.sha256 = self._take_in()
            self._decoder = self._open_decoder()
        except BaseException:
            os.close(self._fd)
            raise
        self.info = self._decoder.info
        self.n_samples = 0

    @property
    def duration_s(self) -> float:
        """Seconds decoded so far."""
        return self.n_samples / self.info.sample_rate_hz

    @property
    def remarks(self) -> tuple[Remark, ...]:
        """What is missing, added or left out; complete once all blocks are read."""
        return self._decoder.remarks()

    @property
    def health(self) -> Health | None:
        """The state of the recording, if the options ask for it; known once all blocks are read."""
        return self._decoder.health

    def blocks(self) -> Iterator[F32]:
        """Mono float32 blocks at the recording's own rate.

        Raises:
            AudioError: as `Decoder.blocks`, or the file changed while it was read.
        """
        decoded = self._decoder.blocks()
        while (block := self._watched(lambda: next(decoded, None))) is not None:
            self.n_samples += len(block)
            yield block
        self._check_unchanged()

    def close(self) -> None:
        """Close decoder and file; a second call does nothing."""
        if not self._is_open:
            return
        # First, because a descriptor closed twice may belong to another file by then.
        self._is_open = False
        try:
            self._decoder.close()
        finally:
            os.close(self._fd)

    def __enter__(self) -> Recording:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _open_decoder(self) -> Decoder:
        return self._watched(lambda: open_sandboxed(self._fd, self.size_bytes, self._options))

    def _take_in(self) -> str:
        """Hash the bytes; those of a small file are copied into memory and decoded from there."""
        if self.size_bytes == 0:
            raise AudioError(Reason.EMPTY, "0 bytes")
        digest = hashlib.sha256()
        copy = -1
        try:
            if self.size_bytes <= IN_MEMORY_BYTES and hasattr(os, "memfd_create"):
                copy = os.memfd_create("recording", os.MFD_CLOEXEC)
            left = self.size_bytes + 1  # one byte more than expected, to notice a file that grows
            while left > 0 and (piece := os.read(self._fd, min(left, _READ_BYTES))):
                left -= len(piece)
                digest.update(piece)
                if copy >= 0 and os.write(copy, piece) < len(piece):
                    raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
            self._check_unchanged()
            if left != 1:
                raise AudioError(Reason.CHANGED, _AGAIN)
            if copy >= 0:
                # The descriptor number stays ours to close; the bytes behind it are now the copy.
                os.dup2(copy, self._fd, inheritable=False)
                self._before = os.fstat(self._fd)
        except OSError as error:
            raise AudioError(Reason.UNREADABLE, error.strerror or str(error)) from error
        finally:
            if copy >= 0:
                os.close(copy)
        return digest.hexdigest()

    def _check_unchanged(self) -> None:
        now = os.fstat(self._fd)
        watched = ("st_size", "st_mtime_ns", "st_ctime_ns")
        if any(getattr(now, name) != getattr(self._before, name) for name in watched):
            raise AudioError(Reason.CHANGED, _AGAIN)

    def _watched(self, step: Callable[[], T]) -> T:
        """A step of decoding; if it fails and the file has changed, the change is the reason."""
        try:
            return step()
        except AudioError:
            self._check_unchanged()
            raise
        except OSError as error:
            raise AudioError(Reason.UNREADABLE, error.strerror or str(error)) from error


def usual_duration_s(path: bytes, size_bytes: int) -> float:
    """An estimate of a recording's length in seconds from its name and size, without opening it.

    >>> usual_duration_s(b"a.wav", 17_640_000)
    100.0
    """
    suffix = PurePath(os.fsdecode(path)).suffix.lower()
    return size_bytes / _USUAL_BYTES_PER_S.get(suffix, _USUAL_COMPRESSED_BYTES_PER_S)


def stated_duration_s(path: bytes) -> float | None:
    """A recording's length in seconds by its header; None where the header cannot be read.

    An object is not asked: that would be a second request for its bytes.
    """
    if is_address(path):
        return None
    try:
        fd = open_regular(path)
    except AudioError:
        return None
    try:
        decoder = open_sandboxed(fd, os.fstat(fd).st_size)
        info = decoder.info
        decoder.close()
    except (AudioError, OSError):
        return None
    finally:
        os.close(fd)
    if info.promised_samples:
        return info.promised_samples / info.sample_rate_hz
    return info.expected_s


def open_regular(path: bytes, version: tuple[str | None, int] | None = None) -> int:
    """A descriptor of a regular file, opened without blocking, or of an object's copy.

    `version`: ETag and size of an object as it was found; without them it is the newest.

    Raises:
        AudioError: the file is gone, unreadable, or not a regular file.
    """
    if is_address(path):
        return spool().open(path, *(version or ()))
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise AudioError(Reason.VANISHED, "it was listed, but no longer exists") from error
    except OSError as error:
        if error.errno == errno.ENXIO:
            raise AudioError(Reason.NOT_A_FILE, _NO_FILE) from error
        raise AudioError(Reason.UNREADABLE, error.strerror or str(error)) from error
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise AudioError(Reason.NOT_A_FILE, _NO_FILE)
    return fd
