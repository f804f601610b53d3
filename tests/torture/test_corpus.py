"""Each hostile file on its own: what the decoder makes of it is what the table says."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from audioset_core.audio.recording import Recording
from audioset_core.audio.remarks import is_partial
from audioset_core.errors import AudioError
from tests.torture.corpus import LABELLED, PARTIAL, PASSED_OVER, Hostile, corpus, write


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Hostile]]:
    folder = tmp_path_factory.mktemp("torture")
    return folder, write(folder)


def test_there_is_enough_of_it(written: tuple[Path, list[Hostile]]) -> None:
    _, hostile = written
    names = Counter(entry.name for entry in corpus())
    assert max(names.values()) == 1
    assert len(names) >= 200
    assert len(hostile) >= len(names) - 2  # a device, a name in no encoding


def test_every_file_is_what_the_table_says(written: tuple[Path, list[Hostile]]) -> None:
    folder, hostile = written
    wrong = []
    for entry in hostile:
        if entry.expected == (PASSED_OVER,):
            continue
        became, detail = _outcome(os.fsencode(folder) + b"/" + entry.name)
        if became not in entry.expected:
            wrong.append(f"{entry.name!r}: {became} ({detail}), not {entry.expected}")
        assert "\n" not in detail
    assert wrong == []


def _outcome(path: bytes) -> tuple[str, str]:
    try:
        with Recording(path) as recording:
            for block in recording.blocks():
                assert np.isfinite(block).all()
            assert recording.n_samples > 0
            if is_partial(recording.remarks):
                return PARTIAL, str(recording.remarks[0])
    except AudioError as error:
        return str(error.reason), error.detail
    return LABELLED, ""
