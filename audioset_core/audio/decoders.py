"""Which decoder reads a file, and the remarks on a file that differs from its header.

Two decoders share the work; `_LIBSNDFILE_FIRST` says which one comes first. Where the first one
does not open the file, gives nothing, fails or ends early, the other one continues after the last
sample: a file fails only when both fail. A length is known only when the end has been decoded;
where a format states an exact length, a difference is a remark. docs/formats.md has the policy.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal, Protocol

from audioset_core.arrays import Floats
from audioset_core.audio.ffmpeg import FFmpegSource, MixedTracks, Track
from audioset_core.audio.header_facts import HeaderFacts, look_at_header
from audioset_core.audio.health import HealthMeter
from audioset_core.audio.mono import Decoder, StreamInfo, after, check_range
from audioset_core.audio.remarks import (
    Remark,
    RemarkKind,
    Remarks,
    health_remarks,
    refuse_partial,
)
from audioset_core.audio.sndfile import SndfileSource
from audioset_core.audio.stated_length import compare_lengths, slack_samples
from audioset_core.errors import AudioError, Reason
from audioset_core.file_headers.field_notes import field_notes
from audioset_core.file_headers.file_view import without_tags
from audioset_core.file_headers.signatures import not_audio
from audioset_core.file_headers.stated_sizes import has_mp4_index, rebuilt_wav
from audioset_core.file_headers.statements import TAGGED_KINDS, stated
from audioset_core.records import Statement

_LIBSNDFILE_FIRST = frozenset({
    "WAV", "AIFF", "AU", "CAF", "W64", "FLAC", "OGG", "MP3", "NIST", "VOC",
})  # fmt: skip
"""Formats that libsndfile reads first. FFmpeg is first for all others, and for an MP3 whose length
no tag confirms: there libsndfile ends at an estimate."""

_DEMUXERS = {
    "WAV": "wav", "AIFF": "aiff", "AU": "au", "CAF": "caf", "W64": "w64", "FLAC": "flac",
    "OGG": "ogg", "MP4": "mov", "Matroska": "matroska", "AVI": "avi", "ASF": "asf", "FLV": "flv",
    "AMR": "amr", "AAC": "aac", "WavPack": "wv", "Monkey's Audio": "ape", "TTA": "tta",
    "RealMedia": "rm", "DSF": "dsf", "DSDIFF": "iff", "VOC": "voc", "NIST": "nistsphere",
    "MPEG-PS": "mpeg", "MPEG-TS": "mpegts",
}  # fmt: skip
"""FFmpeg's demuxer for formats that are known by their first bytes; FFmpeg chooses the others."""

_READ_AHEAD_BYTES = 1 << 16
_DAY_S = 86_400


Measures = Literal["none", "health", "loudness"]
"""What is measured while a recording is decoded; loudness comes on top of health."""


@dataclass(frozen=True, slots=True)
class DecodeOptions:
    """How recordings are read. ``is_strict``: recordings that are not whole are refused.

    ``is_exact``: `Decoder.all_channels` will be read, in float64, which holds every stored sample.
    ``measures``: of the mono blocks' recording, `Decoder.health` is measured, and perhaps loudness.
    """

    track: Track = "default"
    is_strict: bool = False
    is_exact: bool = False
    measures: Measures = "none"


class _Source(Protocol):
    """A decoder of one library."""

    name: str
    info: StreamInfo
    remarks: Remarks

    def blocks(self) -> Iterator[Floats]: ...
    def close(self) -> None: ...


def open_decoder(
    fd: int, size_bytes: int, options: DecodeOptions | None = None, *, is_for_a_part: bool = False
) -> Decoder:
    """A decoder for an open file; with ``is_for_a_part``, `Decoder.skip` will be called.

    Raises:
        AudioError: not audio, an unknown format, or a sample rate or channels out of range.
    """
    options = options or DecodeOptions()
    seen = look_at_header(without_tags(fd, size_bytes), size_bytes, is_for_a_part=is_for_a_part)
    return RecordingDecoder(seen, options)


