"""What a person names that is not there, holds nothing, or is written oddly."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import text

from tests.flows.build import Lab, write_clip
from tests.flows.conftest import Said
from tests.torture.makers import chunk, pcm, wav


def test_a_folder_that_yields_nothing_says_so(
    lab: Lab, tmp_path: Path, audioset: Callable[..., Said]
) -> None:
    (tmp_path / "notes").mkdir()
    for name in ("a.txt", "b.txt", "c.tar.gz", "d"):
        (tmp_path / "notes" / name).touch()
    (tmp_path / "empty").mkdir()
    said = audioset("label", tmp_path / "notes", "--home", lab.home)
    assert said.code == 2
    assert "(.txt 2, .gz 1, no ending 1)" in said.err
    said = audioset("label", tmp_path / "empty", tmp_path / "notes", "--home", lab.home)
    assert said.code == 2
    assert f"no recording in '{tmp_path}/empty': it is empty" in said.err
    assert lab.count("runs") == 0


def test_the_other_folders_are_labelled(
    lab: Lab, tmp_path: Path, audioset: Callable[..., Said]
) -> None:
    write_clip(tmp_path / "rec" / "a.wav", 1)
    lab.label(tmp_path / "rec")
    (tmp_path / "empty").mkdir()
    options = ("--home", lab.home, "--weights", lab.weights)
    said = audioset("label", tmp_path / "rec", tmp_path / "empty", *options)
    assert said.code == 2
    assert "labelled before" in said.out
    assert f"no recording in '{tmp_path}/empty'" in said.err


def test_what_never_was_is_no_such_file_and_what_was_has_vanished(
    lab: Lab, tmp_path: Path, audioset: Callable[..., Said]
) -> None:
    write_clip(tmp_path / "a.wav", 1)
    write_clip(tmp_path / "b.wav", 2)
    (tmp_path / "link.wav").symlink_to("nowhere.wav")
    manifest = tmp_path / "list.csv"
    manifest.write_text(
        "Path;recorded_at\na.wav;18.05.2024\nb.wav;\n c.wav;\nlink.wav;\nx/d.wav;\n"
    )
    first = lab.label(manifest=manifest)
    assert (first.n_labelled, dict(first.failures)) == (2, {"no such file": 3})
    details = {Path(path).name: detail for path, _, detail in first.shown_failures}
    assert details == {
        "c.wav": "",
        "link.wav": "the link leads to nowhere.wav, where nothing is",
        "d.wav": f"nor a folder {tmp_path}/x",
    }
    (problem,) = first.problems
    assert "recorded_at is not understood in 1 lines, first in line 2: '18.05.2024'" in problem
    (tmp_path / "b.wav").unlink()
    write_clip(tmp_path / "c.wav", 3)
    second = lab.label(manifest=manifest)
    assert (second.n_labelled, second.n_missing) == (1, 1)
    assert dict(second.failures) == {"no such file": 2}
    assert lab.sources() == {
        "a.wav": ("identified", None),
        "b.wav": ("missing", None),
        "c.wav": ("identified", None),
        "link.wav": ("failed", "no such file"),
        "d.wav": ("failed", "no such file"),
    }
    # The labels of what is gone are found by it still.
    assert lab.count("sources", "status = 'missing' AND clip_id IS NOT NULL") == 1
    manifest.write_text("path\na.wav\nb.wav\nc.wav\n")
    said = audioset("label", "--manifest", manifest, "--home", lab.home, "--weights", lab.weights)
    assert said.code == 0
    assert "vanished; their labels are kept" in said.out
    assert lab.count("runs") == 2


def test_a_file_tells_when_and_where_it_was_recorded(
    lab: Lab, tmp_path: Path, audioset: Callable[..., Said]
) -> None:
    folder = tmp_path / "rec"
    folder.mkdir()
    guano = b"Make: SM\nTimestamp: 2024-05-18T21:30:00+02:00\nLoc Position: 48.1 11.5\nSerial: S1"
    comment = b"Recorded at 19:30:10 18/05/2024 (UTC) by AudioMoth 24E144085F256397"
    never_set = b"Timestamp: 1970-01-01T00:00:10Z"
    info = chunk(b"LIST", b"INFO" + chunk(b"ICMT", comment))
    # The file's word counts for more than its name.
    (folder / "20200101_000000.wav").write_bytes(wav(pcm(20_000)) + chunk(b"guan", guano))
    (folder / "moth.wav").write_bytes(wav(pcm(20_002), extra=info))
    (folder / "20200101_000500.wav").write_bytes(wav(pcm(20_004)))
    (folder / "20240518_193000.wav").write_bytes(wav(pcm(20_006)) + chunk(b"guan", never_set))
    lab.label(folder)
    (folder / "copy.wav").write_bytes((folder / "moth.wav").read_bytes())
    lab.label(folder)
    rows = lab.rows(
        "SELECT path, recorded_unix_s, recorded_by, latitude_deg, longitude_deg FROM clip_sources"
    )
    when = datetime(2024, 5, 18, 19, 30, tzinfo=UTC).timestamp()
    moth = (when + 10, "AudioMoth comment, zone given there", None, None)
    assert {Path(path).name: tuple(told) for path, *told in rows} == {
        "20200101_000000.wav": (
            when, "GUANO Timestamp; name differs, zone given there", 48.1, 11.5,
        ),
        "20240518_193000.wav": (
            when, "name; GUANO Timestamp is not plausible, UTC assumed", None, None,
        ),
        "moth.wav": moth,
        "copy.wav": moth,
        "20200101_000500.wav": (1577837100.0, "name, UTC assumed", None, None),
    }  # fmt: skip
    said = audioset("show", folder / "20200101_000000.wav", "--home", lab.home)
    assert "recorded 2024-05-18T21:30:00+02:00 (GUANO Timestamp)\n  at 48.1, 11.5\n" in said.out
    assert "  by SM, serial S1\n" in said.out
    assert "start 2024-05-18 21:30:00: GUANO Timestamp; name differs, zone" in said.out
    assert "GUANO\tSerial\tS1\t" in said.out
    everything = "SELECT source, key, value, start, doubt FROM notes ORDER BY path, key"
    stored = lab.rows(everything)
    assert ("GUANO", "Timestamp", "1970-01-01T00:00:10Z", None,
            "not used: before 2000, so the clock was not set") in stored  # fmt: skip
    assert ("AudioMoth", "device", "24E144085F256397", None, None) in stored
    said = audioset("times", "--home", lab.home)
    assert "GUANO Timestamp; name differs, zone given there\t1\t" in said.out
    assert "2 files have sources that differ or are not plausible" in said.err
    told = "2024-05-18 21:30:00 by GUANO Timestamp; name differs, zone given there"
    assert f"20200101_000000.wav: {told}; GUANO Timestamp: 2024-05-18T21:30:00+02:00" in said.err
    # What an earlier version labelled has no notes; they are read again on request.
    by_file = (
        "SELECT path, recorded_by, latitude_deg, device, serial FROM clip_sources ORDER BY path"
    )
    before = lab.rows(by_file)
    with lab.engine.begin() as conn:
        conn.execute(text("DELETE FROM recording_notes"))
        conn.execute(text("UPDATE clips SET device = NULL, serial = NULL, latitude_deg = NULL"))
    os.utime(folder / "20240518_193000.wav", ns=(1, 1))
    said = audioset("times", "--read-files", "--home", lab.home)
    assert "notes found in 2 files; left out: 1 that are gone or changed" in said.err
    left = [row for row in before if "20240518" not in row[0]]
    assert [row for row in lab.rows(by_file) if "20240518" not in row[0]] == left
    assert lab.rows(everything) == [row for row in stored if "1970" not in row[2]]
