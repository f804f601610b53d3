"""Files of one content in one run, and folders that were renamed."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import soundfile

from tests.flows.build import Lab, write_clip


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
