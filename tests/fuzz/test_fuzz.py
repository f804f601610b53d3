"""Spoilt files are read or refused, whatever is spoilt: a few seconds of it, and a longer turn."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz.__main__ import outcomes
from tests.fuzz.targets import TARGETS


@pytest.mark.parametrize("target", TARGETS)
def test_a_short_turn(target: str, tmp_path: Path) -> None:
    current = tmp_path / f"current{TARGETS[target].suffix}"
    found = list(outcomes(target, 1, 60.0, current, n_most=150))
    assert len(found) == 150
    assert [error for _, error in found if error is not None] == []


@pytest.mark.slow
def test_a_long_turn(tmp_path: Path) -> None:
    line = [sys.executable, "-m", "tests.fuzz", "--minutes", "0.7", "--seed", "100"]
    done = subprocess.run(
        [*line, "--failures", str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
    assert all(f"{target}, seed" in done.stdout for target in TARGETS)


@pytest.mark.slow
def test_a_failure_is_kept_and_can_be_shown_again(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from tests.fuzz import __main__ as fuzz, targets\n"
        "def check(path):\n"
        "    if not path.read_bytes().startswith(b'path'): raise KeyError('found')\n"
        "targets.TARGETS['csv'] = targets.Target('.csv', lambda: [b'path'], check)\n"
        f"fuzz.turn('csv', 1, 1.0, Path({str(tmp_path)!r}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1, done.stderr
    assert "KeyError: 'found'" in done.stderr
    kept = sorted(tmp_path.iterdir())
    assert 1 <= len(kept) <= 2
    assert all(f"--target csv --reproduce {path}" in done.stderr for path in kept)
