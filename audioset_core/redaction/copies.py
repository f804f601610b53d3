"""One recording without its voices: heard, treated, and written as a copy.

What is on the disk is redacted from its first byte on, has a hidden name until it is whole, and is
of the very bytes that were labelled: the file is hashed first, and must not change meanwhile. Where
anything is in doubt there is no copy, but an `AudioError`.
"""

from __future__ import annotations

import hashlib
import math
import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import soundfile

from audioset_core.arrays import F32, F64, Floats
from audioset_core.audio.decoders import DecodeOptions
from audioset_core.audio.mono import StreamInfo
from audioset_core.audio.recording import open_regular
from audioset_core.audio.sandbox import open_sandboxed
from audioset_core.cuts.recording_cuts import LabelledFile
from audioset_core.cuts.sound_file import Encoding, encodings, sound_file
from audioset_core.errors import AudioError, Reason
from audioset_core.file_headers.file_view import FileView
from audioset_core.redaction.flac_notes import with_notes
from audioset_core.redaction.sample_bytes import NotInPlaceError, samples_at, write_over
from audioset_core.redaction.settings import Redaction
from audioset_core.redaction.spans import Spans, joined, likely_spans
from audioset_core.redaction.treatment import Pieces, treated
from audioset_core.redaction.voice import FRAME_S, VoiceDetector
from audioset_core.scores.coverage import patch_spans
from audioset_core.storage.atomic_files import TEMP_SUFFIX, replacing

Why = Literal["labels", "voice", "both"]


@dataclass(frozen=True, slots=True)
class VoiceScores:
    """The stored scores of the classes that count as voices.

    Shape:
        scores: [n_patches, n_classes], in [0, 1]
    """

    names: Sequence[str]
    scores: F32
    hop_s: float
    window_s: float


@dataclass(frozen=True, slots=True)
class Span:
    """Samples ``[first, last)``, why they go, and how sure that is.

    ``classes`` are those with a score of at least the least one, each with its peak there.
    """

    first: int
    last: int
    why: Why
    classes: tuple[tuple[str, float], ...]
    voice_peak: float


@dataclass(frozen=True, slots=True)
class Copy:
    """A copy that is whole and still hidden, and what it is to be called behind its name."""

    part: Path
    suffix: str
    format: str
    remark: str
    sha256: str


class OpenRecording:
    """The file of a labelled recording, as long as it is what was labelled."""

    def __init__(self, fd: int, source: LabelledFile, n_samples: int) -> None:
        self._fd, self._source, self._n_samples = fd, source, n_samples
        self._before = os.fstat(fd)
        with open(fd, "rb", closefd=False) as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != source.sha256:
                raise AudioError(Reason.CHANGED, "the file has changed since it was labelled")
        self.view = FileView(fd, 0, self._before.st_size)
        self.info: StreamInfo | None = None

    def blocks(self) -> Iterator[Floats]:
        """Blocks of all channels as they are stored; `info` is known with the first.

        Raises:
            AudioError: other figures or another length than when it was labelled, or not finite.
        """
        options = DecodeOptions(self._source.track, is_exact=True)
        n_read = 0
        with closing(open_sandboxed(self._fd, self.view.size_bytes, options)) as decoder:
            self.info = decoder.info
            if self.info.sample_rate_hz != self._source.sample_rate_hz:
                raise AudioError(Reason.DAMAGED, "another sample rate than when it was labelled")
            for block in decoder.all_channels():
                if not np.isfinite(block).all():
                    raise AudioError(Reason.NOT_FINITE, "NaN or infinity in one of the channels")
                n_read += len(block)
                yield block
        if n_read != self._n_samples:
            detail = f"{n_read:,} samples, not {self._n_samples:,} as when it was labelled"
            raise AudioError(Reason.DAMAGED, detail)
        now, watched = os.fstat(self._fd), ("st_size", "st_mtime_ns", "st_ctime_ns")
        if any(getattr(now, name) != getattr(self._before, name) for name in watched):
            raise AudioError(Reason.CHANGED, "try it again")

    def known_info(self) -> StreamInfo:
        """The figures of the header."""
        if self.info is None:
            next(iter(self.blocks()))
        assert self.info is not None  # noqa: S101 (for mypy)
        return self.info


@contextmanager
def opened(source: LabelledFile, n_samples: int) -> Iterator[OpenRecording]:
    """The recording, if it is the one that was labelled.

    Raises:
        AudioError: it is gone, unreadable, or has changed.
    """
    fd = open_regular(source.path)
    try:
        yield OpenRecording(fd, source, n_samples)
    except OSError as error:
        if error.filename is not None:
            raise
        raise AudioError(Reason.UNREADABLE, error.strerror or str(error)) from error
    finally:
        os.close(fd)


def find_spans(
    recording: OpenRecording, labels: VoiceScores, n_samples: int, settings: Redaction
) -> list[Span]:
    """Where the recording is to be redacted, in order; the whole of it is heard for that.

    Raises:
        AudioError: as `OpenRecording.blocks`.
    """
    probabilities = _voice_probabilities(recording)
    rate_hz = recording.known_info().sample_rate_hz
    is_voice = np.asarray((labels.scores >= settings.label_score).any(axis=1), bool)
    shape = {"hop_s": labels.hop_s, "window_s": labels.window_s, "duration_s": n_samples / rate_hz}
    voiced = likely_spans(probabilities, settings.voice_probability, FRAME_S)
    both = np.concatenate([patch_spans(is_voice, **shape), voiced])
    every_patch = patch_spans(np.ones_like(is_voice), **shape)
    return [
        _span((first, last), rate_hz, labels, every_patch, probabilities, settings)
        for first, last in joined(both, settings.padding_s, rate_hz, n_samples).tolist()
    ]


