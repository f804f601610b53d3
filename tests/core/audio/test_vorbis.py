"""Ogg Vorbis by FFmpeg: libsndfile's samples, and its word on whatever is wrong."""

from __future__ import annotations

import base64
import io
import os
import struct
import zlib
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from audioset_core.audio import decoders as decode
from audioset_core.audio import header_facts, mono, sndfile
from audioset_core.audio.recording import Recording
from audioset_core.audio.remarks import is_partial
from audioset_core.errors import AudioError
from audioset_core.file_headers.ogg_pages import ogg_checksum
from tests.torture.makers import F32, encoded, noise, ogg_pages

av = pytest.importorskip("av", reason="the extra 'ffmpeg' is not installed")

RATES_HZ = (8_000, 22_050, 44_100, 48_000)


def heard(data: bytes, folder: Path) -> tuple[F32, str]:
    """(samples, why not)"""
    path = folder / "sound.ogg"
    path.write_bytes(data)
    fd = os.open(path, os.O_RDONLY)
    blocks: list[F32] = []
    try:
        decoder = decode.open_decoder(fd, len(data))
        blocks.extend(decoder.blocks())
        decoder.close()
    except AudioError as error:
        return joined(blocks), str(error.reason)
    finally:
        os.close(fd)
    return joined(blocks), ""


def joined(blocks: list[F32]) -> F32:
    return np.concatenate([np.empty(0, np.float32), *blocks])


def of_libsndfile(data: bytes, folder: Path) -> tuple[F32, str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sndfile, "vorbis_blocks", lambda *_: iter(()))
        return heard(data, folder)


def pages_of(data: bytes) -> list[bytes]:
    starts = [*ogg_pages(data), len(data)]
    return [data[start:end] for start, end in pairwise(starts)]


def position(page: bytes | bytearray) -> int:
    return int.from_bytes(page[6:14], "little", signed=True)


def with_cover(data: bytes) -> bytes:
    """The file with a picture among its tags. Source: RFC 9639, 8.8; xiph.org VorbisComment."""
    one_by_one = chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0))
    image = b"\x89PNG\r\n\x1a\n" + one_by_one + chunk(b"IDAT", zlib.compress(bytes(4)))
    image += chunk(b"IEND", b"")
    kind = b"image/png"
    about = struct.pack(">II", 3, len(kind)) + kind + struct.pack(">IIIII", 0, 1, 1, 24, 0)
    block = about + struct.pack(">I", len(image)) + image
    with av.open(io.BytesIO(data)) as source, io.BytesIO() as file:
        with av.open(file, "w", format="ogg") as target:
            stream = target.add_stream_from_template(source.streams.audio[0])
            stream.metadata["METADATA_BLOCK_PICTURE"] = base64.b64encode(block).decode()
            for packet in source.demux(source.streams.audio[0]):
                if packet.dts is not None:
                    packet.stream = stream
                    target.mux(packet)
        return file.getvalue()


def chunk(kind: bytes, body: bytes) -> bytes:
    """A part of a PNG file."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


@pytest.fixture
def own_blocks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How often libsndfile itself was asked for samples."""
    asked: list[int] = []
    own = sndfile.SndfileSource._own_blocks

    def counted(self: sndfile.SndfileSource) -> Iterator[F32]:
        asked.append(1)
        return own(self)

    monkeypatch.setattr(sndfile.SndfileSource, "_own_blocks", counted)
    return asked


@pytest.mark.parametrize("n_channels", [1, 2, 6])
@pytest.mark.parametrize("rate_hz", RATES_HZ)
@pytest.mark.parametrize("length_s", [0.02, 1.0, 7.3])
def test_samples_are_libsndfiles(
    tmp_path: Path, own_blocks: list[int], rate_hz: int, n_channels: int, length_s: float
) -> None:
    data = encoded("vorbis", noise(rate_hz, n_channels, length_s), rate_hz)
    ours, fault = heard(data, tmp_path)
    assert (fault, own_blocks) == ("", [])
    theirs, _ = of_libsndfile(data, tmp_path)
    assert len(ours) == len(theirs)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6)


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(
    spoilt=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=4),
    cut=st.floats(0.02, 1),
)
def test_a_spoilt_file_fails_for_the_same_reason(
    tmp_path_factory: pytest.TempPathFactory, spoilt: list[tuple[float, int]], cut: float
) -> None:
    data = bytearray(encoded("vorbis", noise(16_000, 2, 4.0), 16_000))
    data = data[: int(cut * len(data))]
    for at, value in spoilt:
        data[int(at * len(data))] = value
    folder = tmp_path_factory.mktemp("spoilt")
    ours, our_fault = heard(bytes(data), folder)
    theirs, their_fault = of_libsndfile(bytes(data), folder)
    assert our_fault == their_fault
    if not our_fault:
        assert len(ours) == len(theirs)
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6)


