from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from audioset_core.errors import WeightsError
from audioset_core.models.vggish_quantisation import Pca, load_pca, postprocess
from tests.bounds import U32, assert_possible, sum_bound


@pytest.fixture
def parameters() -> dict[str, np.ndarray[Any, Any]]:
    rng = np.random.default_rng(0)
    vectors, means = rng.standard_normal((128, 128)), rng.standard_normal(128)
    return {"pca_eigen_vectors": vectors.astype("f4"), "pca_means": means.astype("f4")}


@pytest.mark.numeric
def test_equal_to_the_reference(assets: Path, tmp_path: Path) -> None:
    golden = np.load(assets / "golden" / "vggish_golden.npz")
    np.savez(tmp_path / "pca.npz", **{k: golden[k] for k in ("pca_eigen_vectors", "pca_means")})
    found = postprocess(golden["postprocess_input"], load_pca(tmp_path / "pca.npz"))
    assert found.dtype == np.uint8
    # Truncated to a step: where the exact value is a rounding from the next, either is right.
    given, vectors, means = (
        golden[name].astype(np.float64)
        for name in ("postprocess_input", "pca_eigen_vectors", "pca_means")
    )
    terms = (given - means.reshape(-1))[:, np.newaxis] * vectors
    exact = (np.clip(terms.sum(axis=2), -2, 2) + 2) * (255 / 4)
    moved = sum_bound(terms, 2) * (255 / 4) + 4 * U32 * exact
    is_sure = np.floor(exact - moved) == np.floor(exact + moved)
    assert is_sure.mean() > 0.98
    np.testing.assert_array_equal(found[is_sure], golden["postprocess_output"][is_sure])
    assert_possible(found, golden["postprocess_output"], 1)


def test_clipped_and_truncated() -> None:
    pca = Pca(np.eye(128, dtype=np.float32), np.ones(128, np.float32))
    embeddings = np.ones((1, 128), np.float32)
    embeddings[0, :4] = 1 + np.array([-9, 9, 0.0, 0.5])
    assert postprocess(embeddings, pca)[0, :4].tolist() == [0, 255, 127, 159]
    assert postprocess(embeddings[:0], pca).shape == (0, 128)
    with pytest.raises(ValueError, match=r"\(128,\); expected \[n, 128\]"):
        postprocess(embeddings[0], pca)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("is_column", [False, True])
def test_read_back(tmp_path: Path, parameters: Any, save: Any, is_column: bool) -> None:
    stored = dict(parameters)
    if is_column:
        stored["pca_means"] = stored["pca_means"][:, np.newaxis]
    save(tmp_path / "a.npz", **stored)
    torch.save({k: torch.from_numpy(v) for k, v in stored.items()}, tmp_path / "a.pth")
    for name in ("a.npz", "a.pth"):
        pca = load_pca(tmp_path / name)
        np.testing.assert_array_equal(pca.eigen_vectors, parameters["pca_eigen_vectors"])
        np.testing.assert_array_equal(pca.means, parameters["pca_means"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pca_means": None}, "1 datasets missing, such as 'pca_means'"),
        ({"more": np.zeros(3)}, "1 unknown datasets, such as 'more'"),
        ({"pca_means": np.zeros(127, "f4")}, r"shape \(127,\), expected \(128,\)"),
        ({"pca_means": np.full(128, np.nan, "f4")}, "not finite in pca_means"),
        ({"pca_means": np.zeros(128, "i4")}, "not floats"),
        ({"pca_means": np.array([None] * 128)}, "holds object, not floats"),
    ],
)
def test_other_files_are_refused(
    tmp_path: Path, parameters: Any, change: Any, message: str
) -> None:
    stored = {k: v for k, v in (parameters | change).items() if v is not None}
    np.savez(tmp_path / "a.npz", **stored)
    with pytest.raises(WeightsError, match=message):
        load_pca(tmp_path / "a.npz")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04junk", b"text"])
def test_junk_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(WeightsError, match=r"a\.npz is not a readable \.npz file"):
        load_pca(tmp_path / "a.npz")
    with pytest.raises(WeightsError, match="no PCA parameters at"):
        load_pca(tmp_path / "absent.npz")
    (tmp_path / "a.h5").write_bytes(content)
    with pytest.raises(WeightsError, match="PCA parameters are"):
        load_pca(tmp_path / "a.h5")
