"""What recorders write beside the sound is read; what says nothing, or nonsense, tells nothing."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from audioset_core.audio.decoders import open_decoder
from audioset_core.file_headers.field_notes import FieldNotes
from tests.torture.makers import chunk, encoded, noise, pcm, wav

GUANO = "GUANO|Version: 1.0\nMake: X\n"
COMMENT = " by AudioMoth 24E144085F256397 at medium gain while battery was 4.2V."


def notes_of(path: Path, data: bytes) -> FieldNotes:
    """The notes, without the list of everything that is said."""
    path.write_bytes(data)
    fd = os.open(path, os.O_RDONLY)
    try:
        decoder = open_decoder(fd, len(data))
        decoder.close()
        return replace(decoder.info.notes or FieldNotes(), statements=())
    finally:
        os.close(fd)


def guano(*lines: str) -> bytes:
    return chunk(b"guan", (GUANO + "\n".join(lines)).encode())


def info(comment: str) -> bytes:
    return chunk(b"LIST", b"INFO" + chunk(b"IART", b"Me\0\0") + chunk(b"ICMT", comment.encode()))


@pytest.mark.parametrize(
    ("lines", "notes"),
    [
        (["Timestamp: 2024-05-18T21:30:00+02:00"], ("2024-05-18T21:30:00+02:00", None, None)),
        (["Timestamp: 2024-05-18 21:30:00.250Z"], ("2024-05-18T21:30:00.250000+00:00", None, None)),
        (["timestamp:2024-05-18T21:30:00"], ("2024-05-18T21:30:00", None, None)),
        (
            ["Timestamp: 2024-05-18T21:30:00-03:30", "Loc Position: -54.8019 -68.3030", ""],
            ("2024-05-18T21:30:00-03:30", -54.8019, -68.3030),
        ),
        (["Loc Position: 48.1, 11.5"], (None, 48.1, 11.5)),
        (["Loc Position: 148.1 11.5"], None),
        (["Timestamp: yesterday", "Loc Position: here"], None),
        (["Timestamp: 1970-01-01T00:00:12+00:00"], None),
        (["Timestamp: 2024-05-18"], None),
        ([], None),
    ],
)
@pytest.mark.parametrize("is_behind", [False, True])
def test_guano(
    tmp_path: Path, lines: list[str], notes: tuple[object, ...] | None, is_behind: bool
) -> None:
    extra = guano(*lines)
    data = wav(pcm(2_000)) + extra if is_behind else wav(pcm(2_000), extra=extra)
    found = notes_of(tmp_path / "a.wav", data)
    start, *place = notes or (None, None, None)
    by = "GUANO Timestamp" if start else None
    assert found == FieldNotes(start, by, *place, device="X")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("said", "start"),
    [
        ("19:30:00 18/05/2024 (UTC)", "2024-05-18T19:30:00+00:00"),
        ("19:30:00.125 18/05/2024 (UTC)", "2024-05-18T19:30:00.125000+00:00"),
        ("19:30:00 18/05/2024 (UTC+10)", "2024-05-18T19:30:00+10:00"),
        ("19:30:00 18/05/2024 (UTC-3:30)", "2024-05-18T19:30:00-03:30"),
        ("19:30:00 18/05/2024 (UTC) during deployment 01AB", "2024-05-18T19:30:00+00:00"),
        ("19:30:00 18/05/2024", "2024-05-18T19:30:00+00:00"),
        ("19:30:00 05/18/2024 (UTC)", None),
        ("00:00:07 01/01/1970 (UTC)", None),
    ],
)
def test_audiomoth(tmp_path: Path, said: str, start: str | None) -> None:
    data = wav(pcm(2_000), extra=info(f"Recorded at {said}{COMMENT}"))
    found = notes_of(tmp_path / "a.wav", data)
    by = "AudioMoth comment" if start else None
    serial = "24E144085F256397"
    assert found == FieldNotes(start, by, device="AudioMoth", serial=serial)


def test_guano_is_asked_before_the_comment(tmp_path: Path) -> None:
    both = info(f"Recorded at 19:30:00 18/05/2024 (UTC){COMMENT}")
    both += guano("Timestamp: 2024-05-18T21:30:01+02:00")
    found = notes_of(tmp_path / "a.wav", wav(pcm(2_000), extra=both))
    assert found.start == "2024-05-18T21:30:01+02:00"


def test_behind_the_samples_of_a_64_bit_file(tmp_path: Path) -> None:
    data = encoded("rf64", noise(16_000, 1, 1.0), 16_000) + guano("Timestamp: 2024-05-18T21:30:00Z")
    found = notes_of(tmp_path / "a.wav", data)
    assert found.start == "2024-05-18T21:30:00+00:00"


def test_a_comment_by_another_program(tmp_path: Path) -> None:
    data = wav(pcm(2_000), extra=info("Recorded at 19:30:00 18/05/2024 (UTC) by somebody"))
    assert notes_of(tmp_path / "a.wav", data) == FieldNotes()
