"""Whatever happens inside a decoder happens to its own process, and to one file."""

from __future__ import annotations

import mmap
import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from audioset_core.audio import decoders as decode
from audioset_core.audio import recording as audio
from audioset_core.audio import sandbox as contained
from audioset_core.audio import sandbox_process as decode_process
from audioset_core.audio.decoders import DecodeOptions
from audioset_core.audio.recording import Recording
from audioset_core.audio.sandbox import DecoderPool
from audioset_core.errors import AudioError, Reason
from tests.torture.faulty_decoder import told
from tests.torture.makers import F32, FORMATS, constant_flac, encoded, noise, pcm, wav, with_ffmpeg


@pytest.fixture
def faulty(monkeypatch: pytest.MonkeyPatch) -> Iterator[DecoderPool]:
    """Decoders that do what a file tells them to."""
    pool = DecoderPool("tests.torture.faulty_decoder")
    monkeypatch.setattr(contained, "decoder_pool", lambda: pool)
    yield pool
    pool.close()


def samples(path: Path) -> F32:
    with Recording(os.fsencode(path)) as recording:
        return np.concatenate(list(recording.blocks()))


def outcome(path: Path) -> tuple[Reason | None, str]:
    try:
        samples(path)
    except AudioError as error:
        return error.reason, error.detail
    return None, ""


def process_ids(pool: DecoderPool) -> list[int]:
    return [worker._process.pid for worker in pool._idle]


FAULTS = {
    "segfault": (Reason.CRASHED, "its process ended with SIGSEGV"),
    "abort": (Reason.CRASHED, "its process ended with SIGABRT"),
    "leave": (Reason.CRASHED, "its process ended with exit code 3"),
    "spin": (Reason.TOO_SLOW, "more than 60 s of CPU"),
    "sleep": (Reason.UNREADABLE, "nothing came for 120 s"),
    "eat": (Reason.TOO_LARGE, "it takes more than 128 MiB"),
    "raise": (Reason.INTERNAL, "ZeroDivisionError: of the decoder"),
}


@pytest.mark.parametrize(
    ("order", "when"),
    [(order, "amid") for order in FAULTS] + [("segfault", "open"), ("eat", "open")],
)
@pytest.mark.slow
def test_a_fault_is_its_files_and_no_others(
    faulty: DecoderPool, tmp_path: Path, order: str, when: str
) -> None:
    (tmp_path / "bad.wav").write_bytes(told(order, when))
    (tmp_path / "good.wav").write_bytes(wav(pcm(50_000)))
    reason, detail = FAULTS[order]
    found = outcome(tmp_path / "bad.wav")
    assert found[0] is reason
    assert found[1].startswith(detail)
    assert outcome(tmp_path / "good.wav") == (None, "")


@pytest.mark.slow
def test_empty_blocks_are_signs_of_life(faulty: DecoderPool, tmp_path: Path) -> None:
    """As of a decoder that reads what another has read before, which may take minutes."""
    (tmp_path / "slow.wav").write_bytes(told("linger", "amid"))
    expected = np.frombuffer(pcm(300_000), "<i2").astype(np.float32) / 32_768
    np.testing.assert_array_equal(samples(tmp_path / "slow.wav"), expected)


@pytest.mark.slow
def test_a_file_does_not_pay_for_the_one_before(faulty: DecoderPool, tmp_path: Path) -> None:
    (tmp_path / "poison.wav").write_bytes(told("poison"))
    (tmp_path / "good.wav").write_bytes(wav(pcm(300_000)))
    assert outcome(tmp_path / "poison.wav") == (None, "")
    (poisoned,) = process_ids(faulty)
    # It dies in the poisoned process after a block, and goes on in another from there.
    expected = np.frombuffer(pcm(300_000), "<i2").astype(np.float32) / 32_768
    np.testing.assert_array_equal(samples(tmp_path / "good.wav"), expected)
    assert process_ids(faulty) != [poisoned]


@pytest.mark.parametrize("name", FORMATS)
def test_samples_are_those_of_a_decoder_in_this_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    rate_hz, n_channels = max(FORMATS[name][2]), min(2, FORMATS[name][3])
    path = tmp_path / "sound"
    path.write_bytes(encoded(name, noise(rate_hz, n_channels, 2.0), rate_hz))
    apart = samples(path)
    monkeypatch.setattr(audio, "open_sandboxed", decode.open_decoder)
    np.testing.assert_array_equal(apart, samples(path))


def test_a_decoder_starts_without_the_library_of_loudness() -> None:
    """scipy.signal takes longer to import than all else here, once for every decoder."""
    pool = contained.decoder_pool()
    pool.close()  # another test may have asked one of its decoders for loudness
    worker = pool.take()
    loaded = Path(f"/proc/{worker._process.pid}/maps").read_text()
    pool.put_back(worker)
    assert "/numpy/" in loaded
    assert "/scipy/" not in loaded


