"""Watched folders: new, changed, moved, vanished, returned, and still being written."""

from __future__ import annotations

import os
import shutil
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from audioset_core.errors import UserError
from flows.ingest_new import ingest_new
from flows.run_options import WatchOptions
from flows.run_report.summary import Summary
from tasks.labelling.options import LabelOptions
from tests.db.build import top_clips
from tests.flows.build import Lab, write_clip

OLD_S = 3600.0


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "incoming"
    folder.mkdir()
    return folder


def _ingest(lab: Lab, *roots: Path, settle_s: float = 0.0, **options: Any) -> Summary:
    return ingest_new(
        roots=[str(root) for root in roots],
        home=lab.home,
        options=LabelOptions(**{"weights": lab.weights, **options}),
        watch=WatchOptions(settle_s=settle_s),
        database=SecretStr(lab.url),
    )


def _status(lab: Lab) -> dict[str, str]:
    return {name: status for name, (status, _) in lab.sources().items()}


def test_only_new_content_is_labelled(lab: Lab, root: Path) -> None:
    write_clip(root / "a.wav", 1)
    write_clip(root / "b.wav", 2)
    assert _ingest(lab, root).n_labelled == 2
    write_clip(root / "sub" / "c.wav", 3)
    shutil.copy(root / "a.wav", root / "copy of a.wav")
    second = _ingest(lab, root)
    assert (second.n_found, second.n_known, second.n_labelled, second.n_copies) == (4, 2, 1, 1)
    third = _ingest(lab, root)
    assert (third.n_known, third.n_labelled, third.n_missing) == (4, 0, 0)
    lab.check()


def test_a_changed_file_is_labelled_again_and_the_old_labels_stay(lab: Lab, root: Path) -> None:
    write_clip(root / "a.wav", 1)
    _ingest(lab, root)
    write_clip(root / "a.wav", 2, 3.0)
    assert _ingest(lab, root).n_labelled == 1
    assert lab.count("labellings", "status = 'done'") == 2
    assert lab.count("sources") == 1


def test_a_moved_file_costs_no_inference_and_is_counted(lab: Lab, root: Path) -> None:
    write_clip(root / "a.wav", 1)
    write_clip(root / "b.wav", 2)
    _ingest(lab, root)
    before = lab.rows("SELECT id, labelled_at FROM labellings")
    (root / "2026").mkdir()
    (root / "a.wav").rename(root / "2026" / "renamed.wav")
    summary = _ingest(lab, root)
    assert (summary.n_moved, summary.n_missing, summary.n_labelled) == (1, 1, 0)
    assert lab.rows("SELECT id, labelled_at FROM labellings") == before
    assert _status(lab) == {"a.wav": "missing", "b.wav": "identified", "renamed.wav": "identified"}


def test_a_vanished_file_is_marked_and_its_labels_are_kept(lab: Lab, root: Path) -> None:
    write_clip(root / "a.wav", 1)
    write_clip(root / "b.wav", 2)
    (root / "bad.wav").write_text("not audio")
    _ingest(lab, root)
    for name in ("a.wav", "bad.wav"):
        (root / name).unlink()
    summary = _ingest(lab, root)
    assert (summary.n_missing, summary.n_moved, summary.n_failed_before) == (2, 0, 0)
    assert _status(lab) == {"a.wav": "missing", "b.wav": "identified", "bad.wav": "missing"}
    assert lab.count("labellings", "status = 'done'") == 2
    assert lab.count("failures") == 0  # a file that is gone is nobody's task
    assert _ingest(lab, root).n_missing == 0  # told once
    assert lab.count("sources", "missing_at IS NOT NULL") == 2


def test_a_file_that_is_back_as_it_was_is_not_even_read(
    lab: Lab, root: Path, tmp_path: Path
) -> None:
    write_clip(root / "a.wav", 1)
    (root / "bad.wav").write_text("not audio")
    (root / "notes.txt").write_text("an empty folder would be taken for an unmounted disk")
    _ingest(lab, root)
    read_at = lab.rows("SELECT id, last_read_at FROM sources ORDER BY id")
    for name in ("a.wav", "bad.wav"):
        shutil.move(root / name, tmp_path / name)
    assert _ingest(lab, root).n_missing == 2
    for name in ("a.wav", "bad.wav"):
        shutil.move(tmp_path / name, root / name)
    summary = _ingest(lab, root)
    assert (summary.n_back, summary.n_known, summary.n_failed_before) == (2, 1, 1)
    assert _status(lab) == {"a.wav": "identified", "bad.wav": "failed"}
    assert lab.rows("SELECT id, last_read_at FROM sources ORDER BY id") == read_at


def test_files_outside_the_roots_are_left_alone(lab: Lab, root: Path, tmp_path: Path) -> None:
    other = tmp_path / "incoming0"  # sorts right behind "incoming/"
    write_clip(other / "x.wav", 1)
    write_clip(root / "a.wav", 2)
    _ingest(lab, root, other)
    shutil.rmtree(other)
    assert _ingest(lab, root).n_missing == 0
    assert _status(lab)["x.wav"] == "identified"


