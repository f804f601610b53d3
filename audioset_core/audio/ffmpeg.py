"""FFmpeg's decoders, through PyAV: an audio track of nearly any container, at its own times.

Every frame is put at its time stamp: silence fills the gap where stamps jump forward or begin late,
so that a time in the labels is the time in a player. A frame that cannot be decoded is left out
with a remark, and so is the rest of a container that breaks off.

Source: https://ffmpeg.org/ffmpeg.html (stream selection).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from audioset_core.arrays import F32, Floats
from audioset_core.audio.ffmpeg_formats import DEMUXERS, container_name
from audioset_core.audio.mono import (
    BLOCK_SAMPLES,
    StreamInfo,
    frames_per_block,
    mono_of,
    silence,
)
from audioset_core.audio.remarks import RemarkKind, Remarks
from audioset_core.audio.timeline import JITTER_S, Timeline
from audioset_core.errors import AudioError, Reason
from audioset_core.file_headers.file_view import FileView

Track = int | str
"""A track's number, from 1; ``default`` for FFmpeg's choice; ``all`` for the mean of all."""

_MAY_JUMP = 0x0200  # AVFMT_TS_DISCONT
_SPOILT = "damaged: it cannot be decoded"
_STATES_LENGTH = frozenset({
    "MP4", "AST", "APM", "TTA", "WavPack", "Monkey's Audio", "DSF", "TAK",
})  # fmt: skip
_TIME_BASE_HZ = 1_000_000  # AV_TIME_BASE
_ENCRYPTED = frozenset({"enca", "drms", "encv", "aavd"})

# Whole numbers of FFmpeg's sample formats to -1 ... 1, as its own resampler scales them.
_SCALES = {"u8": 2.0**-7, "s16": 2.0**-15, "s32": 2.0**-31, "s64": 2.0**-63}


class FFmpegSource:
    """One audio track: `info`, its samples as blocks of all channels, and `remarks`.

    Raises (from `__init__`):
        AudioError: FFmpeg does not know the format, or the track has no decoder.
    """

    def __init__(
        self,
        view: FileView,
        track: Track = "default",
        *,
        rate_hz: int | None = None,
        demuxer: str | None = None,
        is_exact: bool = False,
    ) -> None:
        import av

        # PyAV 19 has no such parameter: what is no UTF-8 becomes surrogates there, see `_text`.
        is_old = int(av.__version__.partition(".")[0]) < 19
        tolerant: Any = {"metadata_errors": "ignore"} if is_old else {}
        self._kind: Any = np.float64 if is_exact else np.float32
        self.remarks = Remarks()
        self._file = view.open()
        self._rate_changer: Any = None
        try:
            with _as_audio_errors():
                self._container = av.open(
                    self._file,
                    mode="r",
                    format=demuxer,
                    # Nothing but this file is opened: no play lists, no addresses, no devices.
                    options={"format_whitelist": DEMUXERS, "protocol_whitelist": "none"},
                    **tolerant,
                )
                self.name = container_name(self._container.format.name)
                self._stream = self._chosen(track)
                self.info = self._about(rate_hz)
        except BaseException:
            self.close()
            raise

    @property
    def n_tracks(self) -> int:
        """Audio tracks of the container."""
        return len(self._container.streams.audio)

    @property
    def tags(self) -> list[tuple[str, str]]:
        """What the container says of itself and of the track, by FFmpeg's names."""
        of_track = {f"track {key}": value for key, value in self._stream.metadata.items()}
        told = self._container.metadata | of_track
        return [(_text(key), _text(value)) for key, value in told.items()]

    def blocks(self) -> Iterator[Floats]:
        """Blocks ``[n, n_channels]`` at ``info.sample_rate_hz``, until nothing more is given."""
        want = frames_per_block(self.info.n_channels)
        held: list[Floats] = []
        n_held = 0
        for piece in self._placed():
            if held and (n_held >= want or piece.shape[1] != held[0].shape[1]):
                yield np.concatenate(held)
                held, n_held = [], 0
            held.append(piece)
            n_held += len(piece)
        if held:
            yield np.concatenate(held)

    def close(self) -> None:
        """Release the container."""
        with contextlib.suppress(Exception):  # also where it was never opened
            self._container.close()
        self._file.close()

    def _chosen(self, track: Track) -> Any:
        """The stream to read: by number, or as FFmpeg's command line chooses.

        That is the stream with the default flag, then with most channels, then the first.
        """
        from av.stream import Discard

        streams = self._container.streams.audio
        if not streams:
            raise AudioError(Reason.EMPTY, f"{self.name} without an audio stream")
        readable = [stream for stream in streams if stream.codec_context is not None]
        if not readable:
            raise AudioError(Reason.UNSUPPORTED, f"{self.name} with a coding that is not known")
        best = max(readable, key=_preference)
        asked = track if isinstance(track, int) else streams.index(best) + 1
        if asked > len(streams):
            self.remarks.add(
                RemarkKind.TRACKS,
                f"there is no track {asked}; track {streams.index(best) + 1} is labelled",
            )
        elif streams[asked - 1].codec_context is None:
            raise AudioError(Reason.UNSUPPORTED, f"the coding of track {asked} is not known")
        else:
            best = streams[asked - 1]
        if len(streams) > 1 and track == "default":
            self._name_others(streams, streams.index(best))
        for stream in self._container.streams:
            if stream is not best:
                stream.discard = Discard.all
        return best

    def _name_others(self, streams: Any, chosen: int) -> None:
        others = ", ".join(
            f"{number} ({_described(stream)})"
            for number, stream in enumerate(streams, 1)
            if number != chosen + 1
        )
        self.remarks.add(
            RemarkKind.TRACKS, f"track {chosen + 1} of {len(streams)} is labelled, not {others}"
        )

    def _about(self, rate_hz: int | None) -> StreamInfo:
        codec = self._stream.codec_context
        codec.thread_count = 1  # files fill the cores
        coding = {"mp3float": "mp3", "mp2float": "mp2", "mp1float": "mp1"}.get(
            codec.name, codec.name
        )
        rate = int(rate_hz or codec.sample_rate or 0)
        length = self._container.duration
        return StreamInfo(
            format=f"{self.name}/{coding}",
            sample_rate_hz=rate,
            n_channels=int(codec.channels or 0),
            promised_samples=self._promised(rate),
            expected_s=length / _TIME_BASE_HZ if length and length > 0 else None,
            sample_type=_sample_type(codec),
        )

    def _promised(self, rate_hz: int) -> int | None:
        """Samples per channel by an index or a header; most containers only estimate."""
        stream = self._stream
        if self.name not in _STATES_LENGTH or not stream.duration or not rate_hz:
            return None
        end_s = (stream.duration + (stream.start_time or 0)) * stream.time_base
        return max(0, int((float(end_s) - self._origin_s()) * rate_hz)) or None

    def _origin_s(self) -> float:
        """The time stamp of the recording's beginning; before it is the coder's delay."""
        start = self._container.start_time or 0
        return start / _TIME_BASE_HZ if start > 0 or start < -2 * JITTER_S * _TIME_BASE_HZ else 0.0

    def _placed(self) -> Iterator[Floats]:
        """Every frame's samples, with silence where the time stamps leave a gap."""
        may_jump = bool(self._container.format.flags & _MAY_JUMP)
        rate_hz, origin_s = self.info.sample_rate_hz, self._origin_s()
        timeline = Timeline(rate_hz, origin_s, self.remarks, may_jump=may_jump)
        for frame, is_behind_loss in self._frames():
            for samples, stamp_s in self._samples(frame):
                n_silent, n_dropped = timeline.place(stamp_s, len(samples), is_behind_loss)
                while n_silent > 0:
                    n = min(n_silent, BLOCK_SAMPLES)
                    yield silence(n, samples.shape[1], self._kind)
                    n_silent -= n
                yield samples[n_dropped:]

    def _frames(self) -> Iterator[tuple[Any, bool]]:
        """Decoded frames, and whether something before each could not be decoded."""
        n_frames, last_s, why = 0, 0.0, ""
        spoilt: list[tuple[float, float]] = []  # since the last good frame
        for packet in self._packets():
            if packet.pts is not None:
                last_s = max(0.0, float(packet.pts * packet.time_base) - self._origin_s())
            try:
                frames = packet.decode()
            except (AudioError, MemoryError):
                raise
            except Exception as error:  # PyAV answers damage with any type at all
                if not any(bytes(packet)):  # zeros behind the last frame
                    continue
                why = error_text(error)
                lasting_s = float((packet.duration or 0) * (packet.time_base or 0))
                spoilt.append((last_s, last_s + lasting_s))
                continue
            for frame in frames:
                n_frames += 1
                yield frame, bool(spoilt)
                for start_s, end_s in spoilt:
                    self.remarks.add(RemarkKind.DAMAGED, _SPOILT, start_s, end_s)
                spoilt = []
        if spoilt and not n_frames:
            raise self._undecodable(why)
        if spoilt:
            self.remarks.add(RemarkKind.TRUNCATED, "its last part cannot be decoded", spoilt[0][0])

    def _undecodable(self, why: str) -> AudioError:
        if _tag(self._stream.codec_context) in _ENCRYPTED:
            return AudioError(Reason.UNSUPPORTED, f"{self.name}: its sound is encrypted")
        return AudioError(
            Reason.DAMAGED, f"{self.info.format}: no part of it can be decoded ({why})"
        )

    def _packets(self) -> Iterator[Any]:
        """The packets of the track, as far as the container can be read."""
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets, None)
            except (AudioError, MemoryError):
                raise
            except Exception as error:  # as above
                self.remarks.add(
                    RemarkKind.DAMAGED, f"the {self.name} container breaks off: {error_text(error)}"
                )
                packet = None
            if packet is None:
                break
            if packet.size or packet.dts is None:
                yield packet

    def _samples(self, frame: Any) -> Iterator[tuple[Floats, float | None]]:
        """The frame's samples ``[n, n_channels]`` at the announced rate, and their time stamp."""
        if frame.sample_rate == self.info.sample_rate_hz:
            stamp_s = None if frame.pts is None else float(frame.pts * frame.time_base)
            if frame.samples:
                yield samples_of(frame, self._kind), stamp_s
            return
        # Some streams change their rate midway: they are resampled to the announced rate.
        about = (frame.sample_rate, frame.layout.name, frame.format.name)
        if self._rate_changer is None or self._rate_changer[0] != about:
            import av

            changer = av.AudioResampler("fltp", frame.layout, self.info.sample_rate_hz)
            self._rate_changer = (about, changer)
        for piece in self._rate_changer[1].resample(frame):
            stamp_s = None if piece.pts is None else float(piece.pts * piece.time_base)
            yield samples_of(piece, self._kind), stamp_s


