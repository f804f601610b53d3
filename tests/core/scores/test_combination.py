from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audioset_core.scores.combination import (
    Grid,
    Part,
    combined,
    combined_blocks,
    covering_rows,
    finest,
    united,
)

YAMNET, MN10, FRAMES = Grid(0.48, 0.96), Grid(7.5, 10.0), Grid(0.2, 0.2)
GRIDS = st.sampled_from([YAMNET, MN10, FRAMES, Grid(0.96, 0.96), Grid(1.0, 2.0), Grid(2.0, 0.5)])
EVERY = np.arange(2)


def part(
    rows: Any, grid: Grid, columns: Any = EVERY, scale: float = 1.0, shift: float = 0.0
) -> Part:
    return Part(np.array(rows, dtype=np.float32), grid, np.array(columns), scale, shift)


@st.composite
def parts(draw: st.DrawFn) -> list[Part]:
    """Up to three parts of one recording, with other grids, rows, classes and lines."""
    duration_s = draw(st.floats(0.1, 60.0))
    found = []
    for _ in range(draw(st.integers(1, 3))):
        grid = draw(GRIDS)
        n_rows = 1 + math.ceil(max(0.0, duration_s - grid.window_s) / grid.hop_s)
        n_classes = draw(st.integers(1, 3))
        columns = draw(st.permutations(range(3)))[:n_classes]
        rng = np.random.default_rng(draw(st.integers(0, 99)))
        rows = rng.normal(0, 5, (n_rows, n_classes)).astype(draw(st.sampled_from(["f2", "f4"])))
        scale, shift = draw(st.floats(0.1, 3.0)), draw(st.floats(-5.0, 5.0))
        found.append(Part(rows, grid, np.array(columns), scale, shift))
    # Every combined class is of some part.
    found.append(part(np.zeros((2, 3)), MN10, range(3)))
    return found


def slowly(own: list[Part], n_classes: int) -> Any:
    """By the definition, one row, class and part at a time."""
    basis = own[finest([each.grid for each in own])]
    found = np.zeros((len(basis.logits), n_classes))
    for row in range(len(basis.logits)):
        centre_s = row * basis.grid.hop_s + basis.grid.window_s / 2
        for k in range(n_classes):
            values = []
            for each in own:
                if k not in each.columns:
                    continue
                column = each.logits[:, list(each.columns).index(k)].astype(np.float64)
                starts = np.arange(len(column)) * each.grid.hop_s
                ends, slack = starts + each.grid.window_s, 1e-6 * each.grid.hop_s
                under = (starts <= centre_s + slack) & (centre_s + slack < ends)
                if each.grid == basis.grid:
                    under = np.arange(len(column)) == min(row, len(column) - 1)
                if not under.any():
                    gap = np.abs((starts + ends) / 2 - centre_s)
                    under = np.arange(len(column)) == np.argmin(gap)
                values.append(each.scale * column[under].mean() + each.shift)
            found[row, k] = np.mean(values)
    return found


@settings(max_examples=40)
@given(own=parts())
def test_rows_are_what_the_definition_says(own: list[Part]) -> None:
    np.testing.assert_allclose(combined(own, 3, np.float32), slowly(own, 3), rtol=1e-5, atol=1e-5)


@given(own=parts(), block_values=st.integers(1, 50))
def test_blocks_give_the_same_to_the_bit(own: list[Part], block_values: int) -> None:
    blocks = list(combined_blocks(own, 3, block_values))
    np.testing.assert_array_equal(np.concatenate(blocks), combined(own, 3, np.float32))


@given(
    grids=st.lists(GRIDS, min_size=1, max_size=4),
    value=st.floats(-30, 30, width=16),
    n_rows=st.integers(1, 40),
)
def test_a_constant_stays_that_constant(grids: list[Grid], value: float, n_rows: int) -> None:
    own = [part(np.full((n_rows, 2), value), grid) for grid in grids]
    np.testing.assert_array_equal(combined(own, 2, np.float16), np.full((n_rows, 2), value))


@given(seed=st.integers(0, 99), n_rows=st.integers(1, 40), grid=GRIDS)
def test_on_one_grid_rows_are_plain_means(seed: int, n_rows: int, grid: Grid) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.normal(0, 5, (2, n_rows, 2)).astype(np.float32)
    whole = combined([part(a, grid), part(b, grid)], 2, np.float32)
    np.testing.assert_allclose(whole, (a.astype(np.float64) + b) / 2, rtol=1e-6, atol=1e-6)


def test_coarse_rows_count_where_their_windows_cover_the_centre() -> None:
    """Centres at 0.48, 0.96, ... s: the second window of 10 s begins at 7.5 s, the first ends."""
    fine = part(np.zeros((40, 2)), YAMNET)
    coarse = part([[0.0, 2.0], [4.0, 2.0]], MN10)
    whole = combined([coarse, fine], 2, np.float32)
    centres_s = 0.48 * np.arange(40) + 0.48
    wanted = np.select([centres_s < 7.5, centres_s < 10], [0.0, 1.0], 2.0)
    np.testing.assert_allclose(whole[:, 0], wanted)
    np.testing.assert_allclose(whole[:, 1], 1.0)


def test_a_row_between_windows_takes_the_nearest() -> None:
    gaps = Grid(2.0, 0.5)
    found = covering_rows(np.arange(10), FRAMES, gaps, 2).tolist()
    # Centres at 0.1, 0.3, ... 1.9 s; windows round 0.25 and 2.25 s.
    assert found == [[0, 0]] * 6 + [[1, 1]] * 4


def test_a_class_of_one_part_keeps_its_calibrated_logit() -> None:
    a = part([[1.0, 3.0]], YAMNET, [0, 1], scale=2.0, shift=-1.0)
    b = part([[5.0, 7.0]], YAMNET, [2, 0])
    assert combined([a, b], 3, np.float32).tolist() == [[(1.0 + 7.0) / 2, 5.0, 5.0]]


def test_classes_are_united_in_the_order_of_the_first() -> None:
    mids, columns = united([["/b", "/a"], ["/c", "/a"], ["/c"]])
    assert mids == ("/b", "/a", "/c")
    assert [own.tolist() for own in columns] == [[0, 1], [2, 1], [2]]


@pytest.mark.parametrize(
    ("grids", "k"),
    [([MN10, YAMNET, FRAMES], 2), ([Grid(0.96, 2.0), Grid(0.96, 0.96)], 1), ([MN10, MN10], 0)],
)
def test_the_finest_has_the_least_hop_then_the_least_window(grids: list[Grid], k: int) -> None:
    assert finest(grids) == k
