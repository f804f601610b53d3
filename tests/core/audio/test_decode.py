from __future__ import annotations

import contextlib
import os
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from audioset_core.audio import decoders as decode
from audioset_core.audio.decoders import DecodeOptions, open_decoder
from audioset_core.audio.ffmpeg import FFmpegSource
from audioset_core.audio.mono import MAX_CHANNELS, mix_to_mono
from audioset_core.audio.recording import Recording
from audioset_core.audio.remarks import RemarkKind, is_partial
from audioset_core.errors import AudioError, Reason
from audioset_core.file_headers.file_view import FileView
from audioset_core.file_headers.stated_sizes import mp3_tag
from tests.bounds import assert_possible, sum_bound
from tests.torture.makers import F32, FORMATS, encoded, pcm, png, tone, wav, with_ffmpeg

pytestmark = pytest.mark.usefixtures("no_descriptor_leaks")

CASES = [
    (name, rate_hz, n_channels)
    for name, (_, _, rates, most, _) in FORMATS.items()
    for rate_hz in rates
    for n_channels in sorted({1, min(2, most), most})
]


def read(path: Path, *, is_strict: bool = False) -> tuple[decode.StreamInfo, F32]:
    with Recording(os.fsencode(path), DecodeOptions(is_strict=is_strict)) as recording:
        blocks = list(recording.blocks())
        assert recording.n_samples == sum(map(len, blocks))
        for block in blocks:
            assert block.dtype == np.float32
            assert block.ndim == 1
        return recording.info, np.concatenate(blocks)


def fails(path: Path, reason: Reason, match: str = ".") -> str:
    with pytest.raises(AudioError, match=match) as caught:
        read(path)
    assert caught.value.reason is reason, str(caught.value)
    assert "\n" not in str(caught.value)
    return caught.value.detail


def partly(path: Path, *reasons: Reason, match: str = ".") -> tuple[F32, str]:
    """What is there is labelled with a remark, and refused by who is strict: samples, detail."""
    with Recording(os.fsencode(path)) as recording:
        mono = np.concatenate([*recording.blocks()])
        assert is_partial(recording.remarks), recording.remarks
        assert len(mono) == recording.n_samples > 0
    with pytest.raises(AudioError, match=match) as caught:
        read(path, is_strict=True)
    assert caught.value.reason in reasons, str(caught.value)
    return mono, caught.value.detail


# --- every format -------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "rate_hz", "n_channels"), CASES)
def test_formats_rates_and_channels(
    tmp_path: Path, name: str, rate_hz: int, n_channels: int
) -> None:
    path = tmp_path / "sound"  # the ending plays no part
    samples = tone(rate_hz, n_channels)
    path.write_bytes(encoded(name, samples, rate_hz))
    info, mono = read(path)
    _, _, _, _, loss = FORMATS[name]
    assert (info.sample_rate_hz, info.n_channels) == (rate_hz, n_channels)
    expected = samples.mean(axis=1, dtype=np.float64)
    # ADPCM and GSM fill their last block.
    assert len(expected) <= len(mono) <= len(expected) + 1100 * (loss == 0.2)
    if loss < 0.3:
        assert np.abs(mono[: len(expected)] - expected).max() <= loss + 1e-6
    else:
        assert np.sqrt(np.mean(mono**2)) == pytest.approx(np.sqrt(np.mean(expected**2)), rel=0.1)


@pytest.mark.parametrize(
    "name", [n for n in FORMATS if n not in ("vorbis", "opus", "mp3", "wav ima")]
)
def test_a_single_sample(tmp_path: Path, name: str) -> None:
    path = tmp_path / "sound"
    rate_hz = FORMATS[name][2][0]
    path.write_bytes(encoded(name, np.full((1, 1), 0.5, np.float32), rate_hz))
    _, mono = read(path)
    assert mono == pytest.approx([0.5], abs=0.02)


