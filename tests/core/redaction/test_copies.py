"""Copies against their recordings, read by soundfile, FFmpeg and mutagen.

Public reports behind the cases: BWFMetaEdit 155 and 156 (odd sizes, padding that is no zero),
pydub 880, sdrtrunk 556 and asdcplib 147 (chunks before the samples), pulp 2901 (notes that are lost
when samples are written), BirdNET-Pi 627 (one window is silenced and the rest published).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mutagen.flac
import numpy as np
import pytest
import soundfile

from audioset_core.cuts.recording_cuts import LabelledFile
from audioset_core.errors import AudioError, Reason
from audioset_core.redaction.copies import Copy, Span, VoiceScores, find_spans, opened, write_copy
from audioset_core.redaction.settings import Redaction
from tests.core.redaction.vowels import spoken
from tests.torture.makers import wav

pytestmark = pytest.mark.slow

RATE_HZ, N = 8_000, 24_000
SPANS = (Span(100, 5_000, "voice", (), 0.9), Span(23_000, N, "labels", (("Speech", 0.5),), 0.0))
SILENT = [slice(180, 4_920), slice(23_080, N - 80)]
OUTSIDE = [slice(0, 100), slice(5_000, 23_000)]

PLAIN = [
    ("WAV", "PCM_U8", None), ("WAV", "PCM_16", None), ("WAV", "PCM_24", None),
    ("WAV", "PCM_32", None), ("WAV", "FLOAT", None), ("WAV", "DOUBLE", None),
    ("WAVEX", "PCM_24", None), ("WAV", "PCM_16", "BIG"), ("WAV", "PCM_24", "BIG"),
    ("RF64", "PCM_24", None), ("W64", "PCM_16", None), ("AIFF", "PCM_S8", None),
    ("AIFF", "PCM_16", None), ("AIFF", "PCM_24", None), ("AIFF", "PCM_16", "LITTLE"),
    ("AIFF", "FLOAT", None), ("CAF", "PCM_24", None), ("CAF", "PCM_16", "LITTLE"),
    ("AU", "PCM_16", None), ("AU", "DOUBLE", None),
]  # fmt: skip


def _noise(n_channels: int = 2) -> Any:
    """Full scale on both sides among them."""
    samples = np.random.default_rng(3).integers(-(2**31), 2**31, (N, n_channels))
    samples[1], samples[6_000] = -(2**31), 2**31 - 1
    return samples.astype(np.int32)


def _copy(
    path: Path, out: Path, spans: Sequence[Span] = SPANS, n: int = N, rate_hz: int = RATE_HZ,
    **settings: Any,
) -> Copy:  # fmt: skip
    out.mkdir(exist_ok=True)
    about, digest = path.stat(), hashlib.sha256(path.read_bytes()).hexdigest()
    source = LabelledFile(os.fsencode(path), about.st_size, about.st_mtime_ns, digest, rate_hz)
    with opened(source, n) as recording:
        copy = write_copy(recording, spans, out, n, Redaction(**settings))
    assert copy.sha256 == hashlib.sha256(copy.part.read_bytes()).hexdigest()
    assert [*out.iterdir()] == [copy.part]
    assert copy.part.name.startswith(".")
    return copy


def _check_samples(path: Path, copy: Path, kind: str = "float64") -> None:
    before, after = soundfile.read(path, dtype=kind)[0], soundfile.read(copy, dtype=kind)[0]
    assert before.shape == after.shape
    for part in OUTSIDE:
        assert np.array_equal(before[part], after[part])
    for part in SILENT:
        assert before[part].any()
        assert not after[part].any()


@pytest.mark.parametrize(("kind", "subtype", "endian"), PLAIN)
def test_only_the_samples_of_spans_differ_from_the_file(
    kind: str, subtype: str, endian: str | None, tmp_path: Path
) -> None:
    path = tmp_path / "a.wav"
    samples = _noise() if "PCM" in subtype else np.random.default_rng(1).standard_normal((N, 2))
    with path.open("wb") as file:
        soundfile.write(file, samples, RATE_HZ, subtype=subtype, format=kind, endian=endian)
    copy = _copy(path, tmp_path / "out")
    assert (copy.suffix, copy.remark) == ("", "")
    _check_samples(path, copy.part)
    before, after = path.read_bytes(), copy.part.read_bytes()
    assert len(before) == len(after)
    n_frame = 2 * {"S8": 1, "U8": 1, "16": 2, "24": 3, "32": 4, "FLOAT": 4, "DOUBLE": 8}[
        subtype.removeprefix("PCM_")
    ]  # fmt: skip
    differ = np.flatnonzero(np.frombuffer(before, "u1") != np.frombuffer(after, "u1"))
    assert N * n_frame - n_frame * 80 < differ[-1] - differ[0] + 100 * n_frame <= N * n_frame


def test_chunks_before_and_after_the_samples_stay(tmp_path: Path) -> None:
    raw = np.random.default_rng(1).integers(-(2**15), 2**15, N).astype("<i2").tobytes()
    notes = b"bext" + (602).to_bytes(4, "little") + bytes(range(256)) * 2 + bytes(90)
    odd = b"junk" + (3).to_bytes(4, "little") + b"abc\x51"
    body = b"WAVE" + notes + odd
    body += b"fmt " + (16).to_bytes(4, "little") + b"\1\0\1\0" + RATE_HZ.to_bytes(4, "little")
    body += (2 * RATE_HZ).to_bytes(4, "little") + b"\2\0\x10\0"
    body += b"data" + len(raw).to_bytes(4, "little") + raw + b"LIST" + b"\4\0\0\0INFO"
    path = tmp_path / "a.wav"
    path.write_bytes(b"RIFF" + len(body).to_bytes(4, "little") + body)
    copy = _copy(path, tmp_path / "out")
    before, after = path.read_bytes(), copy.part.read_bytes()
    first = before.index(raw)
    assert (copy.suffix, copy.remark) == ("", "")
    assert before[:first] == after[:first]
    assert before[first + len(raw) :] == after[first + len(raw) :]
    _check_samples(path, copy.part, "int16")


def test_sound_behind_the_stated_end_does_not_leave(tmp_path: Path) -> None:
    # The header states half of the sound: what is decoded is redacted, the rest is in no copy.
    path = tmp_path / "a.wav"
    raw = np.random.default_rng(1).integers(-(2**15), 2**15, N).astype("<i2").tobytes()
    whole = wav(raw, rate_hz=RATE_HZ)
    at = whole.index(b"data") + 4
    path.write_bytes(whole[:at] + (len(raw) // 2).to_bytes(4, "little") + whole[at + 4 :])
    with pytest.raises(AudioError) as caught:
        _copy(path, tmp_path / "out", n=N // 2)
    assert caught.value.reason is Reason.DAMAGED
    assert not [*(tmp_path / "out").iterdir()]
    copy = _copy(path, tmp_path / "out")
    assert copy.suffix == ".flac"
    assert raw[5_000 * 2 - 2_000 : 5_000 * 2 - 200] not in copy.part.read_bytes()


@pytest.mark.parametrize("subtype", ["PCM_S8", "PCM_16", "PCM_24"])
def test_flac_stays_flac_with_its_notes(subtype: str, tmp_path: Path) -> None:
    path = tmp_path / "a.flac"
    soundfile.write(path, _noise(3), RATE_HZ, subtype=subtype)
    tags = mutagen.flac.FLAC(path)
    tags["comment"], tags["artist"] = "a valley", ["one", "two"]
    picture = mutagen.flac.Picture()
    picture.data, picture.desc = bytes(70_000), "map"
    tags.add_picture(picture)
    tags.save()
    copy = _copy(path, tmp_path / "out")
    assert (copy.suffix, copy.remark, copy.format) == ("", "", f"FLAC/{subtype}")
    _check_samples(path, copy.part, "int32")
    kept = mutagen.flac.FLAC(copy.part)
    assert (kept["comment"], kept["artist"]) == (["a valley"], ["one", "two"])
    assert kept.pictures[0].data == bytes(70_000)
    assert kept.info.md5_signature != tags.info.md5_signature


@pytest.mark.parametrize("kind", ["MP3", "OGG", "ULAW"])
def test_what_is_lossy_becomes_flac_and_says_so(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{kind.lower()}"
    samples = 0.5 * np.random.default_rng(1).uniform(-1, 1, (N, 1))
    form, subtype = ("WAV", "ULAW") if kind == "ULAW" else (kind, None)
    with path.open("wb") as file:
        soundfile.write(file, samples, RATE_HZ, format=form, subtype=subtype)
    copy = _copy(path, tmp_path / "out")
    assert (copy.suffix, copy.format[:5]) == (".flac", "FLAC/")
    assert copy.remark.endswith("without its tags")
    before, after = soundfile.read(path)[0], soundfile.read(copy.part)[0]
    assert len(after) == N
    for part in OUTSIDE:
        # Half a step of 24 bits, and how far two decoders of Vorbis differ.
        np.testing.assert_allclose(before[part], after[part], atol=2**-24 + 4e-7)
    for part in SILENT:
        assert not after[part].any()


def test_low_passed_spans_keep_what_is_low_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    time_s = np.arange(N) / RATE_HZ
    tones = 0.4 * np.sin(2 * np.pi * 60 * time_s) + 0.4 * np.sin(2 * np.pi * 1_000 * time_s)
    soundfile.write(path, tones, RATE_HZ, subtype="PCM_24")
    copy = _copy(path, tmp_path / "out", low_pass_hz=200.0)
    after = soundfile.read(copy.part)[0]
    inner = slice(400, 4_600)
    np.testing.assert_allclose(
        after[inner], 0.4 * np.sin(2 * np.pi * 60 * time_s[inner]), atol=2e-3
    )
    assert np.array_equal(after[5_000:23_000], soundfile.read(path)[0][5_000:23_000])


def test_a_file_that_is_not_what_was_labelled_has_no_copy(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, _noise(), RATE_HZ)
    about = path.stat()
    wrong = LabelledFile(os.fsencode(path), about.st_size, about.st_mtime_ns, "0" * 64, RATE_HZ)
    with pytest.raises(AudioError, match="has changed since it was labelled"), opened(wrong, N):
        pass
    gone = LabelledFile(b"/nowhere/a.wav", 1, 1, "0" * 64, RATE_HZ)
    with pytest.raises(AudioError) as caught, opened(gone, N):
        pass
    assert caught.value.reason is Reason.VANISHED


def test_one_that_changes_while_it_is_copied_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, _noise(), RATE_HZ)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    source = LabelledFile(os.fsencode(path), 0, 0, digest, RATE_HZ)
    with opened(source, N) as recording:
        os.utime(path, ns=(1, 1))
        with pytest.raises(AudioError) as caught:
            write_copy(recording, SPANS, tmp_path, N, Redaction())
    assert caught.value.reason is Reason.CHANGED
    assert [*tmp_path.iterdir()] == [path]


def test_spans_are_of_scores_and_of_the_voice_detector(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    samples = spoken(before_s=4.0, after_s=4.0)  # a voice from 4 to 7 s of 11
    soundfile.write(path, np.stack([0 * samples, 0.01 * samples], axis=1), 16_000)
    digest, n = hashlib.sha256(path.read_bytes()).hexdigest(), len(samples)
    scores = np.zeros((22, 2), np.float32)
    scores[2] = 0.05, 0.3
    labels = VoiceScores(("Speech", "Laughter"), scores, 0.48, 0.96)
    source = LabelledFile(os.fsencode(path), 0, 0, digest, 16_000)
    with opened(source, n) as recording:
        spans = find_spans(recording, labels, n, Redaction(padding_s=0.25))
        every = find_spans(recording, labels, n, Redaction(padding_s=9.0))
    assert [(s.why, s.classes) for s in spans] == [("labels", (("Laughter", 0.3),)), ("voice", ())]
    assert (spans[0].first, spans[0].last) == (round(0.71 * 16_000), round(2.17 * 16_000))
    assert 3.4 * 16_000 < spans[1].first < 4 * 16_000
    assert 7 * 16_000 < spans[1].last < 7.8 * 16_000
    assert spans[1].voice_peak > 0.9
    assert [(s.first, s.last, s.why) for s in every] == [(0, n, "both")]
