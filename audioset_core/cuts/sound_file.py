"""One sound file, written block by block: FLAC or WAV, whichever holds the samples exactly.

The samples are converted here, not in libsndfile, whose conversion of floats to FLAC turned -1 into
+1, and which wraps or refuses what is above full scale (libsndfile, issues 309 and 1040).

Source: RFC 9639, sections 3 and 9.1.2 (what FLAC holds); libsndfile 1.2 writes up to 24 bits.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
import soundfile

from audioset_core.arrays import Floats
from audioset_core.audio.mono import StreamInfo
from audioset_core.storage.atomic_files import replacing

Format = Literal["flac", "wav"]

_FLAC_RATE_HZ, _FLAC_ANY_RATE_HZ = 655_350, 65_535
"""The highest rate; above the second one only multiples of 10 Hz."""
_FLAC_CHANNELS, _FLAC_BITS = 8, 24
_WAV_BYTES = (1 << 32) - 4096
"""Samples of a WAV file, whose header has 32 bits for their size; longer files are RF64."""
_FLOATS = {"float32": "FLOAT", "float64": "DOUBLE"}


@dataclass(frozen=True, slots=True)
class SoundFacts:
    """Figures of a written file: samples per channel, rate, and container with coding."""

    n_samples: int
    sample_rate_hz: int
    format: str


@dataclass(frozen=True, slots=True)
class Encoding:
    """How samples are stored. `bits`: of whole numbers; None: floats.

    ``is_rounded``: samples that lie between two numbers become the nearer one.
    """

    container: str
    subtype: str
    bits: int | None
    is_rounded: bool = False
    remark: str = ""
    """Why this is not what was asked for."""

    @property
    def format(self) -> str:
        """Container and coding, as in `SoundFacts`."""
        return f"{self.container}/{self.subtype}"

    @property
    def suffix(self) -> str:
        """The ending of the file's name."""
        return ".flac" if self.container == "FLAC" else ".wav"

    def stored(self, block: Floats) -> Any | None:
        """The samples as they are written, or None if this encoding does not hold them.

        Shape: ``[n, n_channels]`` -> the same, int32 (the value in the highest bits) or floats
        """
        if self.bits is None:
            return block.astype(np.float32) if self.subtype == "FLOAT" else block
        full = 2.0 ** (self.bits - 1)
        scaled = block * full
        whole = np.rint(scaled)
        if not (self.is_rounded or np.array_equal(whole, scaled)):
            return None
        if len(whole) and not (whole.min() >= -full and whole.max() < full):
            return None
        return (whole * 2.0 ** (32 - self.bits)).astype(np.int32)


def encodings(info: StreamInfo, wanted: Format) -> list[Encoding]:
    """The encodings for a recording's samples, to be tried in this order; the last holds them all.

    >>> info = StreamInfo("WAV/PCM_16", 44_100, 2, None, sample_type="int16")
    >>> [each.subtype for each in encodings(info, "flac")]
    ['PCM_16', 'PCM_24', 'PCM_32', 'DOUBLE']
    """
    kind = info.sample_type
    why = _why_no_flac(info) if wanted == "flac" else ""
    if kind in _FLOATS:
        return [Encoding("WAV", _FLOATS[kind], None, remark=why)]
    if kind == "lossy":
        floats = Encoding("WAV", "FLOAT", None, remark=why)
        if wanted == "wav" or why:
            return [floats]
        loud = "WAV, since peaks are above full scale"
        return [
            Encoding("FLAC", "PCM_24", 24, is_rounded=True),
            Encoding("WAV", "FLOAT", None, remark=loud),
        ]
    least = int(kind.removeprefix("int"))
    found = []
    for bits in (8, 16, 24, 32):
        is_flac = wanted == "flac" and not why and bits <= _FLAC_BITS
        subtype = "PCM_U8" if bits == 8 and not is_flac else f"PCM_{'S' * (bits == 8)}{bits}"
        deep = "WAV, since FLAC has up to 24 bits here" if wanted == "flac" else ""
        if bits >= least:
            remark = "" if is_flac else why or deep
            found.append(Encoding("FLAC" if is_flac else "WAV", subtype, bits, remark=remark))
    return [*found, Encoding("WAV", "DOUBLE", None, remark="WAV, since samples are no integers")]


@contextmanager
def sound_file(
    path: Path, encoding: Encoding, info: StreamInfo, n_samples: int
) -> Iterator[Callable[[Floats], bool]]:
    """A function that adds samples ``[n, n_channels]``; False if the encoding does not hold them.

    The file appears when the block ends without an error and all `n_samples` are in it.

    Raises:
        OSError: the disk is full, ...; no file is left.
    """
    n_bytes = n_samples * info.n_channels * ((encoding.bits or 64) // 8)
    is_long = encoding.container == "WAV" and n_bytes > _WAV_BYTES
    with replacing(path) as file:
        with _write_errors(file), soundfile.SoundFile(
            file.fileno(), "w", info.sample_rate_hz, info.n_channels,
            format="RF64" if is_long else encoding.container, subtype=encoding.subtype,
            closefd=False,
        ) as sound:  # fmt: skip

            def write(block: Floats) -> bool:
                stored = encoding.stored(block)
                if stored is not None:
                    with _write_errors(file):
                        sound.write(stored)
                return stored is not None

            yield write
        # What could not be written when it was closed is not told.
        written = facts_of(Path(file.name))
        if written is None or written.n_samples != n_samples:
            raise _write_error(file)


def facts_of(path: Path) -> SoundFacts | None:
    """The figures of a file of ours; None if it is not whole, or not a sound file."""
    try:
        with soundfile.SoundFile(path) as sound:
            n_samples = int(sound.frames)
            is_whole = sound.seek(n_samples - 1) == n_samples - 1 and len(sound.read(1)) == 1
            name = f"{sound.format}/{sound.subtype}"
            return SoundFacts(n_samples, int(sound.samplerate), name) if is_whole else None
    except soundfile.LibsndfileError:
        return None


@contextmanager
def _write_errors(file: BinaryIO) -> Iterator[None]:
    """Raises: OSError: where libsndfile says that it could not write."""
    try:
        yield
    except soundfile.LibsndfileError as error:
        raise _write_error(file) from error


def _write_error(file: BinaryIO) -> OSError:
    """Why the last write failed, which libsndfile does not tell: the next ones fail alike."""
    failed = OSError(errno.EIO, "a sound file could not be written")
    try:
        for _ in range(3):  # the first may still fit in part
            os.write(file.fileno(), bytes(1 << 20))
    except OSError as error:
        failed = error
    failed.filename = str(Path(file.name).parent)
    return failed


def _why_no_flac(info: StreamInfo) -> str:
    rate_hz = info.sample_rate_hz
    if info.sample_type in _FLOATS:
        return "WAV, since FLAC has no float samples"
    if info.n_channels > _FLAC_CHANNELS:
        return f"WAV, since FLAC has up to {_FLAC_CHANNELS} channels"
    if rate_hz > _FLAC_RATE_HZ or (rate_hz > _FLAC_ANY_RATE_HZ and rate_hz % 10):
        return f"WAV, since FLAC has no rate of {rate_hz} Hz"
    return ""
