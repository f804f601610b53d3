"""Ogg Vorbis by FFmpeg: libsndfile's samples, and its word on whatever is wrong."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audioset_core import decode
from audioset_core.errors import AudioError
from tests.torture.makers import F32, encoded, noise, ogg_pages

pytest.importorskip("av", reason="the extra 'ffmpeg' is not installed")

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
        patch.setattr(decode, "vorbis_blocks", lambda *_: iter(()))
        return heard(data, folder)


@pytest.fixture
def own_blocks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How often libsndfile itself was asked for samples."""
    asked: list[int] = []
    own = decode._SndfileDecoder._own_blocks

    def counted(self: decode._SndfileDecoder) -> Iterator[F32]:
        asked.append(1)
        return own(self)

    monkeypatch.setattr(decode._SndfileDecoder, "_own_blocks", counted)
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
    fast = decode.vorbis_blocks

    def breaks_off(*about: int) -> Iterator[F32]:
        for _, block in zip(range(n_blocks), fast(*about), strict=False):
            yield block

    theirs, _ = of_libsndfile(data, tmp_path)
    monkeypatch.setattr(decode, "vorbis_blocks", breaks_off)
    ours, fault = heard(data, tmp_path)
    assert fault == ""
    assert len(ours) == len(theirs)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6)


def test_what_ffmpeg_gives_beyond_the_headers_promise_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = encoded("vorbis", noise(44_100, 2, 2.0), 44_100)
    fast = decode.vorbis_blocks

    def too_much(*about: int) -> Iterator[F32]:
        yield from fast(*about)
        yield np.ones((500, 2), np.float32)

    theirs, _ = of_libsndfile(data, tmp_path)
    monkeypatch.setattr(decode, "vorbis_blocks", too_much)
    ours, fault = heard(data, tmp_path)
    assert (fault, len(ours)) == ("", len(theirs))


def test_a_stream_that_begins_late_has_the_same_samples(tmp_path: Path) -> None:
    """Who records a live stream has its headers, and then the pages of the moment."""
    data = encoded("vorbis", noise(44_100, 2, 8.0), 44_100)
    pages = ogg_pages(data)
    late = data[: pages[2]] + data[pages[len(pages) // 2] :]
    ours, our_fault = heard(late, tmp_path)
    theirs, their_fault = of_libsndfile(late, tmp_path)
    assert our_fault == their_fault
    assert len(ours) == len(theirs)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6)


def test_after_a_skip_libsndfile_reads(tmp_path: Path, own_blocks: list[int]) -> None:
    data = encoded("vorbis", noise(44_100, 2, 4.0), 44_100)
    whole, _ = heard(data, tmp_path)
    fd = os.open(tmp_path / "sound.ogg", os.O_RDONLY)
    try:
        decoder = decode.open_decoder(fd, len(data))
        at = decoder.skip(100_000)
        rest = np.concatenate([decode.mix_to_mono(block) for block in decoder._raw_blocks()])
        decoder.close()
    finally:
        os.close(fd)
    assert 0 < at <= 100_000
    assert own_blocks == [1]
    np.testing.assert_allclose(rest, whole[at:], rtol=0, atol=1e-6)


def test_without_ffmpeg_libsndfile_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own_blocks: list[int]
) -> None:
    data = encoded("vorbis", noise(44_100, 2, 2.0), 44_100)
    monkeypatch.setitem(sys.modules, "av", None)
    samples, fault = heard(data, tmp_path)
    assert (fault, own_blocks, len(samples)) == ("", [1], 88_200)