class MixedTracks:
    """All tracks of a container, each read by an `FFmpegSource`, as their mean.

    Tracks that end are silent from there on.
    """

    def __init__(self, view: FileView, rate_hz: int | None = None) -> None:
        first = FFmpegSource(view, 1, rate_hz=rate_hz)
        self._sources = [first]
        self.remarks = first.remarks
        try:
            rate_hz = first.info.sample_rate_hz
            for track in range(2, first.n_tracks + 1):
                self._sources.append(FFmpegSource(view, track, rate_hz=rate_hz))
        except BaseException:
            self.close()
            raise
        self.name, self.n_tracks, self.tags = first.name, first.n_tracks, first.tags
        promises = [source.info.promised_samples for source in self._sources]
        known = [promise for promise in promises if promise is not None]
        self.info = StreamInfo(
            first.info.format,
            first.info.sample_rate_hz,
            max(source.info.n_channels for source in self._sources),
            max(known) if len(known) == len(promises) else None,
            first.info.expected_s,
        )
        if self.n_tracks > 1:
            self.remarks.add(RemarkKind.TRACKS, f"the mean of {self.n_tracks} tracks is labelled")

    def blocks(self) -> Iterator[F32]:
        """Blocks ``[n, 1]``."""
        readers = [map(mono_of, source.blocks()) for source in self._sources]
        held = [np.empty(0, np.float32) for _ in readers]
        is_open = [True] * len(readers)
        while True:
            for at, reader in enumerate(readers):
                while is_open[at] and len(held[at]) < BLOCK_SAMPLES:
                    block = next(reader, None)
                    if block is None:
                        is_open[at] = False
                    else:
                        held[at] = np.concatenate([held[at], block[0]])
            # Tracks that have ended are not waited for.
            lengths = [len(part) for part, goes_on in zip(held, is_open, strict=True) if goes_on]
            n = min(lengths) if lengths else max(map(len, held))
            if not n:
                break
            total = np.zeros(n, np.float32)
            for at, part in enumerate(held):
                some = part[:n]
                total[: len(some)] += some
                held[at] = part[n:]
            yield (total / np.float32(len(readers)))[:, np.newaxis]
        for source in self._sources[1:]:
            self.remarks.extend(source.remarks.all())

    def close(self) -> None:
        """Release every container."""
        for source in self._sources:
            source.close()


