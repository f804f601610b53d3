"""Which patches people are asked about next."""

from __future__ import annotations

import numpy as np
import pytest

from audioset_core.teaching.choice import Places, choose, likeness, logits_of

# Two recordings of four patches, each overlapping with its neighbours, and one of a single patch.
PLACES = Places(
    np.array([0, 0, 0, 0, 1, 1, 1, 1, 2]), np.array([0, 1, 2, 3, 0, 1, 2, 3, 0]),
    np.full(9, 2, dtype=np.intp),
)  # fmt: skip
SAID = np.float32([5, 9, 4, 3, -1, 2, 0.5, 0.2, -8])
EVERY = np.ones(9, dtype=np.bool_)
NO_ROWS = np.zeros((9, 2), dtype=np.float32)


def test_each_recording_comes_once_before_one_comes_twice_and_none_overlap() -> None:
    best = choose("best", SAID, EVERY, PLACES, 9, NO_ROWS, NO_ROWS[:0])
    assert best.tolist() == [1, 5, 8, 3, 7]
    assert choose("best", SAID, EVERY, PLACES, 2, NO_ROWS, NO_ROWS[:0]).tolist() == [1, 5]


def test_what_was_judged_is_left_out() -> None:
    is_open = EVERY.copy()
    is_open[[0, 1, 2, 8]] = False
    found = choose("best", SAID, is_open, PLACES, 9, NO_ROWS, NO_ROWS[:0])
    assert found.tolist() == [3, 5, 7]
    none = np.zeros(9, dtype=np.bool_)
    assert choose("diverse", SAID, none, PLACES, 9, NO_ROWS, NO_ROWS[:0]).tolist() == []


def test_uncertain_is_nearest_to_the_boundary() -> None:
    found = choose("uncertain", SAID, EVERY, PLACES, 3, NO_ROWS, NO_ROWS[:0])
    assert found.tolist() == [7, 3, 8]


def test_diverse_is_farthest_from_the_examples_and_from_what_was_chosen() -> None:
    angles = np.radians([0, 5, 90, 95, 180, 270])
    rows = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    places = Places(np.arange(6), np.zeros(6, np.intp), np.ones(6, np.intp))
    said = np.zeros(6, np.float32)
    every = np.ones(6, dtype=np.bool_)
    found = choose("diverse", said, every, places, 3, rows, rows[:1])
    assert found[0] == 4  # opposite of the example at 0 degrees
    assert set(found[1:].tolist()) == {5, 2}
    assert len(set(choose("diverse", said, every, places, 9, rows, rows[:0]).tolist())) == 6


def test_very_many_patches_give_the_same_as_a_full_sort(rng: np.random.Generator) -> None:
    n = 50_000
    said = rng.normal(size=n).astype(np.float32)
    places = Places(np.arange(n), np.zeros(n, np.intp), np.ones(n, np.intp))
    rows = np.zeros((n, 1), np.float32)
    found = choose("best", said, np.ones(n, dtype=np.bool_), places, 100, rows, rows[:0])
    assert found.tolist() == np.argsort(-said)[:100].tolist()


def test_heads_and_likeness_are_what_they_say(rng: np.random.Generator) -> None:
    rows = rng.normal(size=(20, 6)).astype(np.float32)
    rows[3] = 0  # digital silence is like nothing
    head = rng.normal(size=7)
    examples = rows[:2] * 3
    lengths = np.linalg.norm(rows, axis=1)
    unit = rows / np.where(lengths > 0, lengths, 1)[:, None]
    assert logits_of(head, rows, lengths) == pytest.approx(unit @ head[:6] + head[6], abs=1e-5)
    like = likeness(rows, lengths, examples)
    assert like == pytest.approx((unit @ unit[:2].T).max(axis=1), abs=1e-6)
    assert like[[0, 1]] == pytest.approx([1, 1])
    assert like[3] == 0