@pytest.mark.numeric
@pytest.mark.parametrize("n_channels", range(1, MAX_CHANNELS + 1))
def test_channels_are_averaged(n_channels: int) -> None:
    block = np.random.default_rng(n_channels).standard_normal((500, n_channels), dtype=np.float32)
    mono = mix_to_mono(block)
    assert_possible(mono, block.mean(axis=1, dtype=np.float64), sum_bound(block, 1) / n_channels)
    if n_channels in (1, 2):
        np.testing.assert_array_equal(mono, block.mean(axis=1))


@pytest.mark.parametrize("name", ["vorbis", "mp3", "wav float"])
def test_beyond_full_scale_is_not_clipped(tmp_path: Path, name: str) -> None:
    # A square wave that is cut off by the coder's filter swings beyond +-1.
    t = np.arange(44_100) / 44_100
    square = np.sign(np.sin(2 * np.pi * 441 * t)).astype(np.float32)[:, np.newaxis]
    path = tmp_path / "loud"
    path.write_bytes(encoded(name, square if name != "wav float" else square * 3, 44_100))
    assert np.abs(read(path)[1]).max() > 1.02


# --- what is not audio --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"Dear diary, today I recorded nothing.\n", "this is text"),
        (b"PK\x03\x04" + b"\0" * 500, "a zip archive"),
        (png(), "a PNG picture"),
        (b"\xff\xd8\xff\xe0" + b"\0" * 500, "a JPEG picture"),
        (b"%PDF-1.7\n%\xe2\xe3", "a PDF document"),
        (b"\x1f\x8b\x08" + b"\1" * 100, "a gzip archive"),
        (b"\0" * 5000, "no known audio format"),
        (bytes(range(256)) * 20, "no known audio format"),
        (b"\x01", "no known audio format"),
    ],
)
@pytest.mark.parametrize("suffix", [".wav", ".mp3"])
def test_other_files_are_named(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], content: bytes, match: str, suffix: str
) -> None:
    path = tmp_path / f"sound{suffix}"
    path.write_bytes(content)
    fails(path, Reason.NOT_AUDIO, match)
    assert capfd.readouterr() == ("", "")


def test_empty(tmp_path: Path) -> None:
    path = tmp_path / "empty.wav"
    path.write_bytes(b"")
    fails(path, Reason.EMPTY, "0 bytes")


@pytest.mark.parametrize("name", ["wav16", "aiff", "au", "caf", "w64"])
def test_header_only(tmp_path: Path, name: str) -> None:
    path = tmp_path / "sound"
    path.write_bytes(encoded(name, np.zeros((0, 1), np.float32), 48_000))
    fails(path, Reason.EMPTY, "no samples")


@pytest.mark.parametrize(("head", "name"), [(n, "wav16") for n in (4, 8, 12, 20, 30)])
def test_a_header_that_breaks_off(tmp_path: Path, head: int, name: str) -> None:
    path = tmp_path / "sound.wav"
    path.write_bytes(encoded(name, tone(8_000), 8_000)[:head])
    fails(path, Reason.DAMAGED)


# --- truncated ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kept", [0.35, 0.6, 0.97])
@pytest.mark.parametrize("name", [name for name in FORMATS if name not in ("caf", "alac")])
def test_truncated(tmp_path: Path, name: str, kept: float) -> None:
    rate_hz = max(FORMATS[name][2])
    n_channels = min(2, FORMATS[name][3])
    samples = np.random.default_rng(0).normal(0, 0.1, (rate_hz * 4, n_channels)).astype(np.float32)
    whole = encoded(name, samples, rate_hz)
    path = tmp_path / "sound"
    path.write_bytes(whole[: int(len(whole) * kept)])
    if name == "mp3" and kept > 0.9:
        pytest.skip("less than the slack that MP3's rounding needs")
    mono, detail = partly(path, Reason.TRUNCATED)
    assert "s are there" in detail or name in ("vorbis", "opus")
    # A coder's last frames or pages are incomplete.
    assert len(mono) == pytest.approx(kept * len(samples), abs=1.1 * rate_hz)