class RecordingDecoder(Decoder):
    """A recording read by one decoder, and by the other one from where the first ends."""

    def __init__(self, seen: HeaderFacts, options: DecodeOptions) -> None:
        self._seen, self._options = seen, options
        self._remarks = Remarks()
        self._remarks.extend(seen.remarks)
        self._is_for_a_part = False
        self._sources: list[_Source] = []
        self._errors: list[AudioError] = []
        order = [_sndfile, _ffmpeg]
        if seen.kind not in _LIBSNDFILE_FIRST or seen.ffmpeg_first or options.track == "all":
            order.reverse()
        self._openers = order
        source = self._next_source() or self._rebuilt()
        if source is None:
            raise _why_unreadable(self._seen, self._errors)
        try:
            said = (*seen.said, *self._said_by(source))
            self.info = replace(self._announced(source), notes=field_notes(said))
            check_range(self.info)
            if options.measures != "none":
                self._meter = HealthMeter(
                    self.info.sample_rate_hz, self.info.n_channels, self.info.sample_type,
                    with_loudness=options.measures == "loudness",
                )  # fmt: skip
        except AudioError:
            self.close()
            raise

    def remarks(self) -> tuple[Remark, ...]:
        """As `Decoder.remarks`."""
        return self._remarks.all()

    def skip(self, n_samples: int) -> int:
        """As `Decoder.skip`."""
        self._is_for_a_part = True
        source = self._sources[0]
        return source.skip(n_samples) if isinstance(source, SndfileSource) else 0

    def close(self) -> None:
        """Release the decoders (not the file)."""
        sources, self._sources = self._sources, []
        for source in sources:
            source.close()

    def _announced(self, source: _Source) -> StreamInfo:
        """The source's figures; a length counts only where the format states it exactly."""
        info = source.info
        if isinstance(source, SndfileSource):
            promised = info.promised_samples
            if self._seen.kind == "MP3":
                promised = self._seen.tagged_samples
            # A length of days counts only if its last sample exists.
            elif (promised or 0) > _DAY_S * info.sample_rate_hz and not source.holds(promised or 0):
                promised = None
                self._remarks.add(RemarkKind.SIZE, "the file is shorter than its header states")
            return replace(info, promised_samples=promised)
        if (info.promised_samples or 0) > _DAY_S * info.sample_rate_hz:
            return replace(info, promised_samples=None)
        return info

    def _said_by(self, source: _Source) -> list[Statement]:
        """What the container states where its tags are not read here, but by FFmpeg."""
        is_read = self._seen.kind in TAGGED_KINDS
        tags = [] if is_read else getattr(source, "tags", [])
        return stated("container", tags)

    def _next_source(self) -> _Source | None:
        """The next library's decoder that opens the file; None after the last."""
        while self._openers:
            opener = self._openers.pop(0)
            try:
                source = opener(self._seen, self._options, self._sources[:1])
            except AudioError as error:
                self._errors.append(error)
                continue
            self._sources.append(source)
            return source
        return None

    def _rebuilt(self) -> _Source | None:
        """A decoder of a WAV file with a corrected header."""
        view = rebuilt_wav(self._seen.view) if self._seen.kind == "WAV" else None
        if view is None:
            return None
        self._seen = replace(self._seen, view=view, is_whole_file=False)
        self._openers = [_sndfile, _ffmpeg]
        source = self._next_source()
        if source is not None:
            self._remarks.add(RemarkKind.SIZE, "a chunk before the samples has a wrong size")
        return source

    def _raw_blocks(self) -> Iterator[Floats]:
        n_given, source, stopped = 0, self._sources[0], None
        while True:
            n_before, earlier, stopped = n_given, stopped, None
            try:
                for block in after(n_before, source.blocks()) if n_before else source.blocks():
                    n_given += len(block)
                    yield block
            except AudioError as error:
                stopped = error
            self._remarks.extend(source.remarks.all())
            if earlier is not None and n_given > n_before and not self._is_explained(n_before):
                detail = f"damaged near here ({earlier.detail})"
                self._remarks.add(RemarkKind.DAMAGED, detail, n_before / self.info.sample_rate_hz)
            if self._is_for_a_part or not self._is_short(source, n_given, stopped):
                break
            following = self._next_source()
            if following is None:
                break
            source = following
        if stopped is not None and not n_given:
            raise self._undecodable(stopped)
        if stopped is not None:
            self._remarks.add(
                RemarkKind.DAMAGED,
                f"it cannot be decoded from here on ({stopped.detail})",
                n_given / self.info.sample_rate_hz,
            )

    def _is_explained(self, n_samples: int) -> bool:
        """Whether a remark already explains why one library stopped at a sample."""
        here_s = n_samples / self.info.sample_rate_hz
        return any(
            (remark.kind.is_partial or remark.kind is RemarkKind.JOINED)
            and (remark.end_s or remark.start_s or 0.0) >= here_s
            for remark in self._remarks.all()
        )

    def _undecodable(self, stopped: AudioError) -> AudioError:
        best = self._errors[0] if self._errors and len(self._sources) == 1 else stopped
        return best if best.reason is Reason.UNSUPPORTED else stopped

    def _is_short(self, source: _Source, n_given: int, stopped: AudioError | None) -> bool:
        """Whether the other library may have more."""
        if stopped is not None or not n_given:
            return True
        if not isinstance(source, SndfileSource):
            return False
        missing = (self.info.promised_samples or 0) - n_given
        if missing > slack_samples(self.info) and self._seen.missing is None:
            return True
        # Bytes that libsndfile did not read follow the stated end.
        return self._seen.kind == "FLAC" and source.bytes_left() > _READ_AHEAD_BYTES

    def _end(self, n_samples: int, opposed: Remarks) -> None:
        self._remarks.extend(opposed.all())
        if self.health is not None:
            self._remarks.extend(health_remarks(self.health))
        if not self._is_for_a_part:
            super()._end(n_samples, opposed)
            compare_lengths(n_samples, self.info, self._seen, self._remarks)
        if self._options.is_strict:
            refuse_partial(self._remarks.all())


