"""Files of one content in one run, and folders that were renamed."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile

from tests.flows.build import Lab, write_clip
from tests.flows.conftest import Said


def _write_unfit(path: Path) -> None:
    """A recording that opens, and whose samples are no numbers: it fails once it is read."""
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = np.zeros(32_000, np.float32)
    samples[20_000:] = np.nan
    soundfile.write(path, samples, 16_000, subtype="FLOAT")


def test_copies_of_a_failing_file_are_failures_in_the_first_run(lab: Lab, tmp_path: Path) -> None:
    folder = tmp_path / "a"
    _write_unfit(folder / "one.wav")
    write_clip(folder / "good.wav", 1)
    for name in ("three.wav", "two.wav"):
        shutil.copy(folder / "one.wav", folder / name)
    shutil.copy(folder / "good.wav", folder / "good as well.wav")
    summary = lab.label(folder)
    assert dict(summary.failures) == {"samples are not finite": 3}
    assert (summary.n_labelled, summary.n_copies, summary.n_busy) == (1, 1, 0)
    failed = {Path(path).name for path, _, _ in summary.shown_failures}
    assert failed == {"one.wav", "three.wav", "two.wav"}
    assert lab.count("failures") == 3
    (counts,) = lab.rows("SELECT n_found, n_known, n_failed FROM runs")
    assert tuple(counts) == (5, 1, 3)
    again = lab.label(folder)
    assert (again.n_failed, again.n_failed_before, again.n_known) == (0, 3, 2)
    lab.check()


def test_copies_are_called_copies(lab: Lab, tmp_path: Path) -> None:
    folder = tmp_path / "a"
    write_clip(folder / "one.wav", 1)
    for number in range(4):
        shutil.copy(folder / "one.wav", folder / f"copy {number}.wav")
    rows = dict(lab.label(folder).rows())
    assert rows["copies of labelled content"] == "4"
    assert "being labelled by another run" not in rows


def test_a_folder_renamed_and_labelled_again_shows_the_living_path(
    lab: Lab, tmp_path: Path, audioset: Callable[..., Said]
) -> None:
    write_clip(tmp_path / "2024" / "a.wav", 1)
    write_clip(tmp_path / "2024" / "b.wav", 2)
    lab.label(tmp_path / "2024")
    (tmp_path / "2024").rename(tmp_path / "meadow")
    summary = lab.label(tmp_path / "meadow")
    assert (summary.n_labelled, summary.n_copies) == (0, 2)
    assert (summary.n_missing, summary.n_moved) == (2, 2)
    assert _by_path(lab, tmp_path) == {
        "2024/a.wav": "missing", "2024/b.wav": "missing",
        "meadow/a.wav": "identified", "meadow/b.wav": "identified",
    }  # fmt: skip
    clip = lab.rows("SELECT clip FROM clip_sources WHERE path LIKE '%meadow/a.wav'")[0][0]
    shown = audioset("show", clip, "--home", lab.home).out
    assert shown.index("meadow/a.wav (identified)") < shown.index("2024/a.wav (missing)")
    exported = tmp_path / "out.json"
    assert audioset("export", "json", exported, "--home", lab.home).code == 0
    paths = {entry["path"] for entry in json.loads(exported.read_text())["predictions"]}
    assert paths == {str(tmp_path / "meadow" / name) for name in ("a.wav", "b.wav")}


def test_a_copy_whose_original_was_deleted_later_is_seen_without_a_run(
    lab: Lab, tmp_path: Path, audioset: Callable[..., Said]
) -> None:
    write_clip(tmp_path / "old" / "a.wav", 1)
    shutil.copytree(tmp_path / "old", tmp_path / "new")
    lab.label(tmp_path / "old", tmp_path / "new")
    shutil.rmtree(tmp_path / "old")
    said = audioset(
        "label", tmp_path / "new", "--home", lab.home, "--db", lab.url, "--weights", lab.weights
    )
    assert said.code == 0
    assert "vanished; their labels are kept" in said.out
    assert _by_path(lab, tmp_path) == {"old/a.wav": "missing", "new/a.wav": "identified"}
    assert lab.count("runs") == 1


def test_label_marks_what_has_vanished_from_its_folder(lab: Lab, tmp_path: Path) -> None:
    for seed, name in enumerate(("a", "b", "c")):
        write_clip(tmp_path / "rec" / f"{name}.wav", seed)
    lab.label(tmp_path / "rec")
    (tmp_path / "rec" / "a.wav").unlink()
    write_clip(tmp_path / "rec" / "d.wav", 9)
    summary = lab.label(tmp_path / "rec")
    assert (summary.n_labelled, summary.n_missing, summary.n_moved) == (1, 1, 0)
    assert _by_path(lab, tmp_path)["rec/a.wav"] == "missing"
    # A file that is named, or is hidden from the walk, is there.
    assert lab.label(tmp_path / "rec" / "b.wav").n_missing == 0


def _by_path(lab: Lab, above: Path) -> dict[str, str]:
    return {
        os.path.relpath(os.fsdecode(path), above): status
        for path, status in lab.rows("SELECT path, status FROM sources")
    }