def write_copy(
    recording: OpenRecording, spans: Sequence[Span], folder: Path, n_samples: int,
    settings: Redaction,
) -> Copy:  # fmt: skip
    """Write the copy under a hidden name. The caller names or removes it.

    Raises:
        AudioError: as `OpenRecording.blocks`.
        OSError: the disk is full, ...; nothing is left.
    """
    info = recording.known_info()
    part = folder / f".{secrets.token_hex(8)}{TEMP_SUFFIX}"
    places: Spans = np.array([(s.first, s.last) for s in spans], np.int64).reshape(-1, 2)

    def pieces() -> Pieces:
        return treated(recording.blocks(), info, places, settings.low_pass_hz)

    with suppress(NotInPlaceError):
        start = samples_at(recording.view, info, n_samples)
        with replacing(part) as file:
            write_over(recording.view, start, info, pieces(), file)
        return _copy(part, "", info.format, "")
    for encoding in encodings(info, "flac"):
        with suppress(_NotHeldError):
            _encode(part, encoding, info, n_samples, pieces())
            return _described(part, encoding, info, recording.view)
    raise AudioError(Reason.UNSUPPORTED, "no format holds these samples")


class _NotHeldError(Exception):
    """An encoding does not hold the samples."""


def _encode(
    part: Path, encoding: Encoding, info: StreamInfo, n_samples: int, pieces: Pieces
) -> None:
    """Write a sound file, and read it to see that it has the samples that were meant."""
    meant, found = hashlib.sha256(), hashlib.sha256()
    with sound_file(part, encoding, info, n_samples) as add:
        for _, after, _ in pieces:
            stored = encoding.stored(after)
            if stored is None or not add(after):
                raise _NotHeldError
            meant.update(np.ascontiguousarray(stored).tobytes())
    kind = "int32" if encoding.bits else {"FLOAT": "float32"}.get(encoding.subtype, "float64")
    for block in soundfile.blocks(part, 1 << 16, dtype=kind, always_2d=True):
        found.update(np.ascontiguousarray(block).tobytes())
    if meant.digest() != found.digest():
        part.unlink()
        raise AudioError(Reason.INTERNAL, "the copy has other samples than those that were written")


def _described(part: Path, encoding: Encoding, info: StreamInfo, source: FileView) -> Copy:
    """The copy of an encoded file; one that was FLAC before gets its notes back."""
    is_same = info.format.startswith("FLAC/") and encoding.container == "FLAC"
    if not is_same:
        how = ", rounded to 24 bits" if encoding.is_rounded else ""
        why = f" ({encoding.remark})" if encoding.remark else ""
        remark = f"{info.format} is written as {encoding.format}{how}{why}, without its tags"
        return _copy(part, encoding.suffix, encoding.format, remark)
    whole = part.with_name(f".{secrets.token_hex(8)}{TEMP_SUFFIX}")
    try:
        with part.open("rb") as sound, replacing(whole) as file:
            view = FileView(sound.fileno(), 0, part.stat().st_size)
            if (bytes_ := with_notes(source, view)) is None:
                return _copy(part, "", encoding.format, "without its tags")
            file.writelines(bytes_)
        return _copy(whole, "", encoding.format, "")
    finally:
        if whole.exists():
            part.unlink(missing_ok=True)


def _copy(part: Path, suffix: str, written_as: str, remark: str) -> Copy:
    with part.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Copy(part, suffix, written_as, remark, digest)


def _voice_probabilities(recording: OpenRecording) -> F32:
    """Of each frame of the whole recording."""
    detector, found = None, list[F32]()
    for block in recording.blocks():
        if detector is None:
            info = recording.known_info()
            detector = VoiceDetector(info.sample_rate_hz, info.n_channels)
        found.append(detector.add(block))
    return np.concatenate([*found, *([] if detector is None else [detector.end()])])


def _span(
    place: tuple[int, int], rate_hz: int, labels: VoiceScores, patches_s: F64,
    probabilities: F32, settings: Redaction,
) -> Span:  # fmt: skip
    """Why a span is one: the peaks of all that overlaps with it."""
    first_s, last_s = place[0] / rate_hz, place[1] / rate_hz
    own = (patches_s[:, 0] < last_s) & (patches_s[:, 1] > first_s)
    peaks = labels.scores[own].max(axis=0, initial=0.0)
    named = sorted(zip(peaks.tolist(), labels.names, strict=True), reverse=True)
    classes = tuple((name, round(p, 4)) for p, name in named if p >= settings.label_score)
    frames = probabilities[int(first_s / FRAME_S) : math.ceil(last_s / FRAME_S)]
    voice_peak = float(frames.max(initial=0.0))
    is_voice = voice_peak >= settings.voice_probability
    why: Why = "both" if classes and is_voice else "voice" if is_voice else "labels"
    return Span(*place, why, classes, round(voice_peak, 4))
