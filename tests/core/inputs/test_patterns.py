from __future__ import annotations

import glob
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from audioset_core.inputs.globs import Pattern

PARTS = st.sampled_from(["a", "b", "*", "**", "?", "[ab]", "[!a]", "*b", ".*", ".", ".h"])


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("tree")
    for name in ("a/a", "a/b/a", "a/ab", "b/.h/a", ".h/b", "ab", "b/b/b/b"):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(parts=st.lists(PARTS, min_size=1, max_size=4), is_absolute=st.booleans(), end=st.booleans())
@example(parts=["a", "a", "**"], is_absolute=False, end=False)
def test_matches_what_pythons_glob_does_where_there_are_no_links(
    tree: Path, monkeypatch: pytest.MonkeyPatch, parts: list[str], is_absolute: bool, end: bool
) -> None:
    monkeypatch.chdir(tree)
    text = "/".join(parts) + ("/" if end else "")
    pattern = os.fsencode(f"{tree}/{text}" if is_absolute else text)
    if not glob.has_magic(pattern):
        pattern += b"*"

    def plain(paths: list[bytes]) -> set[bytes]:
        return {os.path.normpath(path) for path in paths}

    # Of a file, glob answers FILE/** with FILE/, and there is nothing of that name.
    answers = glob.glob(pattern, recursive=True)
    expected = plain([path for path in answers if os.path.lexists(path)])
    found = Pattern(pattern).paths()
    assert plain(found) == expected
    assert len(set(found)) == len(found)
    assert plain(Pattern(pattern, follow_symlinks=True).paths()) == expected
