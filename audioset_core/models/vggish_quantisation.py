"""VGGish's 8-bit embeddings: whitening by PCA, clipping, quantisation, as released with AudioSet.

Source: tensorflow/models, research/audioset/vggish/vggish_postprocess.py and vggish_params.py;
the parameters are https://storage.googleapis.com/audioset/vggish_pca_params.npz.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from audioset_core.checkpoints.layouts import Layout, Target
from audioset_core.checkpoints.readers import find_container, open_container
from audioset_core.errors import WeightsError

F32 = NDArray[np.float32]

# Source: vggish_params.py.
EMBEDDING_DIM = 128
QUANTIZE_MIN, QUANTIZE_MAX = -2.0, 2.0
_STEPS = 255.0

_EIGEN_VECTORS, _MEANS = "pca_eigen_vectors", "pca_means"


@dataclass(frozen=True, slots=True)
class Pca:
    """Whitening parameters. Shape: eigen_vectors ``[128, 128]`` by rows, means ``[128]``."""

    eigen_vectors: F32
    means: F32


def load_pca(path: Path) -> Pca:
    """Read the published parameters, ``.npz`` or the PyTorch port's ``.pth``.

    Raises:
        WeightsError: no such file, damage, other arrays than these two, or values not finite.
    """
    container = find_container(path)
    if container is None:
        raise WeightsError(f"no PCA parameters at {path}")
    if container.kind not in ("npz", "torch"):
        raise WeightsError(f"{path.name}: PCA parameters are a .npz or .pth file")
    with open_container(container) as stored:
        # Google's means are a column in some copies and a row of numbers in others.
        column = _MEANS in stored and len(stored[_MEANS].shape or ()) == 2
        shapes = {
            _EIGEN_VECTORS: (EMBEDDING_DIM, EMBEDDING_DIM),
            _MEANS: (EMBEDDING_DIM, 1) if column else (EMBEDDING_DIM,),
        }
        targets = {name: Target(name, shape) for name, shape in shapes.items()}
        arrays = Layout(kind=container.kind, targets=targets).place(stored, path.name)
    bad = sorted(name for name, array in arrays.items() if not np.isfinite(array).all())
    if bad:
        raise WeightsError(f"{path.name}: values that are not finite in {bad[0]}")
    return Pca(arrays[_EIGEN_VECTORS], arrays[_MEANS].reshape(-1))


def postprocess(embeddings: F32, pca: Pca) -> NDArray[np.uint8]:
    """Whitened and quantised embeddings: ``E (x - mu)``, clipped, in 255 steps, truncated.

    Shape:
        ``[n_patches, 128]`` float32 -> ``[n_patches, 128]`` uint8.

    Raises:
        ValueError: another shape.
    """
    if embeddings.ndim != 2 or embeddings.shape[1] != EMBEDDING_DIM:
        raise ValueError(f"embeddings have the shape {embeddings.shape}; expected [n, 128]")
    whitened = (embeddings - pca.means) @ pca.eigen_vectors.T
    clipped = np.clip(whitened, QUANTIZE_MIN, QUANTIZE_MAX)
    steps = (clipped - QUANTIZE_MIN) * (_STEPS / (QUANTIZE_MAX - QUANTIZE_MIN))
    quantised: NDArray[np.uint8] = steps.astype(np.uint8)
    return quantised
