from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from audioset_core.previews.columns import ColumnPeaks, column_edges, covering_patches, peak_scores
from audioset_core.scores.pooling import sigmoid


@given(st.data())
def test_columns_hold_the_extremes_of_what_lies_under_them(data: st.DataObject) -> None:
    n_items = data.draw(st.integers(1, 200))
    n_columns = data.draw(st.integers(1, 60))
    items = np.random.default_rng(n_items).standard_normal(n_items).astype(np.float32)
    cuts = sorted(data.draw(st.lists(st.integers(0, n_items), max_size=6)))
    peaks = ColumnPeaks(n_items, n_columns)
    for piece in np.split(items, cuts):
        peaks.push(piece)
    assert peaks.n_columns == min(n_items, n_columns)
    for column in range(peaks.n_columns):
        under = items[
            column * n_items // peaks.n_columns : (column + 1) * n_items // peaks.n_columns
        ]
        assert peaks.low[column] == under.min()
        assert peaks.high[column] == under.max()


def test_a_click_is_seen_in_ten_hours() -> None:
    n_items = 36_000_000
    peaks = ColumnPeaks(n_items, 900)
    for start in range(0, n_items, 1_000_000):
        block = np.zeros(1_000_000, np.float32)
        if start == 17_000_000:
            block[123_456] = -0.9
        peaks.push(block)
    assert np.flatnonzero(peaks.low).tolist() == [17_123_456 * 900 // n_items]
    assert peaks.low.min() == np.float32(-0.9)


def test_what_did_not_arrive_is_not_shown_and_what_is_too_much_is_left_out() -> None:
    peaks = ColumnPeaks(10, 5, width=2)
    peaks.push(np.ones((3, 2), np.float32))
    assert np.isnan(peaks.high[:, 0]).tolist() == [False, False, True, True, True]
    peaks.push(np.full((20, 2), 2, np.float32))
    assert peaks.high[:, 1].tolist() == [1, 2, 2, 2, 2]


def test_a_column_shows_the_patches_that_cover_it() -> None:
    # Patch k covers 0.48 k to 0.48 k + 0.96; columns of 0.24 s.
    spans = covering_patches(column_edges(2.4, 10), 4, hop_s=0.48, window_s=0.96)
    assert spans.tolist() == [
        [0, 0], [0, 0], [0, 1], [0, 1], [1, 2], [1, 2], [2, 3], [2, 3], [3, 3], [3, 3],
    ]  # fmt: skip


def test_no_patch_reaches_beyond_its_window() -> None:
    # VGGish drops the tail: 0.96 s every 0.96 s, the last 0.3 s under no patch.
    spans = covering_patches(column_edges(2.22, 222), 2, hop_s=0.96, window_s=0.96)
    is_covered = spans[:, 1] >= spans[:, 0]
    assert is_covered.tolist() == [True] * 192 + [False] * 30


@pytest.mark.parametrize("n_columns", [1, 7, 100, 997])
@pytest.mark.parametrize(("hop_s", "window_s"), [(0.48, 0.96), (0.96, 0.96), (0.24, 0.96), (1, 2)])
def test_peak_scores_equal_the_definition(
    rng: np.random.Generator, n_columns: int, hop_s: float, window_s: float
) -> None:
    n_patches, length_s = 50, 50 * hop_s + window_s + 0.3
    logits = rng.standard_normal((n_patches, 6)).astype(np.float16)
    edges = column_edges(length_s, n_columns)
    spans = covering_patches(edges, n_patches, hop_s=hop_s, window_s=window_s)
    found = peak_scores(logits, np.array([4, 1]), spans)
    starts = np.arange(n_patches) * hop_s
    for column in range(n_columns):
        inside = (starts < edges[column + 1] - 1e-9) & (starts + window_s > edges[column] + 1e-9)
        if not inside.any():
            assert np.isnan(found[column]).all()
            continue
        assert found[column].tolist() == sigmoid(logits[inside][:, [4, 1]].max(axis=0)).tolist()


def test_no_patches_and_no_classes() -> None:
    spans = covering_patches(column_edges(0.5, 10), 0, hop_s=0.96, window_s=0.96)
    assert np.isnan(peak_scores(np.empty((0, 5)), np.array([1]), spans)).all()
    assert peak_scores(np.empty((3, 5)), np.array([], int), spans).shape == (10, 0)
