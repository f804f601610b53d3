"""Cuts of one recording as files, in as few passes over the recording as its format allows.

Places are counted in samples from the beginning, as the labels are. Where libsndfile can go to a
sample, what lies far between two cuts is skipped; it goes to a second before the cut, since lossy
decoders need a while until they give the samples that they give in one go (libsndfile, issues 794
and 885). Time stamps of containers are too coarse for that: FFmpeg's formats are read from the
beginning, and so is everything that could not be read otherwise.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from pathlib import Path

from audioset_core.arrays import Floats
from audioset_core.audio.decoders import DecodeOptions
from audioset_core.audio.mono import StreamInfo
from audioset_core.audio.recording import open_regular
from audioset_core.audio.sandbox import SandboxedDecoder, open_sandboxed
from audioset_core.cuts.sound_file import Encoding, Format, encodings, sound_file
from audioset_core.errors import AudioError, Reason

_BEFORE_S = 1.0
_WORTH_A_SKIP_S = 30.0
_MOST_OPEN = 32


@dataclass(frozen=True, slots=True)
class Cut:
    """Samples ``[first, last)`` of a recording; `path` is without the ending of a sound file."""

    first: int
    last: int
    path: Path


@dataclass(frozen=True, slots=True)
class WrittenCut:
    """A file that was written."""

    path: Path
    encoding: Encoding


@dataclass(frozen=True, slots=True)
class LabelledFile:
    """A file as it was when its clip was labelled, and which track was; `sha256` is the clip's.

    ``is_partial``: decoders did not agree on all of it, so nothing of it is skipped.
    """

    path: bytes
    size_bytes: int
    mtime_ns: int
    sha256: str
    sample_rate_hz: int
    track: int | str = "default"
    is_partial: bool = False


def write_cuts(
    source: LabelledFile, cuts: Sequence[Cut], wanted: Format
) -> Iterator[tuple[Cut, WrittenCut | AudioError]]:
    """Write each cut; gives each, in any order, with its file or the reason why there is none.

    Raises:
        OSError: a file cannot be written.
    """
    try:
        fd = open_regular(source.path)
    except AudioError as error:
        yield from ((cut, error) for cut in cuts)
        return
    try:
        _check_unchanged(fd, source)
    except AudioError as error:
        yield from ((cut, error) for cut in cuts)
    else:
        yield from _in_passes(fd, source, cuts, wanted)
    finally:
        os.close(fd)


def _in_passes(
    fd: int, source: LabelledFile, cuts: Sequence[Cut], wanted: Format
) -> Iterator[tuple[Cut, WrittenCut | AudioError]]:
    left = dict.fromkeys(sorted(cuts, key=lambda cut: (cut.first, cut.last)))
    n_refused = Counter[Cut]()
    may_skip = not source.is_partial
    while left:
        group, settled = list(left), set()
        error = AudioError(Reason.TRUNCATED, "the sound ends before this place")
        try:
            start_s = max(0.0, group[0].first / source.sample_rate_hz - _BEFORE_S)
            options = DecodeOptions(source.track, is_exact=True)
            decoder = open_sandboxed(fd, source.size_bytes, options, start_s if may_skip else None)
            with closing(decoder):
                _check_stream(decoder.info, decoder.first_sample, source, group[0])
                if may_skip and (decoder.first_sample or not start_s):
                    group = list(_near_each_other(group, source.sample_rate_hz))
                for cut, written in _pass(decoder, group, wanted, n_refused):
                    settled.add(cut)
                    if written is not None:
                        del left[cut]
                        yield cut, written
        except AudioError as stopped:
            error = stopped
        failed = [cut for cut in group if cut not in settled]
        if failed and may_skip:
            may_skip = False  # the whole recording is read as when it was labelled
            continue
        for cut in failed:
            del left[cut]
            yield cut, error


def _pass(
    decoder: SandboxedDecoder, cuts: Sequence[Cut], wanted: Format, n_refused: Counter[Cut]
) -> Iterator[tuple[Cut, WrittenCut | None]]:
    """The cuts that one pass settles: with their files, or None for those of another pass.

    `n_refused` counts the encodings that did not hold the samples of a cut.
    """
    info, at = decoder.info, decoder.first_sample
    ways, waiting, being_written = encodings(info, wanted), deque(cuts), list[_Unfinished]()
    try:
        for block in decoder.all_channels():
            end = at + len(block)
            while waiting and waiting[0].first < end:
                cut = waiting.popleft()
                if len(being_written) < _MOST_OPEN:
                    being_written.append(_Unfinished(cut, ways[n_refused[cut]], info))
                else:
                    yield cut, None
            for each in list(being_written):
                cut = each.cut
                is_held = each.add(block[max(0, cut.first - at) : max(0, cut.last - at)])
                if is_held and end < cut.last:
                    continue
                being_written.remove(each)
                if is_held:
                    yield cut, each.finished()
                else:
                    n_refused[cut] += 1
                    each.discard()
                    yield cut, None
            at = end
            if not (waiting or being_written):
                decoder.stop_reading()
                return
    finally:
        for each in being_written:
            each.discard()


class _Unfinished:
    """A cut that is being written."""

    def __init__(self, cut: Cut, encoding: Encoding, info: StreamInfo) -> None:
        path = cut.path.with_name(cut.path.name + encoding.suffix)
        self.cut, self._file = cut, ExitStack()
        self._written = WrittenCut(path, encoding)
        writing = sound_file(path, encoding, info, cut.last - cut.first)
        self.add: Callable[[Floats], bool] = self._file.enter_context(writing)

    def finished(self) -> WrittenCut:
        self._file.close()
        return self._written

    def discard(self) -> None:
        dropped = _DroppedError()
        with suppress(_DroppedError, OSError):  # a full disk has been told already
            self._file.__exit__(type(dropped), dropped, None)


class _DroppedError(Exception):
    """What was written so far is not kept."""


def _near_each_other(cuts: Sequence[Cut], rate_hz: int) -> Iterator[Cut]:
    """The first cuts, as far as none begins long after the end of those before it."""
    end = cuts[0].last
    for cut in cuts:
        if cut.first - end > _WORTH_A_SKIP_S * rate_hz:
            return
        end = max(end, cut.last)
        yield cut


def _check_stream(info: StreamInfo, at: int, source: LabelledFile, first: Cut) -> None:
    if info.sample_rate_hz != source.sample_rate_hz or at > first.first:
        detail = f"{info.sample_rate_hz} Hz, not {source.sample_rate_hz} Hz as it was labelled"
        raise AudioError(Reason.DAMAGED, detail)


def _check_unchanged(fd: int, source: LabelledFile) -> None:
    """Raises: AudioError: the file is not the one that was labelled."""
    now = os.fstat(fd)
    if (now.st_size, now.st_mtime_ns) == (source.size_bytes, source.mtime_ns):
        return
    try:
        # A copy, or a file that was only touched, has another time and the same content.
        with open(fd, "rb", closefd=False) as file:
            if hashlib.file_digest(file, "sha256").hexdigest() == source.sha256:
                return
    except OSError as error:
        raise AudioError(Reason.UNREADABLE, error.strerror or str(error)) from error
    raise AudioError(Reason.CHANGED, "the file has changed since it was labelled")
