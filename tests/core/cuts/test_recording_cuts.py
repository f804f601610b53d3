"""Cuts against the recording itself, read by soundfile or FFmpeg at the same places.

Public reports behind the cases: librosa 115, 128, 191 and 1709, audiofile 124, opensoundscape 248
(a sample too few, or other samples than in one go); libsndfile 309, 362, 643, 794, 885 and 1040
(what becomes of -1 and of more than 1 in FLAC; seeking in Ogg); python-soundfile 265 and 494;
torchaudio 1604 (24 bits become 16).
"""

from __future__ import annotations

import errno
import os
import resource
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import soundfile

from audioset_core.audio.recording import Recording
from audioset_core.audio.sandbox import decoder_pool
from audioset_core.cuts import recording_cuts
from audioset_core.cuts.recording_cuts import Cut, LabelledFile, WrittenCut, write_cuts
from audioset_core.errors import AudioError, Reason
from tests.formats.makers import Take, mux
from tests.torture.makers import constant_flac, sparse, wav

RATE_HZ, N = 8_000, 24_000
# The first and the last sample, one alone, overlapping ones, and ends of blocks.
PLACES = [(0, 1), (0, N), (1, 4_097), (N - 1, N), (12_345, 12_346), (4_096, 8_192), (5_000, 20_001)]


def _noise(n: int = N, n_channels: int = 2) -> Any:
    """Whole numbers of 32 bits, full scale on both sides among them."""
    samples = np.random.default_rng(3).integers(-(2**31), 2**31, (n, n_channels))
    samples[1], samples[5_000 % n] = -(2**31), 2**31 - 1
    return samples.astype(np.int32)


def _source(path: Path, rate_hz: int = RATE_HZ, **more: Any) -> LabelledFile:
    about = path.stat()
    return LabelledFile(
        os.fsencode(path), about.st_size, about.st_mtime_ns, "0" * 64, rate_hz, **more
    )


def _cut(
    source: LabelledFile, places: Sequence[tuple[int, int]], out: Path, wanted: Any = "flac"
) -> list[WrittenCut]:
    """The files in the order of the places."""
    cuts = [Cut(*place, out / f"{n}.{place[0]}") for n, place in enumerate(places)]
    found = dict(write_cuts(source, cuts, wanted))
    assert not [result for result in found.values() if isinstance(result, AudioError)]
    assert sorted(path.name for path in out.iterdir()) == sorted(
        w.path.name for w in found.values() if isinstance(w, WrittenCut)
    )
    return [found[cut] for cut in cuts]  # type: ignore[misc]


def _read(path: Path, first: int = 0, last: int | None = None) -> Any:
    return soundfile.read(path, start=first, stop=last, dtype="float64", always_2d=True)[0]


@pytest.mark.parametrize(
    ("name", "subtype", "stored", "as_wav"),
    [
        pytest.param("a.wav", "PCM_U8", "FLAC/PCM_S8", "WAV/PCM_U8", marks=pytest.mark.slow),
        pytest.param("a.wav", "PCM_16", "FLAC/PCM_16", "WAV/PCM_16", marks=pytest.mark.slow),
        ("a.flac", "PCM_24", "FLAC/PCM_24", "WAV/PCM_24"),
        pytest.param("a.aiff", "PCM_24", "FLAC/PCM_24", "WAV/PCM_24", marks=pytest.mark.slow),
        ("a.wav", "PCM_32", "WAV/PCM_32", "WAV/PCM_32"),
        pytest.param("a.wav", "FLOAT", "WAV/FLOAT", "WAV/FLOAT", marks=pytest.mark.slow),
        pytest.param("a.wav", "DOUBLE", "WAV/DOUBLE", "WAV/DOUBLE", marks=pytest.mark.slow),
        pytest.param("a.au", "ULAW", "FLAC/PCM_16", "WAV/PCM_16", marks=pytest.mark.slow),
    ],
)
def test_every_sample_of_every_channel(
    tmp_path: Path, name: str, subtype: str, stored: str, as_wav: str
) -> None:
    path = tmp_path / name
    samples = _noise() / 2.0**30 if subtype in ("FLOAT", "DOUBLE") else _noise()
    soundfile.write(path, samples, RATE_HZ, subtype=subtype)
    for wanted, expected in (("flac", stored), ("wav", as_wav)):
        files = _cut(_source(path), PLACES, tmp_path / wanted, wanted)
        for place, written in zip(PLACES, files, strict=True):
            assert written.encoding.format == expected
            assert bool(written.encoding.remark) == (wanted == "flac" and stored.startswith("WAV"))
            info = soundfile.info(written.path)
            assert (f"{info.format}/{info.subtype}", info.samplerate) == (expected, RATE_HZ)
            assert np.array_equal(_read(written.path), _read(path, *place))


