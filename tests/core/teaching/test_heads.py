"""Heads as arithmetic and as a file."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audioset_core.errors import WeightsError
from audioset_core.teaching.heads import Heads, read_heads

ABOUT = {
    "base": {"model": "yamnet", "version": "1"},
    "classes": [{"mid": "x:wood-saw", "name": "Wood saw"}, {"mid": "/m/0bt9lr", "name": "Dog"}],
}


def heads(dim: int = 3, seed: int = 0) -> Heads:
    rng = np.random.default_rng(seed)
    weight = rng.standard_normal((2, dim)).astype(np.float32)
    return Heads(weight, np.array([0.5, -1.0], dtype=np.float32), ABOUT)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 40), st.sampled_from(["f2", "f4"]), st.integers(0, 99))
def test_logits_are_the_affine_map_row_by_row(n_patches: int, dtype: str, seed: int) -> None:
    rows = np.random.default_rng(seed).standard_normal((n_patches, 3)).astype(dtype)
    found = heads().logits(rows)
    assert (found.shape, found.dtype) == ((n_patches, 2), np.dtype(dtype))
    for row, own in zip(rows, found, strict=True):
        unit = row.astype(float) / np.linalg.norm(row.astype(float))
        wanted = heads().weight.astype(float) @ unit + [0.5, -1.0]
        assert own == pytest.approx(wanted, rel=1e-3 if dtype == "f2" else 1e-6, abs=1e-3)


def test_a_long_recording_is_read_in_blocks() -> None:
    rows = np.random.default_rng(1).standard_normal((5, 2**19)).astype(np.float16)
    wide = heads(2**19)
    one_by_one = np.concatenate([wide.logits(row[np.newaxis]) for row in rows])
    np.testing.assert_allclose(wide.logits(rows), one_by_one, rtol=2e-3)


def test_a_file_holds_the_heads_to_the_bit(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(heads().as_bytes())
    assert heads().as_bytes() == heads().as_bytes()
    again = read_heads(path)
    np.testing.assert_array_equal(again.weight, heads().weight)
    np.testing.assert_array_equal(again.bias, heads().bias)
    assert again.about == ABOUT
    assert again.base == "yamnet@1"
    assert again.categories == ((0, "x:wood-saw", "Wood saw"), (1, "/m/0bt9lr", "Dog"))


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda path: path.unlink(), "cannot be read: no such file"),
        (lambda path: path.write_bytes(b"\0" * 99), "does not hold taught weights"),
        (lambda path: path.write_bytes(path.read_bytes()[:-4]), "does not hold taught weights"),
    ],
)
def test_a_file_that_is_none_is_one_line(tmp_path: Path, spoil: object, said: str) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(heads().as_bytes())
    spoil(path)  # type: ignore[operator]
    with pytest.raises(WeightsError, match=re.escape(said)):
        read_heads(path)


def test_another_file_is_not_taken_for_it(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(heads().as_bytes())
    with pytest.raises(WeightsError, match="is not the file that was written"):
        read_heads(path, "0" * 64)
