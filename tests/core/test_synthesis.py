from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from audioset_core.demo_sounds import DEMO_SOUNDS, DemoSound, write_demo
from audioset_core.models.classes import load_categories


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    assert write_demo(folder) == DEMO_SOUNDS
    return folder


def test_exactly_the_listed_files_are_written(folder: Path) -> None:
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        sound.file_name for sound in DEMO_SOUNDS
    )


@pytest.mark.parametrize("sound", DEMO_SOUNDS, ids=lambda sound: sound.file_name)
def test_a_file_is_what_the_list_says(folder: Path, sound: DemoSound) -> None:
    info = soundfile.info(folder / sound.file_name)
    assert (info.samplerate, info.channels) == (sound.sample_rate_hz, sound.n_channels)
    assert info.frames == sound.duration_s * sound.sample_rate_hz
    assert info.format == Path(sound.file_name).suffix[1:].upper()
    samples, _ = soundfile.read(folder / sound.file_name, always_2d=True)
    if sound.file_name.endswith((".wav", ".flac")):
        np.testing.assert_allclose(samples, sound.samples(), atol=2**-15)
    else:
        assert np.abs(samples).max() == pytest.approx(sound.peak, rel=0.2)


def test_samples_are_the_same_on_every_call() -> None:
    for sound in DEMO_SOUNDS[:3]:
        np.testing.assert_array_equal(sound.samples(), sound.samples())


def test_expected_names_are_classes_of_the_model() -> None:
    known = {category.name for category in load_categories("yamnet")}
    assert {name for sound in DEMO_SOUNDS for name in sound.expected} <= known


def test_a_second_run_leaves_the_files_alone(folder: Path) -> None:
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()}
    write_demo(folder)
    after = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()}
    assert after == before