@pytest.mark.parametrize("n_blocks", [0, 1, 3])
def test_libsndfile_goes_on_where_ffmpeg_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n_blocks: int
) -> None:
    data = encoded("vorbis", noise(44_100, 2, 6.0), 44_100)
    fast = sndfile.vorbis_blocks

    def breaks_off(*about: int) -> Iterator[F32]:
        for _, block in zip(range(n_blocks), fast(*about), strict=False):
            yield block

    theirs, _ = of_libsndfile(data, tmp_path)
    monkeypatch.setattr(sndfile, "vorbis_blocks", breaks_off)
    ours, fault = heard(data, tmp_path)
    assert fault == ""
    assert len(ours) == len(theirs)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6)


def test_what_ffmpeg_gives_beyond_the_headers_promise_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = encoded("vorbis", noise(44_100, 2, 2.0), 44_100)
    fast = sndfile.vorbis_blocks

    def too_much(*about: int) -> Iterator[F32]:
        yield from fast(*about)
        yield np.ones((500, 2), np.float32)

    theirs, _ = of_libsndfile(data, tmp_path)
    monkeypatch.setattr(sndfile, "vorbis_blocks", too_much)
    ours, fault = heard(data, tmp_path)
    assert (fault, len(ours)) == ("", len(theirs))


@pytest.mark.parametrize("which", ["all", "first"])
@pytest.mark.parametrize("shift", [-2_000, -500, -100, 100, 2_000])
def test_a_start_that_is_cut_off_by_its_positions_is_cut_off(
    tmp_path: Path, shift: int, which: str
) -> None:
    pages = [bytearray(page) for page in pages_of(encoded("vorbis", noise(44_100, 2, 4.0), 44_100))]
    heard_at = [page for page in pages if position(page) > 0]
    for page in heard_at if which == "all" else heard_at[:1]:
        page[6:14] = (position(page) + shift).to_bytes(8, "little", signed=True)
        page[22:26] = ogg_checksum(bytes(page)).to_bytes(4, "little")
    data = b"".join(pages)
    ours, our_fault = heard(data, tmp_path)
    theirs, their_fault = of_libsndfile(data, tmp_path)
    assert our_fault == their_fault
    assert len(ours) == len(theirs)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6)


@pytest.mark.parametrize("n_lost", [1, 2, 3])
def test_a_file_of_poor_quality_that_lost_pages_is_labelled_at_its_times(
    tmp_path: Path, n_lost: int
) -> None:
    """A page is long then, and what decoders make of a gap differs by more than the slack."""
    file = io.BytesIO()
    sound = noise(44_100, 2, 1.0)
    soundfile.write(file, sound, 44_100, format="OGG", subtype="VORBIS", compression_level=0)
    pages = pages_of(file.getvalue())
    for first in range(3, len(pages) - n_lost):
        path = tmp_path / "sound.ogg"
        path.write_bytes(b"".join(pages[:first] + pages[first + n_lost :]))
        with Recording(os.fsencode(path)) as recording:
            n_samples = sum(map(len, recording.blocks()))
            assert is_partial(recording.remarks)
        # A last page has no time but its end, so that a loss before it is not placed.
        is_last = first + n_lost == len(pages) - 1
        assert (
            0 < n_samples <= len(sound)
            if is_last
            else n_samples == pytest.approx(len(sound), abs=0.1 * 44_100)
        )


def test_packets_that_are_no_vorbis_are_libsndfiles_affair(
    tmp_path: Path, own_blocks: list[int]
) -> None:
    """Random bytes in valid pages: FFmpeg raises where libvorbis passes over them."""
    pages = pages_of(encoded("vorbis", noise(44_100, 2, 4.0), 44_100))
    spoilt = bytearray(pages[-3])
    body = 27 + spoilt[26]
    spoilt[body:] = np.random.default_rng(0).bytes(len(spoilt) - body)
    spoilt[22:26] = ogg_checksum(bytes(spoilt)).to_bytes(4, "little")
    data = b"".join([*pages[:-3], spoilt, *pages[-2:]])
    ours, our_fault = heard(data, tmp_path)
    assert own_blocks == [1]
    theirs, their_fault = of_libsndfile(data, tmp_path)
    assert our_fault == their_fault
    assert len(ours) == len(theirs)


