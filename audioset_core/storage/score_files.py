"""Score matrices: `.npy` files, format 1.0, with their content in the name."""

from __future__ import annotations

import hashlib
import io
import os
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, Literal

import numpy as np
import numpy.typing as npt

from audioset_core.arrays import Floats, row_blocks
from audioset_core.errors import AudioError, Reason

SCORE_DTYPES = (np.dtype("<f2"), np.dtype("<f4"))
_BLOCK_VALUES = 2**18

_MAGIC = b"\x93NUMPY\x01\x00"
_HEADER = re.compile(
    rb"\{'descr': '(<f[24])', 'fortran_order': False, 'shape': \((\d{1,18}), (\d{1,18})\), \} *\n"
)
_SHA256 = re.compile(r"[0-9a-f]{64}")
_SLUG = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
SLUG_RULE = "a-z, 0-9, '.', '_', '-', at most 64"

Kind = Literal["scores", "embeddings"]
"""What a result file holds; also the name of its folder."""


def check_scores(array: npt.NDArray[Any], n_classes: int, kind: Kind = "scores") -> None:
    """Refuse arrays that must not be stored.

    Shape:
        array: [n_patches, n_classes], float16 or float32, finite (embeddings: [n_patches, dim])

    Raises:
        AudioError: another type or shape, or values that are not finite.
    """
    if array.dtype not in SCORE_DTYPES:
        raise _bad(kind, f"have the type {array.dtype}; allowed: float16, float32")
    if array.ndim != 2 or array.shape[1] != n_classes:
        raise _bad(kind, f"have the shape {array.shape}; expected [n_patches, {n_classes}]")
    if not is_finite(array):
        raise _bad(kind, "are not all finite (float16 holds up to 65504)")


def is_finite(array: npt.NDArray[Any]) -> bool:
    """Whether all values are finite; block by block, as a mask for ten hours would take 40 MB.

    Shape: ``[n, width]``
    """
    return all(np.isfinite(rows).all() for _, rows in row_blocks(array, _BLOCK_VALUES))


def npy_blocks(array: npt.NDArray[Any]) -> tuple[bytes, memoryview]:
    """The array as an `.npy` file: format 1.0, C order, little-endian, never pickled; in two parts.

    The second is the array's own memory wherever that is possible: ten hours of scores are 80 MB.

    Raises:
        ValueError: the array holds Python objects.
    """
    # A type with a byte order makes every platform write the same bytes.
    portable = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    if portable.dtype.hasobject:
        raise ValueError("Python objects are not written: that would need a pickle")
    header = io.BytesIO()
    described = np.lib.format.header_data_from_array_1_0(portable)
    np.lib.format.write_array_header_1_0(header, described)
    return header.getvalue(), portable.reshape(-1).view(np.uint8).data


def npy_bytes(array: npt.NDArray[Any]) -> bytes:
    """As `npy_blocks`, in one piece."""
    return b"".join(npy_blocks(array))


@dataclass(frozen=True, slots=True)
class NewFile:
    """A result file that is still to be written; `path` is relative to the home."""

    path: str
    sha256: str
    blocks: tuple[bytes, memoryview]


def new_file(
    array: npt.NDArray[Any], model_slug: str, clip_sha256: str, kind: Kind = "scores"
) -> NewFile:
    """The array as the file that it will be.

    Raises:
        ValueError: as `npy_blocks` and `scores_path`.
    """
    blocks = npy_blocks(array)
    hashed = hashlib.sha256()
    for block in blocks:
        hashed.update(block)
    digest = hashed.hexdigest()
    return NewFile(str(scores_path(model_slug, clip_sha256, digest, kind)), digest, blocks)


def read_scores(path: Path, *, mmap: bool = False) -> Floats:
    """Scores from an `.npy` file; `mmap` reads rows only as they are used.

    The size of the file is compared with its header before anything is allocated.

    Raises:
        FileNotFoundError: there is no such file.
        AudioError: the file is damaged, or holds no score matrix.
    """
    with path.open("rb") as file:
        shape, dtype = _read_header(file, path)
        offset, size_bytes = file.tell(), os.fstat(file.fileno()).st_size
        expected_bytes = offset + shape[0] * shape[1] * dtype.itemsize
        if size_bytes != expected_bytes:
            raise _bad_file(path, f"{size_bytes} bytes long, its header says {expected_bytes}")
        if mmap and expected_bytes > offset:
            return np.memmap(file, dtype=dtype, mode="r", offset=offset, shape=shape)
        return np.fromfile(file, dtype=dtype).reshape(shape)


def scores_path(
    model_slug: str, clip_sha256: str, npy_sha256: str, kind: Kind = "scores"
) -> PurePosixPath:
    """The path of a clip's results: `<kind>/<model>/<2 hex>/<clip>-<16 hex>.npy`.

    A digest of the content is in the name, as the same clip may give other bytes on another device.

    >>> str(scores_path("yamnet-1", "ab" * 32, "cd" * 32))[:24]
    'scores/yamnet-1/ab/ababa'

    Raises:
        ValueError: a part is not a slug or not a lower-case SHA-256; no user text gets into a path.
    """
    if not is_slug(model_slug):
        raise ValueError(f"model {model_slug!r} is not a slug: {SLUG_RULE}")
    for digest in (clip_sha256, npy_sha256):
        if not _SHA256.fullmatch(digest):
            raise ValueError(f"{digest!r} is not a SHA-256 of 64 lower-case hex digits")
    name = f"{clip_sha256}-{npy_sha256[:16]}.npy"
    return PurePosixPath(kind, model_slug, clip_sha256[:2], name)


def is_slug(text: str) -> bool:
    """Whether a model may have this name, which is the name of a folder.

    >>> is_slug("both-2"), is_slug("../Both")
    (True, False)
    """
    return _SLUG.fullmatch(text) is not None


def _bad(kind: Kind, what: str) -> AudioError:
    return AudioError(Reason.INTERNAL, f"the {kind} {what}")


def _bad_file(path: Path, what: str) -> AudioError:
    return AudioError(Reason.INTERNAL, f"scores file {path} is {what}; label the clip again")


def _read_header(file: BinaryIO, path: Path) -> tuple[tuple[int, int], np.dtype[Any]]:
    """Only what `npy_bytes` writes: numpy's own parser evaluates the header as Python."""
    is_npy = file.read(len(_MAGIC)) == _MAGIC
    header = _HEADER.fullmatch(file.read(int.from_bytes(file.read(2), "little")))
    if not is_npy or not header:
        raise _bad_file(path, "no .npy file with a score matrix")
    dtype, n_patches, n_classes = header.groups()
    return (int(n_patches), int(n_classes)), np.dtype(dtype.decode())
