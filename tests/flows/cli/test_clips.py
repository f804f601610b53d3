"""``audioset clips export``: files, names and tables, from recordings that are there or not.

Public reports behind the cases: BirdNET-V1 34 (no files and no word why), BirdNET-Analyzer 149 and
242 (which moment a file is of), 305 (run again), BirdNET-Pi 106 (the same sound in two files);
audacity 703 (a slash in a label).
"""

from __future__ import annotations

import csv
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from sqlalchemy import update

from audioset_core.audio.recording import Recording
from audioset_core.storage.atomic_files import TEMP_SUFFIX
from db.engine import writing
from db.query.find import find_sounds
from db.query.question import Question
from db.schema.tables import clips, nodes, runs, sources
from db.types import path_digest, path_text
from flows.cli import clips_job
from tests.flows.scored import Collection

Audioset = Callable[..., Any]

RATE_HZ, DURATION_S = 8_000, 5.76
LOW, HIGH = 0.02, 0.9
DOG = "/m/0bt9lr"


@dataclass
class Home:
    collection: Collection
    audio: Path

    def add(self, name: bytes, scores: dict[str, list[float]], seed: int = 0) -> Path:
        """A recording of 5.76 s (11 patches), as if it had been labelled."""
        path = self.audio / os.fsdecode(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        samples = np.random.default_rng(seed).integers(-(2**15), 2**15, (46_080, 2))
        with path.open("wb") as file:
            soundfile.write(file, samples.astype(np.int16), RATE_HZ, format="WAV")
        with Recording(os.fsencode(path)) as recording:
            digest = recording.sha256
        placeholder = f"/placeholder/{len(list(self.audio.rglob('*')))}/{seed}"
        clip = self.collection.add(placeholder, scores)
        raw, about = os.fsencode(path), path.stat()
        with writing(self.collection.engine) as conn:
            conn.execute(
                update(clips).where(clips.c.sha256 == clip).values(
                    sha256=digest, n_samples=46_080, sample_rate_hz=RATE_HZ, n_channels=2,
                    duration_s=DURATION_S, format="WAV/PCM_16",
                )
            )  # fmt: skip
            conn.execute(
                update(sources).where(sources.c.path == placeholder.encode()).values(
                    path=raw, path_text=path_text(raw), path_digest=path_digest(raw),
                    size_bytes=about.st_size, mtime_ns=about.st_mtime_ns,
                )
            )  # fmt: skip
        return path


def _at(*heard: int, score: float = HIGH) -> list[float]:
    return [score if patch in heard else LOW for patch in range(11)]


@pytest.fixture
def home(collection: Collection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """Dog at the start, in the middle and at the end of one recording, Meow in another."""
    made = Home(collection, tmp_path / "audio")
    monkeypatch.setenv("AUDIOSET_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    made.add(b"one.wav", {"Dog": [0.7, LOW, LOW, LOW, 0.8, 0.8, LOW, LOW, LOW, LOW, 0.9]})
    made.add(b"two.wav", {"Meow": _at(4), "Dog": _at(4, score=0.6)}, seed=1)
    return made


def _files(out: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()
    }


def _table(out: Path, name: str = "clips.csv") -> list[dict[str, str]]:
    with (out / name).open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_file_for_each_sound_and_a_table(home: Home, audioset: Audioset, tmp_path: Path) -> None:
    out = tmp_path / "out"
    said = audioset("clips", "export", out, "--under", "Domestic animals, pets")
    assert (said.code, said.out, said.err) == (0, f"5 files of 2 classes: {out}\n", "")
    rows = _table(out)
    assert [row["file"].rsplit("_", 1)[0] for row in rows] == [
        "Dog/0.6000_two_00h00m01.920s",
        "Dog/0.7000_one_00h00m00.000s",
        "Dog/0.8000_one_00h00m01.920s",
        "Dog/0.9000_one_00h00m04.800s",
        "Meow/0.9000_two_00h00m01.920s",
    ]
    assert set(_files(out)) == {row["file"] for row in rows} | {"clips.csv", "clips.jsonl"}
    # Interval in the recording and in the file, and what padding there was at both ends.
    columns = ("start_s", "end_s", "start_in_file_s", "end_in_file_s", "padding_after_s")
    assert [tuple(float(row[name]) for name in columns) for row in rows[1:4]] == [
        (0.0, 0.96, 0.0, 0.96, 1.0), (1.92, 3.36, 1.0, 2.44, 1.0), (4.8, 5.76, 1.0, 1.96, 0.0),
    ]  # fmt: skip
    for row in rows:
        first, n = int(row["first_sample"]), int(row["n_samples"])
        expected, _ = soundfile.read(row["source"], start=first, stop=first + n, dtype="int16")
        samples, rate_hz = soundfile.read(out / row["file"], dtype="int16")
        assert (rate_hz, soundfile.info(out / row["file"]).subtype) == (RATE_HZ, "PCM_16")
        assert np.array_equal(samples, expected)
    lines = [json.loads(line) for line in (out / "clips.jsonl").read_text().splitlines()]
    assert [{name: str(value) for name, value in line.items()} for line in lines] == rows
    assert (lines[0]["mid"], lines[0]["model"], lines[0]["sample_rate_hz"]) == (
        DOG,
        "yamnet",
        8_000,
    )


@pytest.mark.slow
def test_again_nothing_is_written_and_another_question_adds(
    home: Home, audioset: Audioset, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    command = ("clips", "export", out, "--under", "Dog")
    assert audioset(*command, "--at-most", "2").out == f"2 files of 1 classes: {out}\n"
    before = {name: (out / name).stat().st_mtime_ns for name in _files(out) if "/" in name}
    said = audioset(*command)
    assert (said.code, said.out) == (0, f"2 files of 1 classes: {out}\n")
    assert said.err == "2 files were there already\n"
    assert audioset("clips", "export", out, "--under", "Meow").code == 0
    assert len(_table(out)) == 5
    assert {name: (out / name).stat().st_mtime_ns for name in before} == before
    content = _files(out)
    assert audioset(*command).err == "4 files were there already\n"
    assert _files(out) == content
    # With another padding the names are the same and the sounds are not.
    other = audioset(*command, "--padding", "0.5")
    assert other.code == 1
    assert other.err.count("--overwrite replaces it") == 4
    assert len(_table(out, "failures.csv")) == 4
    assert audioset(*command, "--padding", "0.5", "--overwrite").code == 0
    assert {row["n_samples"] for row in _table(out) if row["class"] == "Dog"} != {
        row["n_samples"] for row in csv.DictReader(content["clips.csv"].decode().splitlines())
    }
    assert not (out / "failures.csv").exists()


def test_recordings_that_are_gone_or_another_by_now(
    home: Home, audioset: Audioset, tmp_path: Path
) -> None:
    copy = home.add(b"lost/three.wav", {"Dog": _at(6)}, seed=2)
    moved = tmp_path / "three.wav"
    home.add(b"spoilt.wav", {"Dog": _at(6)}, seed=3).write_bytes(b"another")
    (home.audio / "one.wav").unlink()
    shutil.copy(copy, moved)  # its time is another, its content is the same
    raw = os.fsencode(moved)
    with writing(home.collection.engine) as conn:
        conn.execute(
            update(sources).where(sources.c.path == os.fsencode(copy)).values(
                path=raw, path_text=path_text(raw), path_digest=path_digest(raw)
            )
        )  # fmt: skip
    said = audioset("clips", "export", tmp_path / "out", "--under", "Dog")
    assert (said.code, said.out) == (1, f"2 files of 1 classes: {tmp_path / 'out'}\n")
    assert "spoilt.wav: changed while being read: the file has changed since" in said.err
    assert said.err.endswith(f"not written: 4 sounds, see {tmp_path / 'out' / 'failures.csv'}\n")
    reasons = [row["reason"].partition(":")[0] for row in _table(tmp_path / "out", "failures.csv")]
    assert sorted(reasons) == ["changed while being read", *["vanished"] * 3]
    assert {row["source"] for row in _table(tmp_path / "out")} == {
        str(moved), str(home.audio / "two.wav"),
    }  # fmt: skip


@pytest.mark.slow
def test_names_of_all_kinds(home: Home, audioset: Audioset, tmp_path: Path) -> None:
    long = b"x" * 250 + b".wav"
    for seed, name in enumerate((b'a/"q",\n\xff.wav', b"b/same.wav", b"c/same.wav", long), start=5):
        home.add(name, {"Dog": _at(4)}, seed)
    with writing(home.collection.engine) as conn:
        conn.execute(update(nodes).where(nodes.c.mid == DOG).values(name="..Dog/s, 50%2F"))
    out = tmp_path / "out"
    assert audioset("clips", "export", out, "--under", "Dog").code == 0
    rows = _table(out)
    names = [Path(row["file"]).name for row in rows]
    assert len(set(names)) == len(rows) == 8
    assert {Path(row["file"]).parent.as_posix() for row in rows} == {"%2E.Dog%2Fs, 50%252F"}
    assert any('_"q",%0A%FF_' in name for name in names)
    assert all(len(name.encode()) <= 255 for name in names)
    assert all((out / row["file"]).is_file() for row in rows)


@pytest.mark.slow
def test_the_folder_to_write_to(home: Home, audioset: Audioset, tmp_path: Path) -> None:
    command = ("clips", "export")
    (tmp_path / "file").touch()
    assert "is a file" in audioset(*command, tmp_path / "file", "--under", "Dog").err
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "clips.csv").write_text("mine\n")
    said = audioset(*command, tmp_path / "other", "--under", "Dog")
    assert (said.code, "name another folder" in said.err) == (2, True)
    assert (tmp_path / "other" / "clips.csv").read_text() == "mine\n"
    said = audioset(*command, tmp_path / "x", "--under", "Dog", "--padding", "inf")
    assert (said.code, "seconds, such as 1.5" in said.err) == (2, True)
    assert audioset(*command, tmp_path / "y", "--under", "Dog", "--padding", "1e9").code == 0
    assert {row["n_samples"] for row in _table(tmp_path / "y")} == {"46080"}
    assert "--under or --all-of" in audioset(*command, tmp_path / "x").err
    said = audioset(*command, tmp_path / "x", "--under", "Cat", "--min-score", "0.95")
    assert (said.code, said.err) == (
        0, "no recording has 'Cat' at 0.95 or above, with all that is asked\n",
    )  # fmt: skip
    assert not (tmp_path / "x").exists()
    with writing(home.collection.engine) as conn:
        conn.execute(update(runs).values(parameters={"paths": [str(home.audio)]}))
    said = audioset(*command, home.audio / "cuts", "--under", "Dog")
    assert said.code == 0
    assert "the next label run there labels these files too" in said.err
    assert "next label run" not in audioset(*command, home.audio / ".cuts", "--under", "Dog").err


@pytest.mark.slow
def test_what_is_done_when_it_is_stopped_is_in_the_table(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = find_sounds(home.collection.engine, Question(under=(DOG,), min_score=0.5), 9)
    written = clips_job.write_cuts

    def stopped(*about: Any) -> Any:
        writing_cuts = written(*about)
        yield next(writing_cuts)
        writing_cuts.throw(KeyboardInterrupt)

    monkeypatch.setattr(clips_job, "write_cuts", stopped)
    wanted = clips_job.Wanted(tmp_path / "out", 1.0, "flac", overwrite=False)
    with pytest.raises(KeyboardInterrupt):
        clips_job.export_clips(home.collection.engine, wanted, found)
    (row,) = _table(tmp_path / "out")
    assert set(_files(tmp_path / "out")) == {row["file"], "clips.csv", "clips.jsonl"}
    assert not list((tmp_path / "out").rglob(f"*{TEMP_SUFFIX}"))
