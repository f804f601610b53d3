"""Several front ends read one recording in one pass, and find what each finds alone."""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from audioset_core.audio.recording import Recording
from audioset_core.errors import AudioError, Reason
from audioset_core.features.config import CED, EFFICIENTAT, VGGISH, YAMNET, FrontendConfig
from audioset_core.features.log_mel import patches
from audioset_core.features.patch_reader import LogMelPiece, WaveformPiece, open_reader
from audioset_core.features.shared_reader import STEP_S, SharedReader
from tests.core.features.test_reader import write_noise

F32 = NDArray[np.float32]
CONFIGS = (EFFICIENTAT, YAMNET, CED, VGGISH)
SLOW = pytest.mark.slow

pytestmark = pytest.mark.usefixtures("no_descriptor_leaks")


def _patches(pieces: list[Any], config: FrontendConfig) -> F32:
    return np.concatenate([patches(piece.frames, config) for piece in pieces])


def _alone(path: Path, config: FrontendConfig) -> F32:
    recording = Recording(os.fsencode(path))
    rate_hz = recording.info.sample_rate_hz
    reader = open_reader(recording.blocks(), rate_hz, config, as_waveform=False)
    pieces = []
    while not reader.is_finished:
        pieces.append(reader.read(1e9))
    recording.close()
    return _patches(pieces, config)


@pytest.mark.parametrize("rate_hz", [pytest.param(16_000, marks=SLOW), 44_100])
@pytest.mark.parametrize(
    "budget_s", [pytest.param(0.5, marks=SLOW), 7.0, pytest.param(1e9, marks=SLOW)]
)
def test_each_front_end_finds_what_it_finds_alone(
    tmp_path: Path, rate_hz: int, budget_s: float
) -> None:
    path = write_noise(tmp_path / "a.wav", rate_hz, 2, 40 * rate_hz + 123)
    reader = SharedReader(Recording(os.fsencode(path)), [(config, False) for config in CONFIGS])
    found: list[list[LogMelPiece]] = [[] for _ in CONFIGS]
    while not reader.is_finished:
        for mine, pieces in zip(found, reader.read(budget_s), strict=True):
            mine += pieces
    reader.close()
    for config, pieces in zip(CONFIGS, found, strict=True):
        np.testing.assert_array_equal(_patches(pieces, config), _alone(path, config))


def test_waveforms_and_frames_come_from_one_pass(tmp_path: Path) -> None:
    path = write_noise(tmp_path / "a.wav", 22_050, 1, 22_050 * 8)
    recording = Recording(os.fsencode(path))
    reader = SharedReader(recording, [(YAMNET, True), (EFFICIENTAT, False)])
    waveforms, frames = reader.read(60.0)
    assert reader.is_finished
    assert recording.n_samples == 22_050 * 8
    assert [type(pieces[-1]) for pieces in (waveforms, frames)] == [WaveformPiece, LogMelPiece]
    assert sum(piece.n_patches for piece in waveforms) == YAMNET.n_patches(16_000 * 8)
    reader.close()


class _Stream:
    """A recording of many hours that counts the blocks which somebody still holds."""

    def __init__(self, duration_s: int, rate_hz: int = 1_000, fails: bool = False) -> None:
        self.info = SimpleNamespace(sample_rate_hz=rate_hz)
        self.n_held = self.most_held = 0
        self._duration_s, self._fails = duration_s, fails

    def blocks(self) -> Iterator[F32]:
        rng = np.random.default_rng(0)
        for second in range(self._duration_s):
            # Blocks of about a second: no reader's step is a whole number of them.
            block = rng.standard_normal(self.info.sample_rate_hz + second % 7).astype(np.float32)
            self.n_held += 1
            self.most_held = max(self.most_held, self.n_held)
            weakref.finalize(block, self._let_go)
            yield block
        if self._fails:
            raise AudioError(Reason.TRUNCATED, "ends early")

    def _let_go(self) -> None:
        self.n_held -= 1


@pytest.mark.parametrize("minutes", [5, pytest.param(60, marks=SLOW)])
def test_readers_stay_in_step_however_long_the_recording_is(minutes: int) -> None:
    stream: Any = _Stream(60 * minutes)
    reader = SharedReader(stream, [(YAMNET, False), (EFFICIENTAT, False)])
    while not reader.is_finished:
        reader.read(300.0)
    assert STEP_S <= stream.most_held < STEP_S + 5


def test_the_end_of_the_recording_is_the_end_for_all() -> None:
    for duration_s in (1, 29, 30, 31, 60, 61):
        stream: Any = _Stream(duration_s)
        reader = SharedReader(stream, [(YAMNET, False), (EFFICIENTAT, False)])
        n_calls = 0
        while not reader.is_finished:
            pieces = reader.read(300.0)
            n_calls += 1
        assert all(pieces)
        assert n_calls <= duration_s // STEP_S + 1


def test_damage_is_raised_once_for_all() -> None:
    stream: Any = _Stream(3, fails=True)
    reader = SharedReader(stream, [(YAMNET, False), (EFFICIENTAT, False)])
    with pytest.raises(AudioError, match="ends early"):
        reader.read(60.0)