def test_a_cover_picture_is_no_hindrance(tmp_path: Path, own_blocks: list[int]) -> None:
    samples, fault = heard(with_cover(encoded("vorbis", noise(44_100, 2, 2.0), 44_100)), tmp_path)
    assert (fault, own_blocks) == ("", [])
    assert len(samples) == 2 * 44_100


def test_what_is_too_large_for_ffmpeg_is_libsndfiles_affair(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own_blocks: list[int]
) -> None:
    """As tags of 60 MB are within a decoder process's limit of memory."""

    def open_(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(av, "open", open_)
    samples, fault = heard(encoded("vorbis", noise(44_100, 2, 2.0), 44_100), tmp_path)
    assert (fault, own_blocks, len(samples)) == ("", [1], 88_200)


def test_leaving_amid_the_file_does_no_harm(tmp_path: Path) -> None:
    data = encoded("vorbis", noise(44_100, 2, 6.0), 44_100)
    path = tmp_path / "sound.ogg"
    path.write_bytes(data)
    fd = os.open(path, os.O_RDONLY)
    try:
        decoder = decode.open_decoder(fd, len(data))
        at = os.lseek(fd, 0, os.SEEK_CUR)
        blocks = decoder.blocks()
        next(blocks)
        blocks.close()  # type: ignore[attr-defined]
        assert os.lseek(fd, 0, os.SEEK_CUR) == at
        assert sum(map(len, decoder.blocks())) == 6 * 44_100
        decoder.close()
    finally:
        os.close(fd)


def test_real_recordings_have_libsndfiles_samples(
    tmp_path: Path, own_blocks: list[int], assets: Path
) -> None:
    for path in sorted((assets / "esc10-dev").rglob("*.ogg"))[::4]:
        own_blocks.clear()
        ours, fault = heard(path.read_bytes(), tmp_path)
        assert (fault, own_blocks) == ("", [])
        theirs, _ = of_libsndfile(path.read_bytes(), tmp_path)
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6)


def test_a_stream_that_begins_late_has_the_same_samples(
    tmp_path: Path, own_blocks: list[int]
) -> None:
    """Who records a live stream has its headers, and then the pages of the moment."""
    data = encoded("vorbis", noise(44_100, 2, 8.0), 44_100)
    pages = ogg_pages(data)
    late = data[: pages[2]] + data[pages[len(pages) // 2] :]
    ours, our_fault = heard(late, tmp_path)
    theirs, their_fault = of_libsndfile(late, tmp_path)
    assert our_fault == their_fault == ""
    assert own_blocks == [1]  # the second time
    assert len(ours) == len(theirs)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6)


def test_after_a_skip_libsndfile_reads(tmp_path: Path, own_blocks: list[int]) -> None:
    data = encoded("vorbis", noise(44_100, 2, 4.0), 44_100)
    whole, _ = heard(data, tmp_path)
    fd = os.open(tmp_path / "sound.ogg", os.O_RDONLY)
    try:
        decoder = decode.open_decoder(fd, len(data))
        at = decoder.skip(100_000)
        rest = np.concatenate([mono.mix_to_mono(block) for block in decoder._raw_blocks()])
        decoder.close()
    finally:
        os.close(fd)
    assert 0 < at <= 100_000
    assert own_blocks == [1]
    np.testing.assert_allclose(rest, whole[at:], rtol=0, atol=1e-6)


def test_for_a_part_from_the_start_the_file_is_not_read_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "sound.ogg"
    path.write_bytes(encoded("vorbis", noise(44_100, 2, 4.0), 44_100))

    def looked_at(*_: int) -> None:
        pytest.fail("its pages were all looked at")

    monkeypatch.setattr(header_facts, "ogg_fault", looked_at)
    with path.open("rb") as file:
        size_bytes = path.stat().st_size
        decoder = decode.open_decoder(file.fileno(), size_bytes, is_for_a_part=True)
        assert decoder.skip(0) == 0
        assert len(next(decoder.blocks())) == mono.BLOCK_SAMPLES // 2
        decoder.close()