def _sndfile(seen: HeaderFacts, options: DecodeOptions, earlier: list[_Source]) -> _Source:
    source = SndfileSource(
        seen.view, is_whole_file=seen.is_whole_file, fault=seen.fault, is_exact=options.is_exact
    )
    if earlier and source.info.sample_rate_hz != earlier[0].info.sample_rate_hz:
        source.close()
        raise AudioError(Reason.DAMAGED, "decoders differ about the sample rate")
    if isinstance(options.track, int) and options.track > 1:
        source.remarks.add(
            RemarkKind.TRACKS, f"there is no track {options.track}; the only one is labelled"
        )
    return source


def _ffmpeg(seen: HeaderFacts, options: DecodeOptions, earlier: list[_Source]) -> _Source:
    rate_hz = earlier[0].info.sample_rate_hz if earlier else None
    if options.track == "all":
        mixed = MixedTracks(seen.view, rate_hz)
        if not options.is_exact:
            return mixed
        if mixed.n_tracks > 1:
            mixed.info = replace(mixed.info, n_channels=1)  # their mean is what was labelled
            return mixed
        mixed.close()
    demuxer = _DEMUXERS.get(seen.kind or "")
    track = "default" if options.track == "all" else options.track
    return FFmpegSource(
        seen.view, track, rate_hz=rate_hz, demuxer=demuxer, is_exact=options.is_exact
    )


def _why_unreadable(seen: HeaderFacts, errors: list[AudioError]) -> AudioError:
    """The reason why neither library opens the file."""
    for error in errors[::-1]:
        if error.reason in (Reason.UNSUPPORTED, Reason.EMPTY, Reason.OUT_OF_RANGE):
            return error
    if seen.kind is None:
        return not_audio(seen.view.read(0, 64))
    if seen.kind == "MP4" and not has_mp4_index(seen.view):
        detail = "its index (moov) is missing: the recording was broken off, or the file is cut"
        return AudioError(Reason.DAMAGED, f"MP4: {detail}")
    return AudioError(
        Reason.DAMAGED, f"the {seen.kind} header is not readable ({errors[0].detail})"
    )
