"""What is written: every container with the codings that people meet in it, and odd ones."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Kind:
    """A container with a coding. ``ends``: the header states the length exactly.

    ``stamps``: a reader can tell when a part is missing, or begins late.
    """

    muxer: str
    codec: str
    rate_hz: int = 44_100
    n_channels: int = 2
    ends: bool = True
    stamps: bool = False

    @property
    def name(self) -> str:
        return f"{self.muxer}/{self.codec}"


def _kinds(
    muxer: str, codecs: str, rate_hz: int = 44_100, n_channels: int = 2, **about: bool
) -> list[Kind]:
    return [Kind(muxer, codec, rate_hz, n_channels, **about) for codec in codecs.split()]


_STAMPED = {"ends": False, "stamps": True}
_STREAM = {"ends": False}

KINDS: tuple[Kind, ...] = (
    *_kinds("wav", "pcm_s16le pcm_s24le pcm_s32le pcm_f32le pcm_f64le pcm_u8 pcm_alaw pcm_mulaw"),
    *_kinds("wav", "adpcm_ima_wav adpcm_ms adpcm_yamaha mp3 mp2 ac3 wmav2"),
    *_kinds("wav", "g722 g726", 8_000, 1),
    *_kinds("w64", "pcm_s16le pcm_s24le pcm_f32le adpcm_ms"),
    *_kinds("aiff", "pcm_s16be pcm_s24be pcm_f32be pcm_alaw pcm_s16le adpcm_ima_qt"),
    *_kinds("caf", "pcm_s16le pcm_s24be pcm_f32le pcm_mulaw alac"),
    *_kinds("au", "pcm_s16be pcm_mulaw pcm_f32be"),
    *_kinds("flac", "flac"),
    *_kinds("ogg", "flac vorbis libopus", 48_000),
    *_kinds("oga", "flac", 48_000),
    *_kinds("opus", "libopus", 48_000),
    *_kinds("mp3", "libmp3lame"),
    *_kinds("mp2", "mp2", **_STREAM),
    *_kinds("adts", "aac", **_STREAM),
    *_kinds("latm", "aac", **_STREAM),
    *_kinds("ac3", "ac3", 48_000, **_STREAM),
    *_kinds("eac3", "eac3", 48_000, **_STREAM),
    *_kinds("mov", "aac alac adpcm_ima_qt ac3", stamps=True),
    *_kinds("mov", "pcm_s16le pcm_s24le pcm_f32le pcm_mulaw"),
    *_kinds("mp4", "aac alac libmp3lame ac3", stamps=True),
    *_kinds("mp4", "libopus flac", 48_000, stamps=True),
    *_kinds("ipod", "aac alac", stamps=True),
    *_kinds("3gp", "aac", stamps=True),
    *_kinds("3gp", "libopencore_amrnb", 8_000, 1, stamps=True),
    *_kinds("3g2", "aac", stamps=True),
    *_kinds("f4v", "aac", stamps=True),
    *_kinds("amr", "libopencore_amrnb", 8_000, 1, **_STREAM),
    *_kinds("matroska", "aac ac3 alac libmp3lame mp2 pcm_s16le pcm_f32le wavpack tta", **_STAMPED),
    *_kinds("matroska", "libopus flac vorbis", 48_000, **_STAMPED),
    *_kinds("webm", "libopus vorbis", 48_000, **_STAMPED),
    *_kinds("avi", "pcm_s16le pcm_u8 libmp3lame ac3 aac adpcm_ms wmav2", **_STREAM),
    *_kinds("asf", "wmav1 wmav2 libmp3lame pcm_s16le aac", **_STAMPED),
    *_kinds("flv", "aac libmp3lame", **_STAMPED),
    *_kinds("flv", "nellymoser", 8_000, 1, **_STAMPED),
    *_kinds("mpegts", "aac mp2 ac3", 48_000, **_STAMPED),
    *_kinds("mpeg", "mp2 ac3", 48_000, **_STAMPED),
    *_kinds("vob", "mp2 ac3", 48_000, **_STAMPED),
    *_kinds("nut", "pcm_s16le aac flac vorbis libmp3lame", 48_000, **_STAMPED),
    *_kinds("wtv", "mp2 ac3", 48_000, **_STAMPED),
    *_kinds("rm", "ac3", **_STREAM),
    *_kinds("voc", "pcm_s16le pcm_u8", **_STREAM),
    *_kinds("wv", "wavpack"),
    *_kinds("tta", "tta"),
    *_kinds("sox", "pcm_s32le"),
    *_kinds("ircam", "pcm_s16le pcm_f32le", **_STREAM),
    *_kinds("rso", "pcm_u8", 8_000, 1),
    *_kinds("ast", "pcm_s16be_planar"),
    *_kinds("swf", "libmp3lame", **_STREAM),
    *_kinds("spdif", "ac3", 48_000, **_STREAM),
    *_kinds("kvag", "adpcm_ima_ssi", **_STREAM),
    *_kinds("apm", "adpcm_ima_apm"),
    *_kinds("g722", "g722", 16_000, 1, **_STREAM),
    *_kinds("s16le", "pcm_s16le", **_STREAM),
)  # fmt: skip
