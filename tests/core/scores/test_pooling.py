from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from audioset_core.errors import AudioError
from audioset_core.records import ClassScore
from audioset_core.scores.pooling import (
    Detection,
    Pooled,
    detected_runs,
    detections_of,
    joined,
    pool,
    pooled_rows,
    sigmoid,
    sliding_scores,
    window_spans,
)
from tests.bounds import U32, assert_possible, sigmoid_bound


def logit(p: float) -> float:
    return float(np.log(p / (1 - p)))


@st.composite
def matrices(draw: st.DrawFn) -> np.ndarray[Any, Any]:
    """Few distinct logits, so that runs, ties and touching borders are common."""
    n_patches, n_classes = draw(st.integers(0, 30)), draw(st.integers(1, 4))
    values = draw(
        st.lists(
            st.sampled_from([-4.0, -1.0, 0.0, 0.5, 2.0]),
            min_size=n_patches * n_classes,
            max_size=n_patches * n_classes,
        )
    )
    dtype = draw(st.sampled_from([np.float16, np.float32]))
    return np.array(values, dtype=dtype).reshape(n_patches, n_classes)


def brute_force(logits: np.ndarray[Any, Any], floor: float, threshold: float) -> Pooled:
    scores = 1 / (1 + np.exp(-logits.astype(np.float64)))
    class_scores, detections = [], []
    for k in range(logits.shape[1]):
        column = scores[:, k].tolist()
        if column and max(column) >= floor:
            class_scores.append(ClassScore(k, max(column), sum(column) / len(column)))
        i = 0
        while i < len(column):
            j = i
            while j < len(column) and column[j] >= threshold:
                j += 1
            if j > i:
                run = column[i:j]
                peak_patch = i + run.index(max(run))
                detections.append(Detection(k, i, j - 1, max(run), sum(run) / len(run), peak_patch))
            i = j + 1
    return Pooled(tuple(class_scores), tuple(detections))


def as_rows(pooled: Pooled) -> list[tuple[Any, ...]]:
    return [
        *((s.category_index, s.peak, s.mean) for s in pooled.class_scores),
        *((d.category_index, d.start_patch, d.end_patch, d.peak_patch) for d in pooled.detections),
        *((d.peak, d.mean) for d in pooled.detections),
    ]


@pytest.mark.numeric
@given(matrices(), st.sampled_from([0.1, 0.4, 0.55]), st.integers(1, 40))
def test_pool_equals_brute_force_whatever_the_block(
    logits: np.ndarray[Any, Any], threshold: float, block_values: int
) -> None:
    pooled = pool(logits, floor=0.3, threshold=threshold, block_values=block_values)
    wanted = as_rows(brute_force(logits, 0.3, threshold))
    # A score is at most 1; sums are float64.
    assert as_rows(pooled) == [pytest.approx(row, rel=0, abs=sigmoid_bound(1.0)) for row in wanted]


def test_one_patch_below_separates_two_detections() -> None:
    logits = np.full((6, 1), 2.0, dtype=np.float32)
    logits[2] = -2.0
    logits[4] = 3.0
    detections = pool(logits, floor=0, threshold=0.5).detections
    assert [(d.start_patch, d.end_patch, d.peak_patch) for d in detections] == [
        (0, 1, 0),
        (3, 5, 4),
    ]


def test_a_score_at_the_threshold_counts() -> None:
    assert len(pool(np.zeros((1, 1), np.float16), floor=0.5, threshold=0.5).detections) == 1
    assert len(pool(np.zeros((1, 1), np.float16), floor=0.5, threshold=0.5).class_scores) == 1


@pytest.mark.parametrize("floor", [0.0, 0.5])
def test_no_patches_give_nothing(floor: float) -> None:
    assert pool(np.empty((0, 521), np.float16), floor=floor, threshold=0.0) == Pooled((), ())


def test_not_a_number_is_no_silent_absence() -> None:
    logits = np.zeros((3, 2), np.float32)
    logits[1, 1] = np.nan
    with pytest.raises(AudioError, match="not numbers"):
        pool(logits, floor=0.1, threshold=0.1)


def test_results_are_plain_numbers() -> None:
    pooled = pool(np.zeros((2, 2), np.float16), floor=0, threshold=0)
    assert [type(v) for v in (pooled.class_scores[0].peak, pooled.class_scores[0].mean)] == [
        float,
        float,
    ]
    assert type(pooled.detections[0].start_patch) is int


@pytest.mark.numeric
def test_sigmoid_is_stable_and_precise() -> None:
    x = np.array([-65504, -100, -20, -1, 0, 1, 20, 100, 65504], dtype=np.float16)
    with np.errstate(all="raise", under="ignore"):
        scores = sigmoid(x)
    assert scores.dtype == np.float32
    expected = [0, 3.8e-44, 2.0611537e-9, 0.26894143, 0.5, 0.7310586, 1, 1, 1]
    # Eight digits are written down; below 1.2e-38 float32 has steps of 1.4e-45.
    assert_possible(scores, expected, sigmoid_bound(expected) + 1e-8 * np.array(expected) + 1e-44)


