"""libsndfile's decoders: fast and exact for their formats, up to the length in the header."""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np
import soundfile

from audioset_core.arrays import F32, Floats
from audioset_core.audio.ffmpeg import error_text
from audioset_core.audio.mono import StreamInfo, after, frames_per_block
from audioset_core.audio.remarks import Remarks
from audioset_core.audio.vorbis import vorbis_blocks
from audioset_core.errors import AudioError, Reason
from audioset_core.file_headers.file_view import FileView
from audioset_core.file_headers.ogg_pages import OggFault

# Lengths above this are placeholders of streamed files, not promises (2**40 samples: 290 days
# at 44.1 kHz).
_MAX_PROMISE = 1 << 40
_SAMPLE_TYPES = {
    "PCM_S8": "int8", "PCM_U8": "int8", "DPCM_8": "int8", "PCM_16": "int16", "DPCM_16": "int16",
    "ULAW": "int16", "ALAW": "int16", "ALAC_16": "int16", "PCM_24": "int24", "ALAC_20": "int24",
    "ALAC_24": "int24", "PCM_32": "int32", "ALAC_32": "int32", "FLOAT": "float32",
    "DOUBLE": "float64",
}  # fmt: skip
"""What is stored, by libsndfile's subtype; all other codings are lossy."""
_ERRORS = (soundfile.LibsndfileError, RuntimeError, ValueError, TypeError)


class _StreamedSoundFile(soundfile.SoundFile):  # type: ignore[misc]
    """Reads sequentially: no seek after each block, no trust in the stated length."""

    def seekable(self) -> bool:
        return False


class SndfileSource:
    """One file: `info`, its samples as blocks of all channels, and `remarks`.

    Raises (from `__init__`):
        AudioError: libsndfile does not know the format.
    """

    def __init__(
        self,
        view: FileView,
        *,
        is_whole_file: bool,
        fault: OggFault | None,
        is_exact: bool = False,
    ) -> None:
        self.remarks = Remarks()
        self._view, self._fault, self._is_for_a_part = view, fault, False
        self._is_exact = is_exact
        # The descriptor itself where it shows what the view does: no call of ours for each read.
        self._fd = view.fd if is_whole_file else None
        try:
            if self._fd is None:
                self._file = _StreamedSoundFile(view.open())
            else:
                os.lseek(self._fd, 0, os.SEEK_SET)
                self._file = _StreamedSoundFile(self._fd, closefd=False)
        except _ERRORS as error:
            raise AudioError(Reason.DAMAGED, _libsndfile_text(error)) from error
        if self._file.subtype.startswith("MPEG") and self._file.format != "MP3":
            self._file.close()  # its count of samples is a guess
            raise AudioError(Reason.UNSUPPORTED, "MPEG audio in a WAV file")
        promised = int(self._file.frames)
        self.name = str(self._file.format)
        self.info = StreamInfo(
            format=f"{self._file.format}/{self._file.subtype}",
            sample_rate_hz=int(self._file.samplerate),
            n_channels=int(self._file.channels),
            promised_samples=promised if 0 < promised < _MAX_PROMISE else None,
            sample_type=_SAMPLE_TYPES.get(self._file.subtype, "lossy"),
        )

    def holds(self, n_samples: int) -> bool:
        """Whether the file has a sample with that number; nothing before it is read."""
        try:
            found = self._file.seek(n_samples - 1) == n_samples - 1 and len(self._file.read(1)) == 1
            self._file.seek(0)
        except _ERRORS:
            return False
        return bool(found)

    def blocks(self) -> Iterator[Floats]:
        """Blocks ``[n, n_channels]`` until the stated end; each is valid until the next.

        Raises:
            AudioError: libsndfile cannot decode the file.
        """
        promised, n_given = self.info.promised_samples or 0, 0
        for block in self._fast_blocks() if promised else ():
            wanted = block[: promised - n_given]
            n_given += len(wanted)
            yield wanted
            if n_given == promised:
                return
        yield from after(n_given, self._own_blocks())

    def skip(self, n_samples: int) -> int:
        """Go to that sample; returns 0 where the file does not allow it."""
        self._is_for_a_part = True
        if not 0 < n_samples < (self.info.promised_samples or 0):
            return 0
        try:
            return int(self._file.seek(n_samples))
        except _ERRORS:
            return int(self._file.seek(0))

    def bytes_left(self) -> int:
        """Bytes that libsndfile has not read yet; it reads a little ahead."""
        at = os.lseek(self._fd, 0, os.SEEK_CUR) if self._fd is not None else self._view.size_bytes
        return max(0, self._view.start + self._view.size_bytes - at)

    def close(self) -> None:
        """Release the decoder (not the file)."""
        self._file.close()

    def _fast_blocks(self) -> Iterator[F32]:
        """Blocks of a faster decoder, until it stops."""
        info = self.info
        # Decoders treat faulty pages differently, and for a part the gain is small.
        if info.format != "OGG/VORBIS" or self._is_for_a_part or self._fault:
            return iter(())
        return vorbis_blocks(
            self._view, info.sample_rate_hz, info.n_channels, frames_per_block(info.n_channels)
        )

    def _own_blocks(self) -> Iterator[Floats]:
        want = frames_per_block(self.info.n_channels)
        # One buffer for all blocks: fresh memory costs as much as mixing what is in it.
        kind = np.float64 if self._is_exact else np.float32
        buffer: Floats = np.empty((want, self.info.n_channels), kind)
        while True:
            try:
                block = self._file.read(out=buffer)
            except _ERRORS as error:
                raise AudioError(Reason.DAMAGED, _libsndfile_text(error)) from error
            if len(block):
                yield block
            if len(block) < want:
                return


def _libsndfile_text(error: Exception) -> str:
    """libsndfile's message without the file name, which is a number here."""
    text = error_text(error)
    return (text.partition(": ")[2] if text.startswith("Error opening") else text).rstrip(".")
