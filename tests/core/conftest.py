"""Fixtures of the core's tests."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from audioset_core.audio.sandbox import decoder_pool


@pytest.fixture
def no_descriptor_leaks() -> Iterator[None]:
    """No more descriptors are open after the test than before, beside one idle decoder's."""
    _leave_one_decoder()
    gc.collect()  # what an earlier test left is not closed in the middle of this one
    gc.freeze()  # nor looked through again: beside torch and Prefect that takes 0.3 s a test
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    yield
    _leave_one_decoder()
    # Fewer is no leak: a thread of an earlier test may have been at work when they were counted.
    assert len(os.listdir("/proc/self/fd")) <= before  # noqa: PTH208


def _leave_one_decoder() -> None:
    pool = decoder_pool()
    idle = pool.take()
    pool.close()
    pool.put_back(idle)


@pytest.fixture
def faults(assets: Path) -> Path:
    """The folder of ordinary files that went wrong, beside the assets; skipped where absent."""
    folder = assets.parent / "faults"
    if not folder.is_dir():
        pytest.skip("no folder 'faults' beside AUDIOSET_ASSETS")
    return folder
