"""``audioset redact``: copies and tables, again, and what must never be in the folder.

Public reports behind the cases: birdnet-go 4176, 4177 and 4181 (low scores that a privacy filter
never sees; a voice detector beside the labels), BirdNET-Pi 227, 411 and 627.
"""

from __future__ import annotations

import csv
import errno
import fcntl
import hashlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from sqlalchemy import update

from audioset_core.errors import AudioError, Reason
from audioset_core.storage.atomic_files import TEMP_SUFFIX
from db.engine import writing
from db.schema.tables import clips, labellings, sources
from db.types import path_digest, path_text
from flows.cli import redact_job
from tests.core.redaction.vowels import spoken
from tests.flows.build import REPOSITORY
from tests.flows.scored import Collection

Audioset = Callable[..., Any]
RATE_HZ, LOW = 16_000, 0.01
N = 11 * RATE_HZ
VOICE = (3.2, 7.8)
"""Where the voice detector's span lies, with its padding, if a file has the voice from 4 to 7 s."""


@dataclass
class Home:
    collection: Collection
    audio: Path

    def add(
        self, name: str, scores: dict[str, list[float]], *, voice: float = 0.0, **wav: Any
    ) -> Path:
        """A recording of 11 s (22 patches), as if it had been labelled; `voice` is its level."""
        path = self.audio / name
        path.parent.mkdir(parents=True, exist_ok=True)
        seed = len([*self.audio.rglob("*")])
        hiss = 1e-3 * np.random.default_rng(seed).standard_normal(N)
        samples = np.stack([hiss, hiss + voice * spoken(4.0, 4.0)], axis=1)
        with path.open("wb") as file:
            soundfile.write(file, samples, RATE_HZ, **{"format": "WAV"} | wav)
        placeholder, raw, about = f"/placeholder/{seed}", os.fsencode(path), path.stat()
        clip = self.collection.add(placeholder, scores or {"Dog": [LOW] * 22})
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        with writing(self.collection.engine) as conn:
            conn.execute(
                update(clips).where(clips.c.sha256 == clip).values(
                    sha256=digest, n_samples=N, sample_rate_hz=RATE_HZ, n_channels=2,
                    duration_s=11.0,
                )
            )  # fmt: skip
            conn.execute(
                update(sources).where(sources.c.path == placeholder.encode()).values(
                    path=raw, path_text=path_text(raw), path_digest=path_digest(raw),
                    size_bytes=about.st_size, mtime_ns=about.st_mtime_ns,
                )
            )  # fmt: skip
        return path


def _at(*patches: int, score: float) -> list[float]:
    return [score if patch in patches else LOW for patch in range(22)]


