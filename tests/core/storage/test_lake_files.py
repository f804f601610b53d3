"""The files of a lake while they are replaced: whoever reads by a glob sees no row twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from errno import ENOLCK
from itertools import permutations
from pathlib import Path
from unittest.mock import Mock

import pytest

from audioset_core.errors import UserError
from audioset_core.storage import lake_files
from audioset_core.storage.lake_files import Lake, LakeFile, open_lake, reading_lake

# Rows 3 and 4 change places between days, as where two start times are corrected; 6 is gone, 7 new.
OLD = {"t/day=1/a": "1 2 3", "t/day=2/b": "4 5", "t/day=3/c": "6", "u/d": "x"}
NEW = {"t/day=1/e": "1 2 4", "t/day=2/f": "3 5 7", "u/d": "x"}


class Killed(BaseException):
    """The process ends here."""


def _fill(lake: Lake, rows: Mapping[str, str]) -> None:
    files: dict[str, LakeFile] = {}
    for name, text in rows.items():
        name = f"{name}.parquet"
        if lake.has(name):
            files[name] = lake.files[name]
            continue
        with lake.next_file(name) as file:
            file.write(text.encode())
        files[name] = lake.written(name, len(text.split()), 0)
    lake.replace(files, "ledger")


def _seen(folder: Path) -> Counter[str]:
    return Counter(row for path in folder.rglob("*.parquet") for row in path.read_text().split())


@contextmanager
def _killed_after(n_steps: int) -> Iterator[None]:
    """The process is killed instead of its next change to the folder, after some."""
    left = [n_steps]

    def counting(function):  # type: ignore[no-untyped-def]
        def call(*args, **kwargs):  # type: ignore[no-untyped-def]
            left[0] -= 1
            if left[0] < 0:
                raise Killed
            return function(*args, **kwargs)

        return call

    with pytest.MonkeyPatch.context() as patch:
        for of, name in (
            (Path, "replace"), (Path, "unlink"), (Path, "rmdir"), (Path, "mkdir"),
            (lake_files.shutil, "rmtree"),
        ):  # fmt: skip
            patch.setattr(of, name, counting(getattr(of, name)))
        yield


@pytest.mark.slow
def test_killed_at_any_step_no_row_is_ever_there_twice(tmp_path: Path) -> None:
    n_whole = 0
    for n_steps in range(24):
        folder = tmp_path / str(n_steps)
        with open_lake(folder) as lake:
            _fill(lake, OLD)
        assert _seen(folder) == Counter("123456x")
        try:
            with open_lake(folder) as lake, _killed_after(n_steps):
                _fill(lake, NEW)
            n_whole += 1
        except Killed:
            pass
        seen = _seen(folder)
        assert set(seen.values()) == {1}
        assert seen["x"] == 1  # no file vanishes for a change elsewhere
        with open_lake(folder) as lake:  # goes on with the change, if it had begun
            assert _seen(folder) in (Counter("123456x"), Counter("123457x"))
            assert lake.strays() == []
            _fill(lake, NEW)
        assert _seen(folder) == Counter("123457x")
        assert not (folder / "_next").exists()
        assert not (folder / "t" / "day=3").exists()
    assert 0 < n_whole < 12


def test_what_has_not_changed_is_not_written(tmp_path: Path) -> None:
    for _ in range(2):
        with open_lake(tmp_path / "lake") as lake:
            _fill(lake, OLD)
    path = tmp_path / "lake" / "t" / "day=1" / "a.parquet"
    before = path.stat().st_ino
    with open_lake(tmp_path / "lake") as lake:
        _fill(lake, OLD)
        assert path.stat().st_ino == before
        path.unlink()
        _fill(lake, OLD)
    assert path.read_text() == OLD["t/day=1/a"]


def test_whoever_reads_changes_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "lake"
    with open_lake(folder) as lake:
        _fill(lake, OLD)
    with pytest.raises(Killed), open_lake(folder) as lake, _killed_after(4):
        _fill(lake, NEW)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert any(path.suffix == ".tmp" for path in before)
    with reading_lake(folder) as lake, reading_lake(folder):
        assert (len(lake.files), lake.is_between(), lake.strays()) == (4, False, [])
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    with pytest.raises(Killed), open_lake(folder) as lake, _killed_after(10):
        _fill(lake, NEW)
    with reading_lake(folder) as lake:
        assert lake.is_between()


def test_folders_that_are_no_lake(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is a file"), open_lake(tmp_path / "file"):
        pass
    with pytest.raises(UserError, match="holds something else"), open_lake(tmp_path):
        pass
    with pytest.raises(UserError, match="no lake"), reading_lake(tmp_path / "new"):
        pass
    assert not (tmp_path / "new").exists()
    for first, second in permutations([open_lake, open_lake, reading_lake], 2):
        with (
            first(tmp_path / "lake"),
            pytest.raises(UserError, match="another process"),
            second(tmp_path / "lake"),
        ):
            pass
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lake_files.fcntl, "flock", Mock(side_effect=OSError(ENOLCK, "No locks")))
        with (
            pytest.raises(UserError, match=r"has no locks \(No locks\)"),
            open_lake(tmp_path / "lake"),
        ):
            pass
    (tmp_path / "lake" / "_lake.json").write_text("{")
    with pytest.raises(UserError, match="is damaged"), open_lake(tmp_path / "lake"):
        pass
