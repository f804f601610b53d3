"""A file that cannot be read is a row with a reason; it stops nothing and is not tried in vain."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from tests.flows.build import Lab, sound, write_clip


def _broken_off(path: Path) -> None:
    write_clip(path, 7, 3.0)
    path.write_bytes(path.read_bytes()[:30])


def _with_nan(path: Path) -> None:
    samples = sound(8, 2.0)
    samples[20_000] = np.nan
    soundfile.write(path, samples, 16_000, subtype="FLOAT")


def _coded_otherwise(path: Path) -> None:
    write_clip(path, 9, 4.0)
    data = bytearray(path.read_bytes())
    data[20:22] = b"\x34\x12"
    path.write_bytes(data)


# File -> how it is made, and the reason that must be given.
BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "b_empty.wav": (lambda path: path.write_bytes(b""), "empty"),
    "d_cut.wav": (_broken_off, "damaged"),
    "f_text.wav": (lambda path: path.write_text("Dear diary"), "not audio"),
    "h_nan.wav": (_with_nan, "samples are not finite"),
    "j_folder.wav": (lambda path: path.mkdir(), "not a regular file"),
    "l_other.wav": (_coded_otherwise, "unsupported format"),
    "n_pipe.wav": (os.mkfifo, "not a regular file"),
    "p_loop.wav": (lambda path: path.write_bytes(b"\x00" * 5_000), "not audio"),
}
GOOD = ("a.wav", "c.wav", "e.wav", "g.wav", "i.wav", "k.wav", "m.wav", "z.wav")


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    folder = tmp_path / "corpus"
    for seed, name in enumerate(GOOD):
        write_clip(folder / name, seed)
    for name, (make, _) in BAD.items():
        make(folder / name)
    return folder


def test_every_bad_file_has_a_reason_and_the_others_are_labelled(lab: Lab, corpus: Path) -> None:
    summary = lab.label(corpus)
    assert (summary.n_labelled, summary.n_failed) == (len(GOOD), len(BAD))
    expected = dict.fromkeys(GOOD, ("identified", None))
    expected |= {name: ("failed", reason) for name, (_, reason) in BAD.items()}
    assert lab.sources() == expected
    assert lab.count("sources", "status = 'failed' AND clip_id IS NOT NULL") == 0
    # A clip that was claimed and then failed leaves nothing.
    assert lab.count("clips") == len(GOOD)
    lab.check()


def test_lasting_failures_are_not_tried_again(lab: Lab, corpus: Path) -> None:
    lab.label(corpus)
    read_at = lab.rows("SELECT id, last_read_at FROM sources ORDER BY id")
    summary = lab.label(corpus)
    assert (summary.n_found, summary.n_known) == (len(GOOD) + len(BAD), len(GOOD))
    assert (summary.n_failed_before, summary.n_failed) == (len(BAD), 0)
    assert lab.rows("SELECT id, last_read_at FROM sources ORDER BY id") == read_at


def test_a_repaired_file_is_labelled(lab: Lab, corpus: Path) -> None:
    lab.label(corpus)
    write_clip(corpus / "f_text.wav", 30)
    (corpus / "j_folder.wav").rmdir()
    write_clip(corpus / "j_folder.wav", 31)
    assert lab.label(corpus).n_labelled == 2
    assert lab.sources()["f_text.wav"] == ("identified", None)
    assert lab.sources()["j_folder.wav"] == ("identified", None)


def test_what_may_pass_is_tried_again_in_every_run(lab: Lab, tmp_path: Path) -> None:
    write_clip(tmp_path / "here.wav", 1)
    (tmp_path / "list.csv").write_text("path,id\nhere.wav,1\ngone.wav,2\n")
    for _ in range(2):
        summary = lab.label(manifest=tmp_path / "list.csv")
        assert dict(summary.failures) == {"no such file": 1}
        assert summary.n_failed_before == 0
    write_clip(tmp_path / "gone.wav", 2)
    assert lab.label(manifest=tmp_path / "list.csv").n_labelled == 1
    assert lab.rows("SELECT user_id, status FROM sources ORDER BY 1") == [
        ("1", "identified"),
        ("2", "identified"),
    ]


def test_a_file_that_goes_bad_keeps_the_labels_of_what_it_was(lab: Lab, tmp_path: Path) -> None:
    file = tmp_path / "a.wav"
    write_clip(file, 1)
    lab.label(file)
    file.write_text("overwritten")
    summary = lab.label(file)
    assert dict(summary.failures) == {"not audio": 1}
    assert (lab.count("clips"), lab.count("labellings", "status = 'done'")) == (1, 1)
    lab.check()


def test_a_defect_of_ours_is_a_failure_of_one_file(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from audioset_core.features.shared_reader import SharedReader

    for seed in range(3):
        write_clip(tmp_path / "a" / f"{seed}.wav", seed)
    read = SharedReader.read

    def failing(reader: SharedReader, budget_s: float) -> Any:
        if reader.recording.sha256 == digests[1]:
            raise ZeroDivisionError("division by zero")
        return read(reader, budget_s)

    import hashlib

    digests = [
        hashlib.sha256(f.read_bytes()).hexdigest() for f in sorted((tmp_path / "a").iterdir())
    ]
    monkeypatch.setattr(SharedReader, "read", failing)
    summary = lab.label(tmp_path / "a")
    assert (summary.n_labelled, dict(summary.failures)) == (2, {"internal error": 1})
    assert (
        "ZeroDivisionError"
        in lab.rows("SELECT reason_detail FROM sources WHERE reason <> ''")[0][0]
    )
    monkeypatch.undo()
    assert lab.label(tmp_path / "a").n_labelled == 1
    lab.check()


def test_the_command_line_says_what_failed(
    lab: Lab, corpus: Path, audioset: Callable[..., Any]
) -> None:
    label = ("label", corpus, "--home", lab.home, "--weights", lab.weights)
    said = audioset(*label)
    assert said.code == 1
    assert "failed: unsupported format\t1" in said.out
    assert f"audioset failures --home {lab.home}" in said.out

    again = audioset(*label)
    assert again.code == 1
    assert f"failed before, unchanged\t{len(BAD)}" in again.out

    listed = audioset("failures", "--home", lab.home, "--json")
    assert listed.code == 1
    found = {Path(entry["path"]).name: entry["reason"] for entry in json.loads(listed.out)}
    assert found == {name: reason for name, (_, reason) in BAD.items()}
    assert len(audioset("failures", "--home", lab.home, "--csv").out.splitlines()) == len(BAD) + 1
    shown = audioset("show", corpus / "d_cut.wav", "--home", lab.home)
    assert shown.code == 2
    assert "damaged" in shown.err
