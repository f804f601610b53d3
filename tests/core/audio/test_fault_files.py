"""Ordinary files that went wrong, made after public bug reports: each is labelled as it should be.

What is right is what FFmpeg's command line decodes, placed by its time stamps.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from audioset_core.arrays import F32
from audioset_core.audio.recording import Recording
from audioset_core.audio.remarks import Remark, RemarkKind, is_partial
from audioset_core.file_headers.field_notes import FieldNotes

# File, right length in seconds, kinds of remarks, whether something is missing.
RIGHT: list[tuple[str, float, set[RemarkKind], bool]] = [
    ("F01_vbr_noxing.mp3", 20.04, set(), False),
    ("F02_quiet_first_cbr_pipe.mp3", 30.04, set(), False),
    ("F03_apic_noxing.mp3", 20.04, set(), False),
    ("F45_xing_0_frames.mp3", 30.02, set(), False),
    ("F04_wrapped.wav", 20.0, {RemarkKind.SIZE}, False),
    ("F18_size0.wav", 20.0, {RemarkKind.SIZE}, False),
    ("F19_plus16.wav", 20.0, {RemarkKind.SIZE}, False),
    ("F05_default_second.mkv", 10.11, {RemarkKind.TRACKS}, False),
    ("F05_two.mp4", 10.05, {RemarkKind.TRACKS}, False),
    ("F06_gap.mkv", 18.02, {RemarkKind.GAP}, True),
    ("F07_camera_4_gaps.mp4", 30.0, {RemarkKind.GAP}, True),
    ("F08_delay.mp4", 16.0, {RemarkKind.LATE}, False),
    ("F09_antiphase.flac", 10.0, {RemarkKind.OPPOSED}, False),
    ("F13_flac_cli.oga", 10.0, set(), False),
    ("F14_opus.caf", 10.02, set(), False),
    ("F14_alac.caf", 10.0, set(), False),
    ("F15_id3.aac", 10.1, set(), False),
    ("F17_zeros.mp3", 20.04, set(), False),
    ("F20_video.ogg", 10.0, set(), False),
    ("F21_chrome.weba", 10.0, set(), False),
    ("F22_one_bad_frame.m4a", 20.0, {RemarkKind.DAMAGED}, True),
    ("F22_hole.mp3", 19.5, {RemarkKind.DAMAGED}, True),
    ("F25_guano.wav", 10.0, set(), False),
    ("F25_audiomoth_icmt.wav", 10.0, set(), False),
    ("F44_id3v1.flac", 10.0, set(), False),
]


def heard(path: Path) -> tuple[F32, int, tuple[Remark, ...]]:
    with Recording(os.fsencode(path)) as recording:
        samples = np.concatenate([*recording.blocks()])
        return samples, recording.info.sample_rate_hz, recording.remarks


def loudness(samples: F32, rate_hz: int, start_s: float, end_s: float) -> float:
    part = samples[round(start_s * rate_hz) : round(end_s * rate_hz)]
    return float(np.sqrt(np.mean(part.astype(np.float64) ** 2)))


@pytest.mark.parametrize(("name", "length_s", "kinds", "lacks"), RIGHT)
def test_the_whole_of_it_is_read(
    faults: Path, name: str, length_s: float, kinds: set[RemarkKind], lacks: bool
) -> None:
    samples, rate_hz, remarks = heard(faults / name)
    # Of coders' frames the last is filled up.
    assert len(samples) / rate_hz == pytest.approx(length_s, abs=0.07)
    assert {remark.kind for remark in remarks} == kinds
    assert is_partial(remarks) is lacks


def test_no_file_is_left_out(faults: Path) -> None:
    assert {path.name for path in faults.glob("F*")} == {name for name, *_ in RIGHT}


def test_what_was_lost_is_silence_and_the_rest_is_in_its_place(faults: Path) -> None:
    samples, rate_hz, remarks = heard(faults / "F06_gap.mkv")
    (gap,) = remarks
    assert (gap.start_s, gap.end_s) == pytest.approx((5.0, 10.0), abs=0.02)
    assert loudness(samples, rate_hz, 5.1, 9.9) == 0.0
    assert loudness(samples, rate_hz, 11.5, 13.5) > 0.01  # the dog, 12 s after the beginning


def test_a_late_start_is_silence(faults: Path) -> None:
    samples, rate_hz, _ = heard(faults / "F08_delay.mp4")
    assert loudness(samples, rate_hz, 0, 5.9) == 0.0
    assert loudness(samples, rate_hz, 6, 16) > 0.01


def test_the_default_track_is_heard(faults: Path) -> None:
    samples, rate_hz, remarks = heard(faults / "F05_default_second.mkv")
    assert loudness(samples, rate_hz, 0, 10) > 0.01
    assert remarks[0].detail == "track 2 of 2 is labelled, not 1 (aac)"


def test_an_inverted_side_is_heard(faults: Path) -> None:
    samples, rate_hz, _ = heard(faults / "F09_antiphase.flac")
    assert loudness(samples, rate_hz, 0, 10) > 0.01


def test_a_recorder_tells_the_start(faults: Path) -> None:
    told = {}
    for name in ("guano", "audiomoth_icmt"):
        with Recording(os.fsencode(faults / f"F25_{name}.wav")) as recording:
            told[name] = replace(recording.info.notes or FieldNotes(), statements=())
    assert told == {
        "guano": FieldNotes("2024-05-18T21:30:00+02:00", "GUANO Timestamp", device="X"),
        "audiomoth_icmt": FieldNotes(
            "2024-05-18T19:30:00+00:00",
            "AudioMoth comment",
            device="AudioMoth",
            serial="0000000000000000",
        ),
    }
