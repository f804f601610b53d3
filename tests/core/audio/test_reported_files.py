"""Kinds of files that public bug reports of other programs are about, made again by program."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import numpy as np
import pytest

from audioset_core.arrays import F32
from audioset_core.audio.recording import Recording
from audioset_core.audio.remarks import RemarkKind
from tests.formats.kinds import Kind
from tests.formats.makers import Take, mux
from tests.formats.plights import bursts, written
from tests.torture.makers import chunk, encoded, id3, noise, pcm, tone, wav

MP3 = Kind("mp3", "libmp3lame")


def heard(path: Path, data: bytes) -> tuple[F32, float, list[RemarkKind]]:
    """Samples, length in seconds, kinds of remarks."""
    path.write_bytes(data)
    with Recording(os.fsencode(path)) as recording:
        samples = np.concatenate([*recording.blocks()])
        kinds = [remark.kind for remark in recording.remarks]
        return samples, recording.duration_s, kinds


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "sound"


def test_an_mp3_with_an_id3v2_tag_behind_too(path: Path) -> None:
    """Zeugma440/atldotnet#282."""
    data = id3(30, bytes(30)) + written(MP3) + id3(2_000, b"x" * 2_000) + b"TAG" + bytes(125)
    _, length_s, kinds = heard(path, data)
    assert (length_s, kinds) == (pytest.approx(6.0, abs=0.1), [])


def test_an_mp3_with_an_ape_tag_before_it(path: Path) -> None:
    """agersant/mp3-duration#6."""
    items = struct.pack("<II", 5, 0) + b"Title\0" + b"a bird"
    size = (len(items) + 32).to_bytes(4, "little")
    head = b"APETAGEX" + (2000).to_bytes(4, "little") + size + (1).to_bytes(4, "little")
    tag = head + b"\0\0\0\xa0" + bytes(8) + items + head + b"\0\0\0\x80" + bytes(8)
    _, length_s, kinds = heard(path, tag + written(MP3))
    assert (length_s, kinds) == (pytest.approx(6.0, abs=0.1), [])


