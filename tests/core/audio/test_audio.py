from __future__ import annotations

import hashlib
import os
import socket
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import soxr
from numpy.typing import NDArray

from audioset_core.audio import recording as audio
from audioset_core.audio.decoders import open_decoder
from audioset_core.audio.recording import (
    AUDIO_SUFFIXES,
    Recording,
    stated_duration_s,
    usual_duration_s,
)
from audioset_core.audio.resample import resampled
from audioset_core.errors import AudioError, Reason

pytestmark = pytest.mark.usefixtures("no_descriptor_leaks")

F32 = NDArray[np.float32]
RATE_HZ = 16_000


@pytest.fixture(params=["in memory", "from disk"])
def either_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Small files are copied into memory, large ones read twice: both must do the same."""
    if request.param == "from disk":
        monkeypatch.setattr(audio, "IN_MEMORY_BYTES", 0)
    return str(request.param)


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audio, "IN_MEMORY_BYTES", 0)


@pytest.fixture
def wav(tmp_path: Path) -> Path:
    path = tmp_path / "noise.wav"
    noise = np.random.default_rng(1).normal(0, 0.1, 10 * RATE_HZ).astype(np.float32)
    soundfile.write(path, noise, RATE_HZ, subtype="FLOAT")
    return path


def whole(path: Path | bytes) -> F32:
    with Recording(os.fsencode(path)) as recording:
        return np.concatenate(list(recording.blocks()))


def reason_of(path: Path | bytes) -> Reason:
    with pytest.raises(AudioError) as caught:
        whole(path)
    assert caught.value.detail
    return caught.value.reason


def touch(path: Path, more: bytes = b"more") -> None:
    with path.open("ab") as file:
        file.write(more)


# --- what a recording says ----------------------------------------------------------------------


def test_digest_is_of_the_files_bytes(wav: Path, either_way: str) -> None:
    with Recording(os.fsencode(wav)) as recording:
        assert recording.sha256 == hashlib.sha256(wav.read_bytes()).hexdigest()
        status = wav.stat()
        assert (recording.size_bytes, recording.mtime_ns) == (status.st_size, status.st_mtime_ns)
        assert recording.duration_s == 0.0
        blocks = list(recording.blocks())
        assert recording.n_samples == 10 * RATE_HZ
        assert recording.duration_s == 10.0
        assert recording.info.promised_samples == 10 * RATE_HZ
    np.testing.assert_array_equal(np.concatenate(blocks), soundfile.read(wav, dtype="float32")[0])


def test_samples_are_decoded_the_same_either_way(
    assets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = next((assets / "esc10-dev").glob("*/*.ogg"))
    from_memory = whole(path)
    monkeypatch.setattr(audio, "IN_MEMORY_BYTES", 0)
    np.testing.assert_array_equal(whole(path), from_memory)


@pytest.mark.parametrize(
    "name",
    [
        b"caf\xe9.wav",
        b"\xff\xfe.wav",
        "日本.wav".encode(),
        b"a\nb.wav",
        b"x" * 251 + b".wav",
        b"-rf",
    ],
)
def test_any_name_will_do(wav: Path, name: bytes) -> None:
    path = os.path.join(os.fsencode(wav.parent), name)  # noqa: PTH118
    os.link(wav, path)
    assert len(whole(path)) == 10 * RATE_HZ


def test_links_are_followed_when_opened(wav: Path) -> None:
    link = wav.with_name("link.wav")
    link.symlink_to(wav)
    assert len(whole(link)) == 10 * RATE_HZ


def test_closing_twice_closes_nobody_elses_file(wav: Path) -> None:
    recording = Recording(os.fsencode(wav))
    recording.close()
    other = os.open(wav, os.O_RDONLY)  # takes the number that was freed
    recording.close()
    os.fstat(other)
    os.close(other)


def test_leaving_half_read_is_clean(wav: Path, either_way: str) -> None:
    with Recording(os.fsencode(wav)) as recording:
        next(iter(recording.blocks()))
    with pytest.raises(KeyError), Recording(os.fsencode(wav)):
        raise KeyError


# --- what cannot be read ------------------------------------------------------------------------


@pytest.mark.timeout(10)
def test_a_fifo_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.wav")
    assert reason_of(tmp_path / "pipe.wav") is Reason.NOT_A_FILE
    assert stated_duration_s(os.fsencode(tmp_path / "pipe.wav")) is None


def test_what_is_not_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "folder.wav").mkdir()
    assert reason_of(tmp_path / "folder.wav") is Reason.NOT_A_FILE
    assert reason_of(b"/dev/zero") is Reason.NOT_A_FILE
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket.wav")
        assert reason_of(b"socket.wav") is Reason.NOT_A_FILE


def test_missing(tmp_path: Path) -> None:
    assert reason_of(tmp_path / "absent.wav") is Reason.VANISHED
    (tmp_path / "dangling.wav").symlink_to(tmp_path / "absent.wav")
    assert reason_of(tmp_path / "dangling.wav") is Reason.VANISHED


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_forbidden(wav: Path) -> None:
    wav.chmod(0)
    assert reason_of(wav) is Reason.UNREADABLE


def test_opening_fails(wav: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    assert reason_of(wav) is Reason.UNREADABLE


def test_the_disk_fails(wav: Path, either_way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> bytes:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(os, "read", fail)
        assert reason_of(wav) is Reason.UNREADABLE
    with monkeypatch.context() as patched:
        patched.setattr(audio, "open_sandboxed", open_decoder)
        patched.setattr(os, "pread", fail)
        assert reason_of(wav) is Reason.UNREADABLE


def test_no_room_for_the_copy(wav: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "write", lambda fd, data: len(data) // 2)
    assert reason_of(wav) is Reason.UNREADABLE


def test_reasons_that_pass_are_tried_again() -> None:
    passing = {reason for reason in Reason if not reason.is_permanent}
    assert {Reason.CHANGED, Reason.UNREADABLE, Reason.VANISHED} <= passing
    assert Reason.TRUNCATED.is_permanent


# --- a file that changes ------------------------------------------------------------------------


@pytest.mark.parametrize("keep_reading", [False, True])
def test_growing_while_it_is_hashed(
    wav: Path, either_way: str, monkeypatch: pytest.MonkeyPatch, keep_reading: bool
) -> None:
    read, n_reads = os.read, 0

    def growing(fd: int, count: int) -> bytes:
        nonlocal n_reads
        n_reads += 1
        assert n_reads < 100, "a file that grows for ever must not be read for ever"
        piece = read(fd, count)
        if keep_reading or n_reads == 1:
            touch(wav, b"x" * 100_000)
        return piece

    monkeypatch.setattr(os, "read", growing)
    assert reason_of(wav) is Reason.CHANGED


def test_a_copy_in_memory_cannot_change(wav: Path) -> None:
    before = wav.read_bytes()
    with Recording(os.fsencode(wav)) as recording:
        touch(wav)
        assert recording.sha256 == hashlib.sha256(before).hexdigest()
        assert sum(map(len, recording.blocks())) == 10 * RATE_HZ


@pytest.mark.usefixtures("large")
@pytest.mark.parametrize("when", ["before", "amid"])
def test_growing_while_it_is_decoded(wav: Path, when: str) -> None:
    with Recording(os.fsencode(wav)) as recording:
        blocks = recording.blocks()
        if when == "amid":
            next(blocks)
        touch(wav)
        with pytest.raises(AudioError) as caught:
            list(blocks)
        assert caught.value.reason is Reason.CHANGED


@pytest.mark.usefixtures("large")
def test_rewritten_in_place_with_the_old_time(wav: Path) -> None:
    status = wav.stat()
    with Recording(os.fsencode(wav)) as recording:
        with wav.open("r+b") as file:
            file.seek(5000)
            file.write(b"\0" * 100)
        os.utime(wav, ns=(status.st_atime_ns, status.st_mtime_ns))
        with pytest.raises(AudioError) as caught:
            list(recording.blocks())
        assert caught.value.reason is Reason.CHANGED


@pytest.mark.usefixtures("large")
def test_damage_by_a_change_is_a_change(tmp_path: Path) -> None:
    # Were it called damaged, the digest taken before would be refused for good.
    path = tmp_path / "noise.flac"
    noise = np.random.default_rng(1).normal(0, 0.1, 20 * RATE_HZ).astype(np.float32)
    soundfile.write(path, noise, RATE_HZ)
    with Recording(os.fsencode(path)) as recording:
        os.truncate(path, path.stat().st_size // 2)
        with pytest.raises(AudioError) as caught:
            list(recording.blocks())
        assert caught.value.reason is Reason.CHANGED


@pytest.mark.usefixtures("large")
def test_replaced_by_a_rename_is_still_the_old_file(wav: Path) -> None:
    other = wav.with_name("other.wav")
    other.write_bytes(wav.read_bytes()[:5000])
    with Recording(os.fsencode(wav)) as recording:
        keep = os.open(wav, os.O_RDONLY)  # else the last link goes, which changes the ctime
        other.replace(wav)
        os.close(keep)
        try:
            assert sum(map(len, recording.blocks())) == 10 * RATE_HZ
        except AudioError as error:
            assert error.reason is Reason.CHANGED  # noqa: PT017 (either is right)


# --- resampling ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "rate_hz", [1_000, 8_000, 11_025, 22_050, 44_100, 44_101, 48_000, 96_000, 384_000]
)
def test_resampled_in_blocks_equals_the_whole(rate_hz: int) -> None:
    rng = np.random.default_rng(rate_hz)
    samples = rng.standard_normal(rate_hz * 2).astype(np.float32)
    cuts = sorted(rng.integers(0, len(samples), 7))
    streamed = np.concatenate(list(resampled(iter(np.split(samples, cuts)), rate_hz, 16_000)))
    np.testing.assert_array_equal(streamed, soxr.resample(samples, rate_hz, 16_000, quality="HQ"))
    assert abs(len(streamed) - 32_000) <= 1
    assert streamed.dtype == np.float32


def test_the_right_rate_is_left_alone() -> None:
    samples = np.arange(100, dtype=np.float32)
    (only,) = resampled(iter([samples]), 16_000, 16_000)
    assert only is samples


@pytest.mark.parametrize("n_samples", [0, 1, 2, 10])
def test_a_few_samples_resample(n_samples: int) -> None:
    out = np.concatenate(list(resampled(iter([np.ones(n_samples, np.float32)]), 48_000, 16_000)))
    assert len(out) <= n_samples


# --- lengths without decoding -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "size_bytes", "duration_s"),
    [
        (b"a.wav", 1_764_000, 10), (b"A.WAV", 1_764_000, 10), (b"b.flac", 900_000, 10),
        (b"c.mp3", 160_000, 10), (b"none", 16_000, 1), (b"\xff.ogg", 0, 0),
    ],
)  # fmt: skip
def test_usual_length(name: bytes, size_bytes: int, duration_s: float) -> None:
    assert usual_duration_s(name, size_bytes) == pytest.approx(duration_s)


def test_stated_length(wav: Path, tmp_path: Path) -> None:
    assert stated_duration_s(os.fsencode(wav)) == 10.0
    assert stated_duration_s(os.fsencode(tmp_path / "absent")) is None
    (tmp_path / "text.wav").write_text("text")
    assert stated_duration_s(os.fsencode(tmp_path / "text.wav")) is None


def test_endings() -> None:
    assert {".wav", ".flac", ".ogg", ".mp3", ".m4a", ".aiff"} <= AUDIO_SUFFIXES
    asked_for = ".weba .m4v .3g2 .ts .mts .mpg .ac3 .wv .spx .gsm .amr .bw64"
    assert set(asked_for.split()) <= AUDIO_SUFFIXES
    assert all(suffix == suffix.lower() and suffix[0] == "." for suffix in AUDIO_SUFFIXES)


# --- memory -------------------------------------------------------------------------------------


def test_a_long_file_needs_no_more_memory(tmp_path: Path, large: None) -> None:
    # 30 minutes at 16 kHz, 58 MB: a hole in the file reads as silence.
    path = tmp_path / "long.wav"
    soundfile.write(path, np.zeros(16, np.float32), RATE_HZ, subtype="PCM_16")
    n_bytes = 30 * 60 * RATE_HZ * 2
    header = bytearray(path.read_bytes()[:44])
    header[4:8] = (n_bytes + 36).to_bytes(4, "little")
    header[40:44] = n_bytes.to_bytes(4, "little")
    path.write_bytes(header)
    os.truncate(path, 44 + n_bytes)
    tracemalloc.start()
    try:
        with Recording(os.fsencode(path)) as recording:
            n_samples = sum(map(len, resampled(recording.blocks(), RATE_HZ, 8_000)))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert n_samples == 30 * 60 * 8_000
    assert peak < 8_000_000
