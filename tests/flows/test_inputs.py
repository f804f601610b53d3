"""What a person names that is not there, holds nothing, or is written oddly."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.flows.build import Lab, write_clip
from tests.flows.conftest import Said


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