@pytest.fixture
def home(collection: Collection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """A voice that only the detector finds, a whisper by its scores alone, and a dog."""
    made = Home(collection, tmp_path / "audio")
    monkeypatch.setenv("AUDIOSET_HOME", str(collection.home))
    monkeypatch.chdir(tmp_path)
    made.add("a.wav", {}, voice=0.05)
    made.add("sub/b.wav", {"Whispering": _at(3, score=0.15), "Dog": _at(9, score=0.9)})
    made.add("c.wav", {"Dog": _at(9, score=0.9), "Speech": _at(0, score=0.05)})
    return made


def _table(out: Path, name: str = "redactions.csv") -> list[dict[str, str]]:
    with (out / name).open(newline="") as file:
        return list(csv.DictReader(file))


def _files(out: Path) -> set[str]:
    return {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}


TABLES = {"redactions.csv", "redactions.jsonl"}


def test_copies_a_row_for_each_span_and_again(
    home: Home, audioset: Audioset, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    said = audioset("redact", "--out", out)
    assert said.code == 0, said.err
    assert said.out.startswith("3 copies, 2 spans redacted, ")
    assert "1 copies have no span" in said.err
    assert _files(out) == {"a.wav", "sub/b.wav", "c.wav"} | TABLES
    rows = {row["file"]: row for row in _table(out)}
    assert [(row["file"], row["why"]) for row in _table(out)] == [
        ("a.wav", "voice"), ("c.wav", "nothing was found"), ("sub/b.wav", "labels"),
    ]  # fmt: skip
    voice, whisper = rows["a.wav"], rows["sub/b.wav"]
    assert VOICE[0] < float(voice["start_s"]) < 4.0
    assert 7.0 < float(voice["end_s"]) < VOICE[1]
    assert float(voice["voice_peak"]) > 0.9
    assert (voice["classes"], whisper["classes"]) == ("", "Whispering 0.1500")
    assert (float(whisper["start_s"]), float(whisper["end_s"])) == (0.94, 2.9)
    assert (voice["voice_detector"], voice["model"]) == ("silero-vad 6.2.3", "yamnet@hand")
    for name, row in rows.items():
        source = home.audio / name
        assert (row["source"], row["clip"]) == (
            str(source), hashlib.sha256(source.read_bytes()).hexdigest(),
        )  # fmt: skip
        assert row["copy_sha256"] == hashlib.sha256((out / name).read_bytes()).hexdigest()
    before, after = soundfile.read(home.audio / "a.wav")[0], soundfile.read(out / "a.wav")[0]
    first = int(voice["first_sample"])
    last = first + int(voice["n_redacted"])
    assert np.array_equal(before[:first], after[:first])
    assert np.array_equal(before[last:], after[last:])
    assert not after[first + 160 : last - 160].any()
    assert (out / "c.wav").read_bytes() == (home.audio / "c.wav").read_bytes()
    # Again nothing is written; a copy that was changed is made again, and with other settings all.
    seen = {name: (out / name).stat().st_mtime_ns for name in rows}
    said = audioset("redact", "--out", out)
    assert (said.code, "3 copies were there already" in said.err) == (0, True)
    assert {name: (out / name).stat().st_mtime_ns for name in rows} == seen
    shutil.copy(home.audio / "a.wav", out / "a.wav")
    assert "2 copies were there already" in audioset("redact", "--out", out).err
    assert (out / "a.wav").read_bytes() != (home.audio / "a.wav").read_bytes()
    said = audioset("redact", "--out", out, "--low-pass", "200", "--also", "Dog")
    assert (said.code, "already" in said.err) == (0, False)
    rows = {row["file"]: row for row in _table(out)}
    assert rows["c.wav"]["classes"] == "Dog 0.9000"
    assert {row["low_pass_hz"] for row in rows.values()} == {"200.0"}
    assert soundfile.read(out / "a.wav")[0][first + 160 : last - 160].any()


def test_what_is_in_doubt_has_no_copy_and_is_named(
    home: Home, audioset: Audioset, tmp_path: Path
) -> None:
    out, audio = tmp_path / "out", home.audio
    home.add("partial.wav", {"Speech": _at(3, score=0.9)})
    home.add("no-scores.wav", {"Speech": _at(4, score=0.9)})
    home.add("damaged-scores.wav", {"Speech": _at(5, score=0.9)})
    home.add("gone.wav", {"Speech": _at(6, score=0.9)}).unlink()
    with (audio / "a.wav").open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\x55")
    shutil.copy(audio / "c.wav", audio / "new.wav")
    (audio / "new.wav").write_bytes((audio / "new.wav").read_bytes()[:-2])
    with writing(home.collection.engine) as conn:
        paths = {}
        for name in ("partial", "no-scores", "damaged-scores"):
            digest = hashlib.sha256((audio / f"{name}.wav").read_bytes()).hexdigest()
            clip_id = conn.execute(clips.select().where(clips.c.sha256 == digest)).one().id
            own = labellings.c.clip_id == clip_id
            paths[name] = conn.execute(labellings.select().where(own)).one().scores_path
            if name == "partial":
                conn.execute(update(labellings).where(own).values(is_partial=True))
    (home.collection.home / paths["no-scores"]).unlink()
    scores = home.collection.home / paths["damaged-scores"]
    scores.write_bytes(scores.read_bytes()[:-2] + b"\x12\x34")
    said = audioset("redact", audio, "--out", out)
    assert said.code == 1
    told = {Path(row["source"]).name: row["reason"] for row in _table(out, "failures.csv")}
    assert {name: why.split(":")[-1].strip() for name, why in told.items()} == {
        "a.wav": "the file has changed since it was labelled",
        "partial.wav": "only a part of it could be read and labelled",
        "no-scores.wav": "audioset verify",
        "damaged-scores.wav": "audioset verify",
        "gone.wav": "it was listed, but no longer exists",
        "new.wav": "audioset label",
    }
    assert f"not copied: {audio / 'new.wav'}: not labelled: audioset label" in said.err
    assert "not copied: 6 recordings" in said.err
    assert _files(out) == {"sub/b.wav", "c.wav", "failures.csv"} | TABLES


@pytest.mark.slow
def test_questions_paths_and_names(home: Home, audioset: Audioset, tmp_path: Path) -> None:
    out = tmp_path / "out"
    said = audioset("redact", home.audio / "sub", "--out", out)
    assert (said.code, _files(out)) == (0, {"b.wav"} | TABLES)
    said = audioset("redact", "--out", tmp_path / "dogs", "--all-of", "Dog", "--root", home.audio)
    assert (said.code, _files(tmp_path / "dogs")) == (0, {"sub/b.wav", "c.wav"} | TABLES)
    said = audioset("redact", "--out", tmp_path / "rest", "--not-under", "Dog")
    assert (said.code, _files(tmp_path / "rest")) == (0, {"a.wav"} | TABLES)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--low-pass", "2000"], "--low-pass 2000: 20 to 400 Hz; above, words may be understood"),
        (["--also", "Dogg"], "did you mean 'Dog'"),
        (["nowhere"], "no file or folder at 'nowhere'"),
        (["audio", "--source", "*.wav"], "name PATHs or --source, not both"),
        (["--model", "none"], "no labels by a model called 'none'"),
        (["--out", "audio/c.wav"], "audio/c.wav is a file; name the folder to write to"),
    ],
)
def test_mistakes_are_one_line(
    home: Home, audioset: Audioset, options: list[str], message: str
) -> None:
    said = audioset("redact", "--out", "out", *options)
    assert (said.code, said.out) == (2, "")
    assert message in said.err
    assert len(said.err.splitlines()) == 1
    assert not Path("out").exists()