@pytest.mark.parametrize("name", ["wav16", "aiff", "w64", "rf64", "au", "caf", "flac16"])
def test_the_last_samples_are_missed(tmp_path: Path, name: str) -> None:
    whole = encoded(name, tone(48_000), 48_000)
    path = tmp_path / "sound"
    path.write_bytes(whole[:-20])
    with Recording(os.fsencode(path)) as recording:
        n_samples = sum(map(len, recording.blocks()))
        (remark,) = recording.remarks
    assert 48_000 - 4_608 <= n_samples < 48_000
    # So little is a wrong size; FLAC loses a whole frame.
    assert remark.kind in (RemarkKind.SIZE, RemarkKind.TRUNCATED, RemarkKind.DAMAGED)
    assert remark.end_s is None or remark.end_s == pytest.approx(1.0, abs=1e-3)


def test_truncated_caf_without_its_end(tmp_path: Path) -> None:
    whole = encoded("caf", tone(44_100), 44_100)
    path = tmp_path / "sound.caf"
    path.write_bytes(whole[: len(whole) // 2])
    mono, _ = partly(path, Reason.TRUNCATED)
    assert len(mono) == pytest.approx(22_050, abs=1_100)


@pytest.mark.parametrize(
    "stated",
    [0x7FFFF000, 0x7FFFEFFC, 0x7FFFFF00, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0xFFFFFFDB],
)
def test_a_wav_from_a_pipe_is_whole(tmp_path: Path, stated: int) -> None:
    path = tmp_path / "piped.wav"
    path.write_bytes(wav(pcm(40_000), stated=stated))
    info, mono = read(path)
    assert info.sample_rate_hz == 16_000
    assert len(mono) == 40_000


def test_truncation_shows_behind_long_metadata(tmp_path: Path) -> None:
    # libsndfile's own log, which tells of it, is full after 2 KB.
    notes = b"INFO" + (b"ICMT" + struct.pack("<I", 60) + b"a" * 60) * 200
    whole = wav(pcm(40_000), extra=b"LIST" + struct.pack("<I", len(notes)) + notes)
    path = tmp_path / "notes.wav"
    path.write_bytes(whole)
    assert len(read(path)[1]) == 40_000
    path.write_bytes(whole[:-20_000])
    mono, detail = partly(path, Reason.TRUNCATED)
    assert len(mono) == 30_000
    assert detail == "the header states 2.50 s, 1.88 s are there; refused by --strict"


def test_chunks_after_the_samples_are_no_samples(tmp_path: Path) -> None:
    path = tmp_path / "trailer.wav"
    path.write_bytes(wav(pcm(4_000)) + b"LIST" + struct.pack("<I", 8) + b"INFOICMT")
    assert len(read(path)[1]) == 4_000


def test_a_flac_from_a_pipe_is_whole(tmp_path: Path) -> None:
    whole = bytearray(encoded("flac16", tone(44_100, duration_s=3), 44_100))
    # STREAMINFO, RFC 9639: 36 bits of total samples, 0 for unknown.
    whole[4 + 4 + 13] &= 0xF0
    whole[4 + 4 + 14 : 4 + 4 + 18] = bytes(4)
    path = tmp_path / "piped.flac"
    path.write_bytes(whole)
    info, mono = read(path)
    assert info.promised_samples is None
    assert len(mono) == 3 * 44_100


@pytest.mark.parametrize("name", ["flac16", "wav16", "vorbis"])
def test_lies_about_length_cost_no_memory(tmp_path: Path, name: str) -> None:
    whole = bytearray(encoded(name, tone(44_100), 44_100))
    if name == "flac16":
        whole[4 + 4 + 13] |= 0x0F
        whole[4 + 4 + 14 : 4 + 4 + 18] = b"\xff" * 4
    elif name == "wav16":
        whole[40:44] = struct.pack("<I", 0x70000000)
    else:
        last = whole.rfind(b"OggS")
        whole[last + 6 : last + 14] = struct.pack("<Q", 1 << 38)
    path = tmp_path / "liar"
    path.write_bytes(whole)
    if name == "vorbis":  # its checksum is wrong now, and the page all there is
        with pytest.raises(AudioError) as caught:
            read(path)
        assert caught.value.reason in (Reason.DAMAGED, Reason.EMPTY)
    elif name == "wav16":
        assert len(partly(path, Reason.TRUNCATED)[0]) == 44_100
    else:  # nobody records for years: what is there is the whole
        with Recording(os.fsencode(path)) as recording:
            assert sum(map(len, recording.blocks())) == 44_100
            assert [remark.kind for remark in recording.remarks] == [RemarkKind.SIZE]


def test_a_lost_ogg_page_is_noticed(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, (44_100 * 6, 1)).astype(np.float32)
    whole = bytearray(encoded("vorbis", noise, 44_100))
    pages = [at for at in range(len(whole)) if whole[at : at + 4] == b"OggS"]
    middle = pages[len(pages) // 2]
    whole[middle + 100] ^= 0xFF
    path = tmp_path / "damaged.ogg"
    path.write_bytes(whole)
    mono, _ = partly(path, Reason.DAMAGED)
    assert len(mono) == pytest.approx(len(noise), abs=0.1 * 44_100)  # silence stands for the page


def test_a_damaged_flac_is_noticed(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, (44_100 * 3, 1)).astype(np.float32)
    whole = bytearray(encoded("flac16", noise, 44_100))
    whole[len(whole) // 2 : len(whole) // 2 + 50] = bytes(50)
    path = tmp_path / "damaged.flac"
    path.write_bytes(whole)
    mono, _ = partly(path, Reason.TRUNCATED, Reason.DAMAGED)
    assert len(mono) == pytest.approx(len(noise), abs=2 * 4_608)


# --- samples and figures out of range -----------------------------------------------------------


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e39, 1e300])
@pytest.mark.parametrize("at", [0, 30_000, 99_999])
def test_samples_that_are_not_finite(tmp_path: Path, value: float, at: int) -> None:
    samples = np.zeros(100_000)
    samples[at] = value
    path = tmp_path / "bad.wav"
    soundfile.write(path, samples, 16_000, subtype="DOUBLE")
    assert fails(path, Reason.NOT_FINITE) == f"NaN or infinity at {at / 16_000:.2f} s"


def test_infinities_that_cancel_are_noticed(tmp_path: Path) -> None:
    path = tmp_path / "bad.wav"
    soundfile.write(path, [[np.inf, -np.inf]] * 10, 16_000, subtype="FLOAT")
    fails(path, Reason.NOT_FINITE)


@pytest.mark.parametrize("rate_hz", [1, 999, 384_001, 2**31 - 1])
def test_rates_out_of_range(tmp_path: Path, rate_hz: int) -> None:
    path = tmp_path / "odd.wav"
    path.write_bytes(wav(pcm(2_000), rate_hz=rate_hz))
    detail = fails(path, Reason.OUT_OF_RANGE)
    assert detail == f"{rate_hz} Hz; supported sample rates: 1 to 384 kHz"


@pytest.mark.parametrize("rate_hz", [0, 2**31, 2**32 - 1])
def test_impossible_rates(tmp_path: Path, rate_hz: int) -> None:
    path = tmp_path / "odd.wav"
    path.write_bytes(wav(pcm(2_000), rate_hz=rate_hz))
    with pytest.raises(AudioError) as caught:
        read(path)
    assert caught.value.reason in (Reason.OUT_OF_RANGE, Reason.DAMAGED)


@pytest.mark.parametrize("n_channels", [33, 256, 1024])
def test_channels_out_of_range(tmp_path: Path, n_channels: int) -> None:
    path = tmp_path / "wide.wav"
    path.write_bytes(wav(pcm(2 * n_channels), n_channels=n_channels))
    assert fails(path, Reason.OUT_OF_RANGE) == f"{n_channels} channels; supported: 1 to 32"


def test_no_channels(tmp_path: Path) -> None:
    path = tmp_path / "none.wav"
    path.write_bytes(wav(pcm(100), n_channels=0))
    with pytest.raises(AudioError) as caught:
        read(path)
    assert caught.value.reason in (Reason.OUT_OF_RANGE, Reason.DAMAGED)


def test_spoilt_bytes_never_surprise(tmp_path: Path) -> None:
    """Whatever is flipped, it is read or refused; nothing else is raised or left open."""
    rng = np.random.default_rng(11)
    path = tmp_path / "spoilt"
    for name in ("wav16", "flac16", "vorbis", "mp3", "aiff", "caf", "w64", "rf64", "au", "opus"):
        whole = encoded(name, tone(48_000, 1, 0.3), 48_000)
        for _ in range(25):
            spoilt = bytearray(whole)
            for at in rng.integers(0, min(len(spoilt), 200), 3):
                spoilt[at] = rng.integers(0, 256)
            path.write_bytes(spoilt)
            with contextlib.suppress(AudioError):
                read(path)


def test_an_mp3_header_that_breaks_off_anywhere(tmp_path: Path) -> None:
    """`make fuzz` found one whose spoilt ID3 tag leads to the last bytes of a later frame."""
    path = tmp_path / "cut.mp3"
    head = encoded("mp3", tone(44_100), 44_100)[:64]
    assert b"Xing" in head or b"Info" in head
    for n in range(len(head) + 1):
        path.write_bytes(head[:n])
        with path.open("rb") as file:
            assert mp3_tag(FileView(file.fileno(), 0, n)) in (None, (46_080, 5_255))


# --- FFmpeg's containers ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("codec", "container", "rate_hz", "n_channels", "label"),
    [
        ("aac", "ipod", 44_100, 2, "MP4/aac"),
        ("aac", "ipod", 16_000, 1, "MP4/aac"),
        ("alac", "mov", 44_100, 2, "MP4/alac"),
        ("libopus", "webm", 48_000, 1, "Matroska/opus"),
        ("flac", "matroska", 22_050, 2, "Matroska/flac"),
        ("aac", "adts", 44_100, 1, "AAC/aac"),
        ("pcm_s16le", "avi", 44_100, 2, "AVI/pcm_s16le"),
        ("aac", "flv", 44_100, 1, "FLV/aac"),
    ],
)
def test_ffmpegs_containers(
    tmp_path: Path, codec: str, container: str, rate_hz: int, n_channels: int, label: str
) -> None:
    path = tmp_path / "sound"
    samples = tone(rate_hz, n_channels, 3)
    with_ffmpeg(path, samples, rate_hz, codec, container)
    info, mono = read(path)
    assert (info.format, info.sample_rate_hz, info.n_channels) == (label, rate_hz, n_channels)
    assert len(samples) <= len(mono) <= len(samples) + 3 * 1024
    expected = samples.mean(axis=1)
    middle = slice(rate_hz, 2 * rate_hz)
    assert np.sqrt(np.mean(mono[middle] ** 2)) == pytest.approx(
        np.sqrt(np.mean(expected[middle] ** 2)), rel=0.05
    )


@pytest.mark.parametrize(
    ("codec", "container", "options"),
    [
        ("aac", "ipod", {}),
        ("aac", "ipod", {"movflags": "faststart"}),
        ("libopus", "webm", {}),
        ("flac", "matroska", {}),
        ("aac", "adts", {}),
    ],
)
def test_truncated_containers(
    tmp_path: Path, codec: str, container: str, options: dict[str, str]
) -> None:
    path = tmp_path / "sound"
    with_ffmpeg(path, tone(48_000, 1, 3), 48_000, codec, container, **options)
    whole = path.read_bytes()
    for kept in (0.05, 0.6, 0.9):
        path.write_bytes(whole[: int(len(whole) * kept)])
        if (container, options) == ("ipod", {}) or kept == 0.05:  # without its index, or any sound
            with contextlib.suppress(AudioError):
                read(path)
        else:
            mono, _ = partly(path, Reason.TRUNCATED, Reason.DAMAGED)
            assert len(mono) == pytest.approx(kept * 3 * 48_000, abs=0.5 * 48_000)


def test_an_mp4_that_was_broken_off_says_so(tmp_path: Path) -> None:
    path = tmp_path / "sound.m4a"
    with_ffmpeg(path, tone(48_000, 1, 3), 48_000, "aac", "ipod")
    path.write_bytes(path.read_bytes()[:-2_000])
    fails(path, Reason.DAMAGED, r"its index \(moov\) is missing")


@pytest.mark.parametrize(
    "head",
    [b"\0\0\0\x18ftypM4A ", b"\x1aE\xdf\xa3\x01", b"FLV\x01\x05\0\0\0\x09", b"\xff\xf1\x50\x80"],
)
def test_junk_in_a_container(tmp_path: Path, head: bytes) -> None:
    pytest.importorskip("av")
    path = tmp_path / "sound.m4a"
    path.write_bytes(head + bytes(range(256)) * 8)
    with pytest.raises(AudioError) as caught:
        read(path)
    assert caught.value.reason in (Reason.DAMAGED, Reason.EMPTY, Reason.OUT_OF_RANGE)


def test_a_container_without_sound(tmp_path: Path) -> None:
    av: Any = pytest.importorskip("av")
    path = tmp_path / "silent.mp4"
    with av.open(str(path), "w", format="mp4") as file:
        stream = file.add_stream("mpeg4", rate=10)
        stream.width = stream.height = 16
        stream.pix_fmt = "yuv420p"
        for _ in range(3):
            file.mux(stream.encode(av.VideoFrame(16, 16, "yuv420p")))
        file.mux(stream.encode(None))
    fails(path, Reason.EMPTY, "without an audio stream")


def test_the_file_stays_open_and_ours(tmp_path: Path) -> None:
    path = tmp_path / "sound.wav"
    path.write_bytes(encoded("wav16", tone(8_000), 8_000))
    fd = os.open(path, os.O_RDONLY)
    open_decoder(fd, path.stat().st_size).close()
    os.close(fd)  # would fail, had the decoder closed it


def test_a_header_of_no_channels_divides_nothing(tmp_path: Path) -> None:
    """Found by `make fuzz`: of a spoilt FLAC, FFmpeg announces no channels."""
    path = tmp_path / "a.wav"
    path.write_bytes(wav(pcm(20_000)))
    with path.open("rb") as file:
        source = FFmpegSource(FileView(file.fileno(), 0, path.stat().st_size))
        source.info = replace(source.info, n_channels=0)
        assert sum(len(block) for block in source.blocks()) == 20_000
        source.close()


def test_a_tag_that_is_no_text_is_cleaned(tmp_path: Path) -> None:
    """PyAV before 19 would stop at it, and later ones have surrogates, which no table takes."""
    path = tmp_path / "a.wav"
    name = b"INAM" + struct.pack("<I", 6) + b"A\xff\xe2\x82B\0"
    path.write_bytes(wav(pcm(2_000)) + b"LIST" + struct.pack("<I", 4 + len(name)) + b"INFO" + name)
    with path.open("rb") as file:
        source = FFmpegSource(FileView(file.fileno(), 0, path.stat().st_size))
        assert ("title", "AB") in source.tags
        source.close()