@pytest.mark.parametrize(
    ("n_channels", "rate_hz", "why"), [(9, 8_000, "8 channels"), (1, 192_001, "192001 Hz")]
)
def test_what_flac_does_not_hold_is_wav(
    tmp_path: Path, n_channels: int, rate_hz: int, why: str
) -> None:
    soundfile.write(tmp_path / "a.wav", _noise(N, n_channels), rate_hz, subtype="PCM_24")
    (file,) = _cut(_source(tmp_path / "a.wav", rate_hz), [(7, 9_000)], tmp_path / "out")
    assert (file.path.suffix, file.encoding.subtype) == (".wav", "PCM_24")
    assert why in file.encoding.remark
    assert np.array_equal(_read(file.path), _read(tmp_path / "a.wav", 7, 9_000))


@pytest.mark.parametrize(
    ("container", "codec"),
    [pytest.param("mp4", "alac", marks=pytest.mark.slow), ("matroska", "flac")],
)
def test_lossless_sound_in_a_container_that_ffmpeg_reads(
    tmp_path: Path, container: str, codec: str
) -> None:
    samples = (_noise(3 * 44_100) >> 16).astype(np.float32) / 2**15
    (tmp_path / "a.x").write_bytes(mux(container, codec, [Take(samples, 44_100)]))
    source = _source(tmp_path / "a.x", 44_100)
    (file,) = _cut(source, [(50_000, 90_001)], tmp_path / "out")
    with av.open(str(tmp_path / "a.x")) as reading:
        frames = [frame.to_ndarray() for frame in reading.decode(audio=0)]
    is_planar = frames[0].shape[0] == 2
    whole = np.concatenate([f.T if is_planar else f.reshape(-1, 2) for f in frames])
    assert (file.encoding.format, whole.dtype) in (
        ("FLAC/PCM_16", "int16"),
        ("FLAC/PCM_24", "int32"),
    )
    assert np.array_equal(
        _read(file.path), whole[50_000:90_001] / -float(np.iinfo(whole.dtype).min)
    )


@pytest.mark.parametrize("ending", ["ogg", pytest.param("mp3", marks=pytest.mark.slow)])
def test_lossy_sound_is_rounded_to_24_bits_unless_it_is_above_full_scale(
    tmp_path: Path, ending: str
) -> None:
    path, t = tmp_path / f"a.{ending}", np.arange(3 * 44_100) / 44_100
    loud = np.where(t < 1.5, 0.4, 1.0)[:, np.newaxis] * np.sign(np.sin(2_000 * t))[:, np.newaxis]
    soundfile.write(path, loud, 44_100)
    quiet, clipped = _cut(_source(path, 44_100), [(9, 50_000), (80_000, 120_000)], tmp_path / "o")
    assert quiet.encoding.format == "FLAC/PCM_24"
    assert np.abs(_read(quiet.path) - _read(path, 9, 50_000)).max() < 0.6 / 2**23
    assert (clipped.encoding.format, clipped.path.suffix) == ("WAV/FLOAT", ".wav")
    assert "full scale" in clipped.encoding.remark
    assert np.abs(_read(clipped.path)).max() > 1
    assert np.abs(_read(clipped.path) - _read(path, 80_000, 120_000)).max() < 1e-6