@pytest.mark.slow
def test_a_ten_hour_clip_needs_little_memory(rng: np.random.Generator) -> None:
    logits = (rng.standard_normal((75_000, 521), dtype=np.float32) - 8).astype(np.float16)
    tracemalloc.start()
    pool(logits, floor=0.01, threshold=0.1)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < logits.nbytes


@pytest.mark.numeric
@given(matrices(), st.integers(1, 8), st.data(), st.sampled_from(["max", "mean"]))
def test_sliding_scores_equal_brute_force(
    logits: np.ndarray[Any, Any], window: int, data: st.DataObject, mode: Any
) -> None:
    stride = data.draw(st.integers(1, window))
    spans = window_spans(len(logits), window=window, stride=stride).tolist()
    reduce = np.max if mode == "max" else np.mean
    expected = [
        1 / (1 + np.exp(-reduce(logits[a : b + 1].astype(np.float64), axis=0))) for a, b in spans
    ]
    scores = sliding_scores(logits, window=window, stride=stride, mode=mode)
    assert scores.shape == (len(spans), logits.shape[1])
    exact = np.array(expected).reshape(scores.shape)
    # A mean of logits, at most 4, is rounded once to float32: the score moves with it.
    assert_possible(scores, exact, sigmoid_bound(exact) + 4 * U32 * exact)


@given(st.integers(1, 60), st.integers(1, 20), st.data())
def test_windows_cover_every_patch_and_stay_inside(
    n_patches: int, window: int, data: st.DataObject
) -> None:
    stride = data.draw(st.integers(1, window))
    spans = window_spans(n_patches, window=window, stride=stride)
    covered = {patch for a, b in spans.tolist() for patch in range(a, b + 1)}
    assert covered == set(range(n_patches))
    assert (spans[:, 0] == stride * np.arange(len(spans))).all()


def test_an_even_window_loses_no_position() -> None:
    # The predecessor returned 7 of these 9 windows for an even size.
    assert window_spans(10, window=2, stride=1).tolist() == [[i, i + 1] for i in range(9)]


@pytest.mark.numeric
def test_the_mean_counts_no_padding() -> None:
    logits = np.full((5, 1), logit(0.9), dtype=np.float32)
    scores = sliding_scores(logits, window=4, stride=2, mode="mean")
    assert_possible(scores, np.full(scores.shape, 0.9), sigmoid_bound(0.9) + 4 * U32)


@pytest.mark.numeric
def test_sliding_over_many_windows_equals_one_by_one(rng: np.random.Generator) -> None:
    logits = rng.standard_normal((3_000, 300)).astype(np.float16)
    scores = sliding_scores(logits, window=6, stride=2)
    expected = np.stack(
        [logits[a : b + 1].max(axis=0) for a, b in window_spans(3_000, window=6, stride=2)]
    )
    assert (scores == sigmoid(expected)).all()


@pytest.mark.parametrize(("window", "stride"), [(0, 1), (2, 3), (2, 0)])
def test_windows_that_skip_patches_are_refused(window: int, stride: int) -> None:
    with pytest.raises(ValueError, match="stride <= window"):
        window_spans(5, window=window, stride=stride)


# --- rows that are pooled from steps --------------------------------------------------------------


@given(matrices(), st.integers(1, 7))
def test_rows_are_detected_where_one_of_their_steps_is(
    steps: np.ndarray[Any, Any], steps_per_row: int
) -> None:
    """Which rows, and how high, is all that a file of rows tells of detections in steps."""
    steps = steps.astype(np.float32)
    rows = pooled_rows(steps, steps_per_row, mode="max")
    assert rows.shape == (-(-len(steps) // steps_per_row), steps.shape[1])
    if not len(steps):
        return
    cut = len(steps) // 2
    runs = [*detected_runs(steps[:cut], 0.5, 0), *detected_runs(steps[cut:], 0.5, cut)]
    found = detections_of(joined(runs))
    assert found == pool(steps, floor=0.1, threshold=0.5).detections
    is_found = np.zeros(rows.shape, bool)
    for each in found:
        first, last = each.start_patch // steps_per_row, each.end_patch // steps_per_row
        is_found[first : last + 1, each.category_index] = True
        assert each.peak <= sigmoid(rows)[each.peak_patch // steps_per_row, each.category_index]
    np.testing.assert_array_equal(is_found, sigmoid(rows) >= np.float32(0.5))
    whole = pool(rows, floor=0.1, threshold=0.5).class_scores
    of_steps = pool(steps, floor=0.1, threshold=0.5).class_scores
    assert [(x.category_index, x.peak) for x in whole] == [
        (x.category_index, x.peak) for x in of_steps
    ]


def test_a_mean_of_steps_counts_those_that_are_there() -> None:
    steps = np.float32([[1, 0], [3, 0], [8, 2]])
    np.testing.assert_array_equal(pooled_rows(steps, 2, mode="mean"), [[2, 0], [8, 2]])
