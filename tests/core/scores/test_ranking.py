from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from audioset_core.scores.coverage import covered_s, reaching
from audioset_core.scores.pooling import sigmoid, sliding_scores, window_spans
from audioset_core.scores.ranking import best_windows, patches_in
from audioset_core.scores.similarity import mean_vector, nearest

pytestmark = pytest.mark.numeric


@dataclass(frozen=True)
class Clip:
    clip: str
    logits: np.ndarray
    bound: float = 1.0
    patch_hop_s: float = 0.48


def _clips(rng: np.random.Generator, n: int, *, steps: bool = False) -> list[Clip]:
    clips = []
    for number in range(n):
        logits = rng.normal(-2, 3, (int(rng.integers(0, 30)), 4)).astype(np.float16)
        if steps:  # few values, many ties
            logits = np.round(logits / 3).astype(np.float16)
        bound = float(sigmoid(logits[:, [0, 2]]).max()) if len(logits) else 0.0
        clips.append(Clip(f"{number:02}", logits, bound))
    return sorted(clips, key=lambda clip: (-clip.bound, clip.clip))


@pytest.mark.parametrize("mode", ["max", "mean"])
@pytest.mark.parametrize("steps", [False, True])
@pytest.mark.parametrize(("length", "stride"), [(1, 1), (4, 4), (5, 2), (50, 7)])
def test_the_best_windows_are_those_of_all(
    rng: np.random.Generator, mode, steps: bool, length: int, stride: int
) -> None:
    clips = _clips(rng, 25, steps=steps)
    expected = []
    for clip in clips:
        scores = sliding_scores(clip.logits[:, [0, 2]], window=length, stride=stride, mode=mode)
        spans = window_spans(len(clip.logits), window=length, stride=stride)
        for row, (first, last) in zip(scores, spans.tolist(), strict=True):
            which = [0, 2][int(row.argmax())]
            expected.append((-float(row.max()), clip.clip, first, last, which))
    expected.sort()
    for top in (1, 7, 1_000):
        found = best_windows(
            clips, lambda c: (c.logits, [0, 2]), lambda _: (length, stride), top=top, mode=mode
        )
        got = [
            (-w.score, w.of.clip, w.first_patch, w.last_patch, w.category_index)
            for w in found.windows
        ]
        assert got == expected[:top]


def test_a_window_that_two_models_score_counts_once() -> None:
    rows = np.full((2, 3, 1), -9.0, np.float16)
    rows[0, 0], rows[1, 0], rows[1, 2] = 3.0, 2.0, 1.0
    both = [Clip("a", rows[0], 1.0), Clip("a", rows[1], 0.9)]
    found = best_windows(both, lambda c: (c.logits, [0]), lambda _: (1, 1), top=2)
    windows = [(round(w.score, 2), w.first_patch) for w in found.windows]
    assert windows == [(0.95, 0), (0.73, 2)]
    # The same patches of another hop are another time.
    finer = [both[0], Clip("a", rows[1], 0.9, 0.1)]
    found = best_windows(finer, lambda c: (c.logits, [0]), lambda _: (1, 1), top=2)
    assert [w.first_patch for w in found.windows] == [0, 0]


def test_clips_that_cannot_be_among_the_best_are_not_read(rng: np.random.Generator) -> None:
    clips = _clips(rng, 25)
    found = best_windows(clips, lambda c: (c.logits, [0, 2]), lambda _: (3, 3), top=3)
    kth = found.windows[-1].score
    assert found.n_read == sum(clip.bound >= kth for clip in clips)
    assert found.n_read < 20
    least = best_windows(
        clips, lambda c: (c.logits, [0, 2]), lambda _: (3, 3), top=1_000, min_score=0.9
    )
    assert least.n_read == sum(clip.bound >= 0.9 for clip in clips)
    assert all(window.score >= np.float32(0.9) for window in least.windows)


@pytest.mark.parametrize(
    ("seconds", "n_patches"), [(0.1, 1), (0.96, 1), (1.43, 1), (1.44, 2), (5, 9), (4.8, 9)]
)
def test_patches_that_lie_within_a_window(seconds: float, n_patches: int) -> None:
    assert patches_in(seconds, hop_s=0.48, window_s=0.96) == n_patches


@pytest.mark.parametrize(
    ("heard", "seconds"),
    [("000", 0), ("100", 0.96), ("110", 1.44), ("101", 1.92), ("1001", 1.92), ("001", 0.84)],
)
def test_covered_time_counts_no_moment_twice(heard: str, seconds: float) -> None:
    marks = np.array([mark == "1" for mark in heard])
    duration_s = 1.8 if heard == "001" else 10.0
    got = covered_s(marks, hop_s=0.48, window_s=0.96, duration_s=duration_s)
    assert got == pytest.approx(seconds)


def test_patches_that_reach_a_score(rng: np.random.Generator) -> None:
    logits = rng.normal(0, 2, (500, 6)).astype(np.float16)
    marks = reaching(logits, {"a": [1], "b": [0, 5]}, 0.7)
    scores = sigmoid(logits)
    assert (marks["a"] == (scores[:, 1] >= 0.7)).all()
    assert (marks["b"] == (scores[:, [0, 5]] >= 0.7).any(axis=1)).all()


@pytest.mark.parametrize("by_patch", [False, True])
def test_the_nearest_are_those_of_all(rng: np.random.Generator, by_patch: bool) -> None:
    clips = [
        (f"{n:02}", rng.normal(size=(int(rng.integers(0, 9)), 5)).astype(np.float16))
        for n in range(20)
    ]
    clips += [("98", clips[3][1]), ("97", clips[3][1]), ("zero", np.zeros((3, 5), np.float16))]
    query = rng.normal(size=5)

    def cosine(vector: np.ndarray) -> float:
        lengths = np.linalg.norm(vector) * np.linalg.norm(query)
        return float(vector @ query / lengths) if lengths else 0.0

    expected = []
    for clip, matrix in clips:
        if len(matrix):
            rows = matrix.astype(np.float64) if by_patch else [matrix.astype(np.float64).mean(0)]
            expected.append((-max(map(cosine, rows)), clip))
    expected.sort(key=lambda pair: (round(pair[0], 9), pair[1]))
    found = nearest(query, clips, top=8, by_patch=by_patch, prepare=lambda x: x)
    assert [n.clip for n in found] == [clip for _, clip in expected[:8]]
    assert [n.cosine for n in found] == pytest.approx([-c for c, _ in expected[:8]])
    assert all((n.patch is not None) == by_patch for n in found)
    for neighbour in found if by_patch else []:
        row = dict(clips)[neighbour.clip][neighbour.patch].astype(np.float64)
        assert cosine(row) == pytest.approx(neighbour.cosine)


def test_the_mean_of_a_long_matrix_is_that_of_its_blocks(rng: np.random.Generator) -> None:
    matrix = rng.normal(size=(3_000, 700)).astype(np.float16)
    assert mean_vector(matrix, lambda x: x) == pytest.approx(matrix.mean(0, dtype=np.float64))
