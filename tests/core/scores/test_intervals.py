from __future__ import annotations

import tracemalloc
from dataclasses import astuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from audioset_core.errors import AudioError, UserError
from audioset_core.records import Threshold
from audioset_core.scores.pooling import pool
from audioset_core.scores.thresholds import (
    IntervalRules,
    derive_intervals,
    least_patches,
    most_missing,
)
from audioset_core.storage.score_files import npy_bytes, read_scores
from tests.core.scores.test_pooling import logit

Matrix = np.ndarray[Any, Any]
YAMNET = {"patch_hop_s": 0.48, "window_s": 0.96}


@st.composite
def cases(draw: st.DrawFn) -> tuple[Matrix, IntervalRules]:
    """Few distinct logits, so that runs, ties, gaps and touching borders are common."""
    n_patches, n_classes = draw(st.integers(0, 30)), draw(st.integers(1, 3))
    levels = st.sampled_from([-4.0, -1.0, 0.0, 0.5, 2.0])
    size = n_patches * n_classes
    values = draw(st.lists(levels, min_size=size, max_size=size))
    dtype = draw(st.sampled_from([np.float16, np.float32]))
    limits = st.lists(st.sampled_from([0.1, 0.3, 0.55, 0.7]), min_size=2, max_size=2).map(sorted)
    threshold = limits.map(lambda pair: Threshold(high=pair[1], low=pair[0]))
    rules = IntervalRules(
        draw(st.none() | threshold),
        draw(st.dictionaries(st.integers(0, n_classes - 1), threshold)),
        draw(st.sampled_from([0.0, 0.96, 1.0, 1.44, 3.0])),
        draw(st.sampled_from([0.0, 0.5, 0.48, 1.2])),
    )
    return np.array(values, dtype=dtype).reshape(n_patches, n_classes), rules


def slowly(logits: Matrix, rules: IntervalRules, hop_s: float, window_s: float) -> list[Any]:
    """In seconds and one patch at a time, as one would do it by hand."""
    scores = 1 / (1 + np.exp(-logits.astype(np.float64)))
    found = []
    for k in range(scores.shape[1]):
        threshold = rules.by_category.get(k, rules.default)
        if threshold is None:
            continue
        column = scores[:, k].tolist()
        spans: list[list[int]] = []
        for patch, score in enumerate(column):
            if score < threshold.low:
                continue
            if spans and spans[-1][-1] == patch - 1:
                spans[-1].append(patch)
            else:
                spans.append([patch])
        spans = [s for s in spans if max(column[p] for p in s) >= threshold.high]
        merged: list[list[int]] = []
        for span in spans:
            silence_s = span[0] * hop_s - (merged[-1][-1] * hop_s + window_s) if merged else np.inf
            if silence_s <= rules.merge_gap_s + 1e-7:
                merged[-1] += span
            else:
                merged.append(span)
        for span in merged:
            if (span[-1] - span[0]) * hop_s + window_s >= rules.min_duration_s - 1e-7:
                of_span = [column[p] for p in span]
                peak_patch = span[of_span.index(max(of_span))]
                mean = sum(of_span) / len(span)
                found.append((k, span[0], span[-1], max(of_span), mean, peak_patch))
    return found


@given(cases(), st.sampled_from([(0.48, 0.96), (0.24, 0.96), (0.96, 0.96), (1.0, 2.0)]))
def test_intervals_are_those_of_the_slow_way(
    case: tuple[Matrix, IntervalRules], timing: tuple[float, float]
) -> None:
    logits, rules = case
    hop_s, window_s = timing
    for block_values in (1, 7, 10_000):
        found = derive_intervals(
            logits, rules, patch_hop_s=hop_s, window_s=window_s, block_values=block_values
        )
        wanted = slowly(logits, rules, hop_s, window_s)
        assert [astuple(each) for each in found] == [pytest.approx(w, abs=1e-6) for w in wanted]


@given(cases())
def test_one_threshold_and_no_rule_give_what_is_stored_as_detections(
    case: tuple[Matrix, IntervalRules],
) -> None:
    logits, _ = case
    rules = IntervalRules(Threshold(0.3, 0.3))
    # With patches that do not overlap, a patch in between is a silence.
    derived = derive_intervals(logits, rules, patch_hop_s=1.0, window_s=0.5)
    assert derived == pool(logits, floor=1.0, threshold=0.3).detections


def test_a_swell_is_one_interval_from_low_to_low() -> None:
    scores = [0.1, 0.35, 0.6, 0.35, 0.4, 0.1, 0.35, 0.1]
    logits = np.array([[logit(s)] for s in scores], dtype=np.float32)
    (found,) = derive_intervals(
        logits, IntervalRules(Threshold(0.5, 0.3)), patch_hop_s=0.96, window_s=0.5
    )
    assert (found.start_patch, found.end_patch, found.peak_patch) == (1, 4, 2)
    assert found.mean == pytest.approx((0.35 + 0.6 + 0.35 + 0.4) / 4)


@pytest.mark.parametrize(
    ("min_duration_s", "n_patches"), [(0, 1), (0.96, 1), (0.97, 2), (1.44, 2), (1.45, 3), (4.8, 9)]
)
def test_least_patches(min_duration_s: float, n_patches: int) -> None:
    assert least_patches(min_duration_s, **YAMNET) == n_patches


@pytest.mark.parametrize(
    ("merge_gap_s", "n_patches"), [(0, 1), (0.47, 1), (0.48, 2), (0.5, 2), (0.96, 3)]
)
def test_most_missing(merge_gap_s: float, n_patches: int) -> None:
    """Patches of 0.96 s every 0.48 s: with one missing the neighbours still touch."""
    assert most_missing(merge_gap_s, **YAMNET) == n_patches


def test_patches_apart_from_each_other_have_silence_between_them() -> None:
    assert most_missing(0.0, patch_hop_s=1.0, window_s=0.5) == 0


@pytest.mark.parametrize(("high", "low"), [(0.3, 0.5), (0.5, 0.0), (1.1, 0.5), (float("nan"), 0.1)])
def test_thresholds_that_are_none_are_refused(high: float, low: float) -> None:
    with pytest.raises(UserError, match="0 < low <= high <= 1"):
        Threshold(high, low)


@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")])
def test_durations_that_are_none_are_refused(value: float) -> None:
    with pytest.raises(UserError, match="merge_gap_s"):
        IntervalRules(None, merge_gap_s=value)
    with pytest.raises(UserError, match="min_duration_s"):
        IntervalRules(None, min_duration_s=value)


def test_scores_that_are_no_numbers_are_refused() -> None:
    logits = np.array([[0.0], [np.nan]], dtype=np.float32)
    with pytest.raises(AudioError, match="not numbers"):
        derive_intervals(logits, IntervalRules(Threshold(0.5, 0.5)), **YAMNET)


def test_memory_does_not_grow_with_the_file(tmp_path: Path, rng: np.random.Generator) -> None:
    """Scores that cross the lower threshold all the time and reach the higher one never."""
    path = tmp_path / "scores.npy"
    path.write_bytes(npy_bytes(rng.normal(size=(20_000, 521)).astype(np.float16)))
    rules = IntervalRules(Threshold(1.0, 0.5))
    tracemalloc.start()
    try:
        found = derive_intervals(read_scores(path, mmap=True), rules, **YAMNET)
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found == ()
    # Runs of all 5 million values would take 150 MB.
    assert peak_bytes < 40e6, peak_bytes
