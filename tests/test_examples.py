"""The examples in docstrings are true."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]


def _modules_with_examples() -> list[str]:
    paths = (
        p
        for room in ("audioset_core", "db", "tasks", "flows")
        for p in Path(REPOSITORY, room).rglob("*.py")
    )
    return sorted(
        ".".join(path.relative_to(REPOSITORY).with_suffix("").parts)
        for path in paths
        if ">>> " in path.read_text(encoding="utf-8")
    )


@pytest.mark.parametrize("module", _modules_with_examples())
def test_examples(module: str) -> None:
    found = doctest.testmod(importlib.import_module(module))
    assert found.attempted
    assert not found.failed