@pytest.mark.slow
def test_files_of_others_are_never_replaced(home: Home, audioset: Audioset, tmp_path: Path) -> None:
    # Also not the recordings themselves, where --out is the folder that they are in.
    before = {path: path.read_bytes() for path in home.audio.rglob("*.wav")}
    said = audioset("redact", "--out", home.audio)
    assert said.code == 1
    assert "c.wav is there, which is not a copy of it" in said.err
    assert {path: path.read_bytes() for path in home.audio.rglob("*.wav")} == before
    assert not list(home.audio.rglob(f".*{TEMP_SUFFIX}"))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "redactions.jsonl").write_text("[1]\n[2]\n")
    assert audioset("redact", "--out", "other").code == 2


@pytest.mark.slow
def test_a_copy_with_other_settings_goes_if_it_cannot_be_made_again(
    home: Home, audioset: Audioset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    assert audioset("redact", "--out", out).code == 0

    def fails(*_: object) -> None:
        raise AudioError(Reason.CRASHED, "made to fail")

    monkeypatch.setattr(redact_job, "write_copy", fails)
    assert audioset("redact", "--out", out).code == 0  # all are there
    assert audioset("redact", "--out", out, "--padding", "1").code == 1
    assert _files(out) == {"failures.csv"} | TABLES
    assert _table(out) == []


def test_one_process_at_a_time(home: Home, audioset: Audioset, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    folder = os.open(tmp_path / "out", os.O_RDONLY)
    fcntl.flock(folder, fcntl.LOCK_EX)
    said = audioset("redact", "--out", "out")
    os.close(folder)
    assert (said.code, said.err) == (
        2, "audioset: another audioset redact writes to out: wait for its end\n",
    )  # fmt: skip


def test_a_network_drive_locks_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There a file on its way may be that of another process."""
    left = tmp_path / f".{secrets.token_hex(8)}{TEMP_SUFFIX}"
    left.touch()

    def of_nfs(*_: object) -> None:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))

    with redact_job.locked(tmp_path):
        assert not left.exists()
    left.touch()
    monkeypatch.setattr(fcntl, "flock", of_nfs)
    with redact_job.locked(tmp_path):
        assert left.exists()


@pytest.mark.slow
@pytest.mark.parametrize("kill", [signal.SIGKILL, signal.SIGINT])
def test_whatever_moment_it_is_ended_only_redacted_copies_are_there(
    home: Home, audioset: Audioset, tmp_path: Path, kill: signal.Signals
) -> None:
    for number in range(6):
        home.add(f"more/{number}.wav", {}, voice=0.05 + 0.01 * number)
    out = tmp_path / "out"
    command = [
        sys.executable, "-W", "ignore", "-c", "from flows.cli.program import main; main()",
        "redact", "--out", str(out),
    ]  # fmt: skip
    raw = {path.read_bytes()[N * 2 : N * 2 + 4_000] for path in home.audio.rglob("*.wav")}
    voiced = {
        path.read_bytes()[5 * RATE_HZ * 4 : 5 * RATE_HZ * 4 + 4_000]
        for path in home.audio.rglob("*.wav")
        if path.name not in ("b.wav", "c.wav")
    }
    assert len(raw) == 9
    for moment in range(8):
        process = subprocess.Popen(
            command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )  # fmt: skip
        until = time.monotonic() + 60
        while process.poll() is None and len([*out.rglob("*.wav")]) < moment + 1:
            assert time.monotonic() < until
            time.sleep(0.01)
        time.sleep(0.03 * moment)
        process.send_signal(kill)
        process.wait(30)
        named = [json.loads(t) for t in (out / "redactions.jsonl").read_text().splitlines()[:-1]]
        known = {line["file"]: line["copy_sha256"] for line in named}
        for path in out.rglob("*"):
            if path.is_file() and (path.suffix == ".wav" or path.name.endswith(TEMP_SUFFIX)):
                data = path.read_bytes()
                assert not any(voice in data for voice in voiced), path
            if path.suffix == ".wav" and str(path.relative_to(out)) in known:
                assert known[str(path.relative_to(out))] == hashlib.sha256(data).hexdigest()
    said = audioset("redact", "--out", out)
    assert said.code == 0
    assert len({row["file"] for row in _table(out)}) == 9
    assert not list(out.rglob(f".*{TEMP_SUFFIX}"))