def test_an_unmounted_disk_marks_nothing(lab: Lab, root: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    write_clip(disk / "x.wav", 1)
    write_clip(root / "a.wav", 2)
    _ingest(lab, root, disk)
    (disk / "x.wav").rename(tmp_path / "x.wav")
    summary = _ingest(lab, root, disk)  # its mount point is there, and empty
    assert summary.n_missing == 0
    assert "is its disk mounted?" in summary.problems[0]
    assert _ingest(lab, disk).problems == summary.problems  # an empty folder is no failure
    disk.rmdir()
    summary = _ingest(lab, root, disk)
    assert summary.problems == [f"{disk}: no such folder"]
    assert "no such folder" in summary.as_markdown("page")
    assert _status(lab)["x.wav"] == "identified"
    with pytest.raises(UserError, match="no such folder"):
        _ingest(lab, disk)


def test_a_young_file_waits_for_the_next_run(lab: Lab, root: Path) -> None:
    write_clip(root / "a.wav", 1)
    summary = _ingest(lab, root, settle_s=OLD_S)
    assert (summary.n_waiting, summary.n_labelled) == (1, 0)
    (row,) = lab.rows("SELECT status, reason, waiting_since FROM sources")
    assert (row[0], row[1]) == ("pending", None)
    assert row[2] is not None
    summary = _ingest(lab, root, settle_s=0)
    assert (summary.n_waiting, summary.n_labelled) == (0, 1)
    assert lab.count("sources", "waiting_since IS NOT NULL") == 0


def test_an_old_mtime_does_not_hide_that_a_file_is_being_written(lab: Lab, root: Path) -> None:
    write_clip(root / "a.wav", 1)
    an_hour_ago = time.time() - 2 * OLD_S
    os.utime(root / "a.wav", (an_hour_ago, an_hour_ago))  # as rsync -t does
    assert _ingest(lab, root, settle_s=OLD_S).n_waiting == 1


def test_with_a_wrong_clock_a_file_is_ready_once_it_was_seen_unchanged_for_long(
    lab: Lab, root: Path
) -> None:
    write_clip(root / "a.wav", 1)
    write_clip(root / "b.wav", 2)
    assert _ingest(lab, root, settle_s=OLD_S).n_waiting == 2
    with lab.engine.begin() as conn:
        conn.exec_driver_sql("UPDATE sources SET waiting_since = '2020-01-01 00:00:00.000000'")
    write_clip(root / "b.wav", 3, 4.0)  # went on being written
    summary = _ingest(lab, root, settle_s=OLD_S)
    assert (summary.n_labelled, summary.n_waiting) == (1, 1)
    assert _status(lab) == {"a.wav": "identified", "b.wav": "pending"}


def test_a_time_ahead_of_the_clock_does_not_block_a_file(lab: Lab, root: Path) -> None:
    write_clip(root / "a.wav", 1)
    ahead = time.time() + timedelta(days=400).total_seconds()
    os.utime(root / "a.wav", (ahead, ahead))  # a recorder with a wrong date
    time.sleep(1.1)
    assert _ingest(lab, root, settle_s=1).n_labelled == 1


def test_a_file_that_grows_after_discovery_is_tried_by_the_next_run(
    lab: Lab, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_clip(root / "a.wav", 1)
    from tasks import chunk_and_featurize

    real = chunk_and_featurize.Recording

    def grown(path: bytes, *further: Any) -> Any:
        with Path(os.fsdecode(path)).open("ab") as file:
            file.write(b"\0" * 3200)
        return real(path, *further)

    monkeypatch.setattr(chunk_and_featurize, "Recording", grown)
    summary = _ingest(lab, root)
    assert dict(summary.failures) == {"changed while being read": 1}
    monkeypatch.undo()
    assert _ingest(lab, root).n_labelled == 1


def test_a_folder_that_may_not_be_listed_marks_nothing(
    lab: Lab, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_clip(root / "sub" / "a.wav", 1)
    write_clip(root / "b.wav", 2)
    _ingest(lab, root)
    real = os.scandir

    def refusing(path: Any = ".") -> Any:
        if os.fsencode(path).endswith(b"/sub"):
            raise PermissionError(13, "Permission denied", path)
        return real(path)

    monkeypatch.setattr(os, "scandir", refusing)
    summary = _ingest(lab, root)
    assert len(summary.passed_over.unlistable) == 1
    assert summary.n_missing == 0


@pytest.mark.parametrize("n_files", [0, 3])
def test_a_run_with_nothing_to_do_ends_well(lab: Lab, root: Path, n_files: int) -> None:
    for seed in range(n_files):
        write_clip(root / f"{seed}.wav", seed)
    _ingest(lab, root)
    assert _ingest(lab, root).n_labelled == 0
    assert {r[0] for r in lab.rows("SELECT status FROM runs")} == {"completed"}


def test_query_names_a_present_copy_first_and_says_what_is_missing(lab: Lab, root: Path) -> None:
    write_clip(root / "a.wav", 1)
    write_clip(root / "b.wav", 2)
    _ingest(lab, root)
    (root / "a.wav").rename(root / "z.wav")
    (root / "b.wav").unlink()
    _ingest(lab, root)
    with lab.engine.connect() as conn:
        mid = conn.exec_driver_sql("SELECT mid FROM labels ORDER BY peak DESC LIMIT 1").scalar()
    hits = {Path(os.fsdecode(h.path or b"")).name: h for h in top_clips(lab.engine, str(mid))}
    assert hits
    assert "a.wav" not in hits
    for name, hit in hits.items():
        assert (hit.is_missing, hit.n_sources) == ((True, 0) if name == "b.wav" else (False, 1))