def samples_of(frame: Any, kind: Any = np.float32) -> Floats:
    """A frame's samples as float32 or float64. Shape: ``[n, n_channels]``"""
    array = frame.to_ndarray()
    name = frame.format.name.removesuffix("p")
    planes = array if frame.format.is_planar else array.reshape(-1, frame.layout.nb_channels).T
    if name == "u8":
        planes = planes.astype(kind) - 128
    samples: Floats = planes.T.astype(kind, copy=False)
    scale = _SCALES.get(name)
    return samples if scale is None else samples * kind(scale)


def error_text(error: BaseException) -> str:
    """A library's message as one short line, without its numbers and the names of functions."""
    text = getattr(error, "strerror", None) or str(error)
    return " ".join(str(text).split())[:160] or type(error).__name__


@contextlib.contextmanager
def _as_audio_errors() -> Iterator[None]:
    """Turn what PyAV raises for damage, which may be any type, into an AudioError."""
    try:
        yield
    except (AudioError, MemoryError):
        raise
    except Exception as error:
        raise AudioError(Reason.DAMAGED, error_text(error)) from error


def _tag(codec: Any) -> str:
    try:
        return str(codec.codec_tag)
    except UnicodeDecodeError:  # a number
        return ""


def _sample_type(codec: Any) -> str:
    """As `StreamInfo.sample_type`; FFmpeg gives 24 bits as 32, of which the last 8 are 0."""
    if not codec.codec.lossless or codec.format is None:
        return "lossy"
    as_32 = "int32" if "s32" in codec.name else "int24"
    kinds = {"u8": "int8", "s16": "int16", "s32": as_32, "flt": "float32", "dbl": "float64"}
    return kinds.get(codec.format.name.removesuffix("p"), "lossy")


def _preference(stream: Any) -> tuple[bool, int]:
    return bool(stream.disposition & 1), int(stream.codec_context.channels or 0)


def _described(stream: Any) -> str:
    codec = stream.codec_context
    facts = [codec.name if codec is not None else "unknown coding", stream.language or ""]
    facts.append(_text(stream.metadata.get("title", "")))
    return ", ".join(" ".join(fact.split())[:40] for fact in facts if fact and fact != "und")


def _text(told: str) -> str:
    """A tag without the bytes that are no UTF-8."""
    return told.encode("utf-8", "ignore").decode()