@pytest.mark.slow
def test_more_cuts_at_once_than_files_are_kept_open(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", _noise(), RATE_HZ, subtype="PCM_16")
    places = [(n, N - n) for n in range(recording_cuts._MOST_OPEN + 9)]
    files = _cut(_source(tmp_path / "a.wav"), places, tmp_path / "out")
    for place, file in zip(places, files, strict=True):
        assert np.array_equal(_read(file.path), _read(tmp_path / "a.wav", *place))


def test_the_track_that_was_labelled(tmp_path: Path) -> None:
    takes = [Take((_noise(44_100, 1) >> n).astype(np.float32) / 2**31, 44_100) for n in (1, 9)]
    (tmp_path / "a.mkv").write_bytes(mux("matroska", "pcm_f32le", takes))
    for track, expected in ((1, takes[0].samples), (2, takes[1].samples)):
        source = _source(tmp_path / "a.mkv", 44_100, track=track)
        (file,) = _cut(source, [(100, 9_000)], tmp_path / str(track))
        assert file.encoding.format == "WAV/FLOAT"
        assert np.array_equal(_read(file.path), expected[100:9_000])
    (mean,) = _cut(_source(tmp_path / "a.mkv", 44_100, track="all"), [(100, 9_000)], tmp_path / "m")
    both = (takes[0].samples + takes[1].samples)[100:9_000] / 2
    assert np.abs(_read(mean.path) - both).max() < 1e-6


def test_a_recording_with_a_gap_and_a_damaged_part_is_cut_at_the_labels_times(
    tmp_path: Path,
) -> None:
    soundfile.write(tmp_path / "a.flac", _noise(20 * RATE_HZ, 1) >> 4, RATE_HZ, subtype="PCM_16")
    data = bytearray((tmp_path / "a.flac").read_bytes())
    data[len(data) // 3 : len(data) // 3 + 900] = bytes(900)
    (tmp_path / "a.flac").write_bytes(data)
    lost = Take((_noise(5 * 44_100, 1) >> 4).astype(np.float32) / 2**31, 44_100, lost=(1.0, 2.5))
    (tmp_path / "b.mkv").write_bytes(mux("matroska", "pcm_s16le", [lost]))
    for name, rate_hz in (("a.flac", RATE_HZ), ("b.mkv", 44_100)):
        with Recording(os.fsencode(tmp_path / name)) as recording:
            heard = np.concatenate([*recording.blocks()])
            assert any(remark.kind.is_partial for remark in recording.remarks)
        places = [(0, len(heard)), (len(heard) // 2, len(heard) - 77)]
        for is_partial in (False, True):
            source = _source(tmp_path / name, rate_hz, is_partial=is_partial)
            for place, file in zip(
                places, _cut(source, places, tmp_path / f"{name}{is_partial}"), strict=True
            ):
                assert np.array_equal(_read(file.path)[:, 0], heard[slice(*place)])


def test_a_place_behind_the_end_is_a_failure_and_the_others_are_written(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", _noise(), RATE_HZ, subtype="PCM_16")
    cuts = [Cut(0, 100, tmp_path / "o" / "x"), Cut(N - 10, N + 1, tmp_path / "o" / "y")]
    found = dict(write_cuts(_source(tmp_path / "a.wav"), cuts, "flac"))
    assert isinstance(found[cuts[0]], WrittenCut)
    assert getattr(found[cuts[1]], "reason", None) is Reason.TRUNCATED
    assert [path.name for path in (tmp_path / "o").iterdir()] == ["x.flac"]


def test_a_file_that_is_another_one_by_now(tmp_path: Path) -> None:
    path, cut = tmp_path / "a.wav", Cut(0, 9, tmp_path / "o" / "x")
    soundfile.write(path, _noise(), RATE_HZ, subtype="PCM_16")
    with Recording(os.fsencode(path)) as recording:
        digest = recording.sha256
    source = LabelledFile(os.fsencode(path), path.stat().st_size, 7, digest, RATE_HZ)
    assert isinstance(dict(write_cuts(source, [cut], "flac"))[cut], WrittenCut)  # only touched
    soundfile.write(path, _noise()[::-1], RATE_HZ, subtype="PCM_16")
    assert getattr(dict(write_cuts(source, [cut], "flac"))[cut], "reason", 0) is Reason.CHANGED
    path.unlink()
    assert getattr(dict(write_cuts(source, [cut], "flac"))[cut], "reason", 0) is Reason.VANISHED


@pytest.mark.parametrize("wanted", ["flac", pytest.param("wav", marks=pytest.mark.slow)])
def test_a_full_disk_is_told_and_leaves_no_file(tmp_path: Path, wanted: Any) -> None:
    soundfile.write(tmp_path / "a.wav", _noise(), RATE_HZ, subtype="PCM_16")
    cuts = [Cut(0, 1_000, tmp_path / "o" / "x"), Cut(0, N, tmp_path / "o" / "y")]
    decoder_pool().put_back(decoder_pool().take())  # its own file is larger than the limit
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, before[1]))
    try:
        with pytest.raises(OSError, match="too large") as caught:
            list(write_cuts(_source(tmp_path / "a.wav"), cuts, wanted))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert caught.value.errno == errno.EFBIG
    assert [path.name for path in (tmp_path / "o").iterdir()] == [f"x.{wanted}"]


@pytest.mark.slow
def test_a_stop_leaves_no_half_file(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", _noise(), RATE_HZ, subtype="PCM_16")
    cuts = [Cut(0, 100, tmp_path / "o" / "x"), Cut(0, N, tmp_path / "o" / "y")]
    writing = write_cuts(_source(tmp_path / "a.wav"), cuts, "flac")
    next(writing)
    with pytest.raises(KeyboardInterrupt):
        writing.throw(KeyboardInterrupt)
    assert [path.name for path in (tmp_path / "o").iterdir()] == ["x.flac"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["a.wav", "a.flac"])
def test_ten_hours_are_not_read_for_the_last_seconds(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    n_samples = 10 * 3600 * 8_000
    if name == "a.wav":
        head = wav(b"", rate_hz=8_000, stated=2 * n_samples)
        sparse(tmp_path / name, head, len(head) + 2 * n_samples)
    else:
        (tmp_path / name).write_bytes(constant_flac(36_000, 8_000))
    starts: list[float | None] = []
    opened = recording_cuts.open_sandboxed

    def watched(*about: Any) -> Any:
        starts.append(about[3])
        decoder = opened(*about)
        assert abs((decoder.first_sample or 0) / 8_000 - (about[3] or 0)) < 1e-3
        return decoder

    monkeypatch.setattr(recording_cuts, "open_sandboxed", watched)
    places = [(0, 80), (n_samples - 8_000, n_samples)]
    files = _cut(_source(tmp_path / name, 8_000), places, tmp_path / "out")
    assert starts == [0.0, 35_998.0]
    assert [soundfile.info(file.path).frames for file in files] == [80, 8_000]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["a.ogg", "a.opus", "a.vbr.mp3", "a.cbr.mp3", "a.flac"])
def test_a_skip_gives_the_samples_that_are_read_in_one_go(tmp_path: Path, name: str) -> None:
    path, rate_hz, rng = tmp_path / name, 48_000, np.random.default_rng(1)
    mode = "VARIABLE" if "vbr" in name else "CONSTANT"
    how: dict[str, Any] = {"bitrate_mode": mode} if "mp3" in name else {}
    kind = {"opus": ("OGG", "OPUS"), "ogg": ("OGG", "VORBIS"), "flac": ("FLAC", "PCM_16")}
    container, subtype = kind.get(name.split(".")[-1], ("MP3", "MPEG_LAYER_III"))
    with soundfile.SoundFile(path, "w", rate_hz, 2, subtype, format=container, **how) as file:
        for _ in range(150):
            tone = np.sin(np.arange(rate_hz) * rng.uniform(0.01, 0.4))[:, np.newaxis]
            file.write(0.1 * rng.standard_normal((rate_hz, 2)) + 0.3 * rng.uniform() * tone)
    whole = _read(path)
    firsts = np.sort(rng.integers(0, len(whole) - 60_000, 12)).tolist()
    for first in firsts:  # each by itself, so that each is a skip of its own
        (file,) = _cut(_source(path, rate_hz), [(first, first + 60_000)], tmp_path / str(first))
        here = whole[first : first + 60_000]
        assert np.abs(_read(file.path) - here).max() < 0.6 / 2**23