def test_sides_that_cancel_for_a_while(path: Path) -> None:
    """Aegisub/Aegisub#254, m-bain/whisperX#750: half of the words are gone in mono."""
    sides = noise(16_000, 1, 20.0).repeat(2, axis=1)
    sides[5 * 16_000 : 15 * 16_000, 1] *= -1
    samples, _, kinds = heard(path, encoded("flac16", sides, 16_000))
    assert kinds == [RemarkKind.OPPOSED]
    loudness = np.sqrt(np.mean(samples.reshape(-1, 16_000) ** 2, axis=1))
    # A block at each end of the stretch is neither one thing nor the other.
    assert np.median(loudness) == pytest.approx(0.1, rel=0.05)
    assert (loudness < 0.05).sum() <= 2 * -(-decode_block_s() // 1)


def decode_block_s() -> float:
    return 2.1  # 65,536 samples of two channels at 16 kHz


def test_channels_that_have_nothing_in_common_are_averaged(path: Path) -> None:
    sides = noise(16_000, 2, 5.0)
    samples, _, kinds = heard(path, encoded("wav float", sides, 16_000))
    assert kinds == []
    np.testing.assert_allclose(samples, sides.mean(axis=1), atol=1e-6)


def test_a_track_of_a_coding_that_nobody_knows(path: Path) -> None:
    """alexheretic/ab-av1#351: iPhones add a track of spatial sound (apac)."""
    takes = [Take(bursts(48_000, 2), 48_000), Take(bursts(48_000, 1), 48_000, is_default=True)]
    data = mux("mov", "aac", takes)
    second = data.rfind(b"mp4a", 0, data.rfind(b"esds"))
    data = data[:second] + b"apac" + data[second + 4 :]
    _, length_s, kinds = heard(path, data)
    assert (length_s, kinds) == (pytest.approx(6.0, abs=0.1), [RemarkKind.TRACKS])


@pytest.mark.parametrize("size", [0, 1, 0x01F92214, 0xFFFFFFFF])
def test_a_riff_size_that_is_wrong(path: Path, size: int) -> None:
    """dancasimiro/WAV.jl#109, corrscope/corrscope#108."""
    data = bytearray(wav(pcm(32_000)))
    data[4:8] = size.to_bytes(4, "little")
    _, length_s, kinds = heard(path, bytes(data))
    assert (length_s, kinds) == (2.0, [])


@pytest.mark.parametrize("pad", [b"\0", b"Q", b""])
def test_a_padding_byte_of_any_kind_behind_odd_samples(path: Path, pad: bytes) -> None:
    """MediaArea/BWFMetaEdit#155, androidx/media#1117, libsndfile/libsndfile#887."""
    samples = bytes(range(255)) * 3  # 255 of 24 bits
    data = wav(samples, bits=24) + pad + chunk(b"LIST", b"INFOICMT\x04\0\0\0abc\0")
    heard_samples, _, kinds = heard(path, data)
    assert (len(heard_samples), kinds) == (255, [])


@pytest.mark.parametrize("head", [b"RIFF", b"LIST", b"data", b"fmt ", b"\0\0\0\0"])
def test_a_size_of_0_whatever_the_samples_look_like(path: Path, head: bytes) -> None:
    """agfline/wavfix#12: power was lost; samples may look like a chunk."""
    data = wav(head + pcm(32_000), stated=0)
    samples, _, kinds = heard(path, data)
    assert len(samples) == 32_002
    assert kinds == [RemarkKind.SIZE]


def test_a_size_of_the_last_flush(path: Path) -> None:
    """librosa/librosa#876: an hour in a player, 138 s in a program."""
    data = wav(pcm(320_000), stated=2 * 11_000) + chunk(b"LIST", b"INFOICMT\x04\0\0\0abc\0")
    samples, _, kinds = heard(path, data)
    assert 320_000 <= len(samples) <= 320_000 + 16  # what is behind cannot be told from samples
    assert kinds == [RemarkKind.SIZE]


def test_a_size_that_wrapped_at_4_gib(path: Path) -> None:
    """37 hours at 16 kHz were labelled as 30 s; a hole in the file reads as silence."""
    stated = 16_000 * 2 * 3
    path.write_bytes(wav(b"", stated=stated))
    os.truncate(path, 44 + stated + (1 << 32))
    with path.open("rb") as file:
        from audioset_core.audio.decoders import open_decoder

        decoder = open_decoder(file.fileno(), path.stat().st_size)
        assert decoder.info.promised_samples == 3 * 16_000 + (1 << 31)
        assert [remark.kind for remark in decoder.remarks()] == [RemarkKind.SIZE]
        decoder.close()


def test_a_chunk_of_odd_size_without_padding(path: Path) -> None:
    """naudio/NAudio#386, mono/taglib-sharp#101."""
    data = wav(pcm(32_000), extra=b"axml" + struct.pack("<I", 495) + b"x" * 495)
    _, length_s, kinds = heard(path, data)
    assert (length_s, kinds) == (2.0, [RemarkKind.SIZE])


def test_a_flac_behind_an_id3_tag_with_a_cover(path: Path) -> None:
    """As taggers write that know MP3 only."""
    flac = encoded("flac16", tone(44_100, 1, 3.0), 44_100)
    samples, _, kinds = heard(path, id3(90_000, bytes(range(250)) * 360) + flac)
    assert (len(samples), kinds) == (3 * 44_100, [])


def test_frames_that_are_lost_near_the_beginning(path: Path) -> None:
    """kohya-ss/musubi-tuner#1066: 10 ms at 0.18 s, which no one hears; 0.5 s are silence."""
    for lost_s, kinds in ((0.02, []), (0.5, [RemarkKind.GAP])):
        take = Take(bursts(48_000, 1), 48_000, lost=(0.2, 0.2 + lost_s))
        _, length_s, found = heard(path, mux("matroska", "libopus", [take]))
        assert length_s == pytest.approx(6.0, abs=0.06)
        assert found == kinds