@pytest.mark.slow
def test_the_library_of_loudness_takes_no_memory_from_the_file(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(wav(pcm(50_000)))
    with Recording(os.fsencode(tmp_path / "a.wav"), DecodeOptions(measures="loudness")) as found:
        assert len(np.concatenate(list(found.blocks()))) == 50_000
    pool = contained.decoder_pool()
    process = Path(f"/proc/{process_ids(pool)[-1]}")  # it was put back last
    assert "/scipy/" in (process / "maps").read_text()
    limits = dict(re.findall(r"^(Max .+?) {2,}(\S+)", (process / "limits").read_text(), re.M))
    used_bytes = int((process / "statm").read_text().split()[0]) * mmap.PAGESIZE
    assert int(limits["Max address space"]) - used_bytes > 0.9 * decode_process.MEMORY_BYTES


def test_small_blocks_come_as_large_ones(tmp_path: Path) -> None:
    path = tmp_path / "sound.m4a"
    with_ffmpeg(path, noise(48_000, 2, 12.0), 48_000, "aac", "ipod")
    with Recording(os.fsencode(path)) as recording:
        lengths = [len(block) for block in recording.blocks()]
    assert set(lengths[:-1]) == {decode_process.SLOT_SAMPLES}
    assert sum(lengths) >= 12 * 48_000


@pytest.mark.slow
def test_a_process_is_used_again(faulty: DecoderPool, tmp_path: Path) -> None:
    path = tmp_path / "good.wav"
    path.write_bytes(wav(pcm(300_000)))
    samples(path)
    (first,) = process_ids(faulty)
    with Recording(os.fsencode(path)):  # opened only
        assert process_ids(faulty) == []
    assert process_ids(faulty) == [first]
    with Recording(os.fsencode(path)) as one, Recording(os.fsencode(path)) as two:
        assert len(next(one.blocks())) == len(next(two.blocks()))
    # Left amid their recordings they would have to be listened to first.
    assert process_ids(faulty) == []
    faulty.close()


def test_signals_for_the_run_are_not_for_its_decoders(faulty: DecoderPool, tmp_path: Path) -> None:
    path = tmp_path / "good.wav"
    path.write_bytes(wav(pcm(300_000)))
    with Recording(os.fsencode(path)) as recording:
        blocks = recording.blocks()
        next(blocks)
        process_id = recording._decoder._worker._process.pid  # type: ignore[attr-defined]
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(process_id, number)
        list(blocks)
    assert process_ids(faulty) == [process_id]


def test_one_that_is_killed_from_outside_is_no_fault_of_the_file(
    faulty: DecoderPool, tmp_path: Path
) -> None:
    path = tmp_path / "good.wav"
    path.write_bytes(wav(pcm(900_000)))
    recording = Recording(os.fsencode(path))
    os.kill(recording._decoder._worker._process.pid, signal.SIGKILL)  # type: ignore[attr-defined]
    with recording, pytest.raises(AudioError, match="ended from outside") as caught:
        list(recording.blocks())
    assert not caught.value.reason.is_permanent  # the next run tries again


def test_decoders_end_with_the_process_that_asked(faulty: DecoderPool, tmp_path: Path) -> None:
    (tmp_path / "good.wav").write_bytes(wav(pcm(1_000)))
    samples(tmp_path / "good.wav")
    (worker,) = faulty._idle
    worker._wire.close()  # as the system does for one that is killed
    assert worker._process.wait(timeout=60) == 0
    faulty._idle.clear()


def test_a_decoder_that_does_not_start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(contained, "decoder_pool", lambda: DecoderPool("audioset_core.absent"))
    (tmp_path / "good.wav").write_bytes(wav(pcm(1_000)))
    reason, detail = outcome(tmp_path / "good.wav")
    assert reason is Reason.INTERNAL
    assert "does not start: exit code 1; python -m audioset_core.absent may say why" in detail


@pytest.mark.parametrize("is_stated", [True, False])
def test_audio_without_end_is_cut_off(tmp_path: Path, is_stated: bool) -> None:
    week = bytearray(constant_flac(7 * 86_400))
    if not is_stated:  # RFC 9639: 36 bits of total samples, 0 for unknown
        week[21] &= 0xF0
        week[22:26] = bytes(4)
    path = tmp_path / "week.flac"
    path.write_bytes(week)
    reason, detail = outcome(path)
    assert reason is Reason.TOO_LONG
    # What is stated is believed; else it is decoded as far as it may go.
    assert detail.startswith(f"{168 if is_stated else 24} h in {len(week):,} bytes")


def test_reasons_of_the_file_itself_last() -> None:
    own = (Reason.CRASHED, Reason.TOO_SLOW, Reason.TOO_LARGE, Reason.TOO_LONG)
    assert all(reason.is_permanent for reason in own)


@pytest.mark.slow
def test_idle_decoders_cost_nothing_to_close(faulty: DecoderPool, tmp_path: Path) -> None:
    (tmp_path / "good.wav").write_bytes(wav(pcm(1_000)))
    samples(tmp_path / "good.wav")
    (process_id,) = process_ids(faulty)
    faulty.close()
    deadline = time.monotonic() + 10
    while Path(f"/proc/{process_id}").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert outcome(tmp_path / "good.wav") == (None, "")


@pytest.mark.parametrize("n_samples", [2_000_000, 1_000])
def test_a_process_is_kept_where_reading_stops_early(tmp_path: Path, n_samples: int) -> None:
    (tmp_path / "long.wav").write_bytes(wav(pcm(n_samples)))
    pool, ids = contained.decoder_pool(), []
    with (tmp_path / "long.wav").open("rb") as file:
        for _ in range(3):
            decoder = contained.open_sandboxed(file.fileno(), file.seek(0, os.SEEK_END))
            assert len(next(iter(decoder.blocks()))) > 0
            decoder.stop_reading()
            decoder.close()
            ids.append(process_ids(pool)[-1])
    assert len(set(ids)) == 1
    assert len(samples(tmp_path / "long.wav")) == n_samples
    assert process_ids(pool)[-1] == ids[0]
