"""What the training is made of: its parts alone, no package fetched and nothing trained."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from audioset_core.demo_sounds import DEMO_SOUNDS
from audioset_core.scores.pooling import sigmoid
from training.export import shift_of
from training.fetch import ogg_streams, read_packages
from training.measures import compare
from training.mixtures import as_bytes, as_log_mel
from training.programs import random_midi
from training.synthesis import RECIPES, SAMPLE_RATE_HZ, Make, make
from training.train import loss, orthogonal, rate


def test_packages_are_named_once_and_say_their_licences() -> None:
    packages = read_packages()
    assert len({package.name for package in packages}) == len(packages) > 100
    assert {package.terms for package in packages} == {"free", "share-alike"}
    assert all(package.licences.strip() for package in packages)
    assert 10 <= sum(package.is_held_out for package in packages) <= 30


@pytest.mark.parametrize("recipe", dict.fromkeys(RECIPES), ids=lambda recipe: recipe.__name__)
def test_recipes_make_sound_within_full_scale(recipe: Make) -> None:
    for seed in range(3):
        sound = make(recipe, np.random.default_rng(seed), 2.0)
        assert sound.shape == (2 * SAMPLE_RATE_HZ,)
        assert sound.dtype == np.float32
        assert 0 < np.abs(sound).max() <= 0.9 + 1e-6


def test_no_recipe_is_one_of_the_demo_s() -> None:
    ours = {recipe.__code__.co_code for recipe in RECIPES}
    assert not ours & {sound.make.__code__.co_code for sound in DEMO_SOUNDS}


def test_ogg_streams_are_cut_out_of_other_data(tmp_path: Path) -> None:
    import io

    import soundfile

    made = []
    for seed in (1, 2):
        buffer = io.BytesIO()
        noise = np.random.default_rng(seed).normal(0, 0.1, 8_000)
        soundfile.write(buffer, noise, 8_000, format="OGG", subtype="VORBIS")
        made.append(buffer.getvalue())
    found = list(ogg_streams(b"OggS of no page" + made[0] + b"\0" * 999 + made[1] + b"OggS"))
    assert found == made


def test_random_midi_is_a_whole_file() -> None:
    midi = random_midi(np.random.default_rng(0), 24)
    assert midi[:4] == b"MThd"
    at = midi.index(b"MTrk")
    assert int.from_bytes(midi[at + 4 : at + 8], "big") == len(midi) - at - 8
    assert midi.endswith(b"\x00\xff\x2f\x00")


def test_8_bits_keep_log_mel_within_half_a_step() -> None:
    given = np.linspace(-6.9, 6, 1000, dtype=np.float32)
    # Half a step of 0.0515, and the roundings of float32 at 13 steps a unit.
    assert np.abs(as_log_mel(as_bytes(given)) - given).max() <= 0.0515 / 2 + 1e-5


def test_a_student_that_agrees_has_the_least_loss() -> None:
    rng = torch.Generator().manual_seed(0)
    teacher = 4 * torch.randn(8, 521, generator=rng) - 6
    least = loss(teacher, teacher)
    for scale in (0.1, 1.0):
        other = teacher + scale * torch.randn(8, 521, generator=rng)
        assert loss(other, teacher) > least
    # Far below the floor one value is as good as another.
    assert torch.isclose(
        loss(torch.full((1, 5), -40.0), torch.full((1, 5), -50.0)), torch.zeros(())
    )


@pytest.mark.parametrize("shape", [(24, 216), (64, 64), (320, 152)])
def test_orthogonal_keeps_directions_and_levels_strengths(shape: tuple[int, int]) -> None:
    """Singular values come within 0.5 and 1.5, as the iteration's source says."""
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    found = torch.linalg.svdvals(orthogonal(matrix))
    assert float(found.min()) > 0.5
    assert float(found.max()) < 1.5
    kept = (left.T @ orthogonal(matrix) @ right.T).diagonal()
    assert float(kept.min()) > 0.4


def test_the_rate_rises_stays_and_falls_to_nothing() -> None:
    rates = [rate(seen, 1000) for seen in (0, 10, 20, 400, 650, 825, 999)]
    assert rates == pytest.approx([0, 0.5, 1, 1, 1, 0.5, 1 / 350])


def test_the_tuning_begins_at_a_third_and_falls_to_nothing() -> None:
    rates = [rate(seen, 1000) for seen in (1000, 1125, 1250)]
    assert rates == pytest.approx([0.3, 0.15, 0])


def test_what_the_teacher_hears_can_count_more() -> None:
    teacher = torch.tensor([[0.0, -9.0]])
    for student, grows in (
        (torch.tensor([[-3.0, -9.0]]), True),
        (torch.tensor([[0.0, 0.0]]), False),
    ):
        more = loss(student, teacher, 3.0) - loss(torch.tensor([[0.0, -9.0]]), teacher, 3.0)
        once = loss(student, teacher) - loss(torch.tensor([[0.0, -9.0]]), teacher)
        assert bool(more > 1.2 * once) == grows


def test_the_shift_takes_the_bias_away() -> None:
    rng = np.random.default_rng(0)
    teacher = rng.normal(-3, 3, (500, 40)).astype(np.float32)
    student = teacher - 0.7 + rng.normal(0, 0.5, teacher.shape).astype(np.float32)
    by = shift_of(student, sigmoid(teacher))
    assert by == pytest.approx(0.7, abs=0.1)
    assert abs(compare(sigmoid(student + np.float32(by)), sigmoid(teacher)).bias) < 1e-3


def test_measures_are_of_what_the_teacher_hears() -> None:
    teacher = np.array([[0.9, 0.05, 0.2], [0.1, 0.6, 0.0]], np.float32)
    student = np.array([[0.7, 0.9, 0.3], [0.1, 0.4, 0.0]], np.float32)
    found = compare(student, teacher)
    assert found.top_1 == 0.5
    assert (found.error, found.bias) == pytest.approx((0.5 / 4, -0.3 / 4))
