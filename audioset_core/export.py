"""Writes results so that a crash or a power cut leaves the old file or the new one, never half.

A file is written in full under a temporary name in its final folder, synced, renamed, and then
its folder is synced: only after that may a database row point to it. A failed sync is never
retried (the kernel may have dropped the pages: a second one would report success); the temporary
file goes and the error is raised.

Score matrices are `.npy` files, format 1.0, with their content in the name; labels of a whole
collection go to the JSON of earlier labelling tools, https://github.com/w-hc/torch_audioset.
"""

from __future__ import annotations

import errno
import io
import json
import os
import re
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, Literal

import numpy as np
import numpy.typing as npt

from audioset_core.categories import Category
from audioset_core.errors import AudioError, Reason, UserError

# Temporary files end in this, so that what a killed process leaves can be told and removed.
TEMP_SUFFIX = ".tmp"
SCORE_DTYPES = (np.dtype("<f2"), np.dtype("<f4"))
_BLOCK_VALUES = 2**18

_MAGIC = b"\x93NUMPY\x01\x00"
_HEADER = re.compile(
    rb"\{'descr': '(<f[24])', 'fortran_order': False, 'shape': \((\d{1,18}), (\d{1,18})\), \} *\n"
)
_JSON_BLOCK_BYTES = 2**20
_SHA256 = re.compile(r"[0-9a-f]{64}")
_SLUG = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_SEED_KEYS = frozenset({"id", "category_tsr_fname", "per_chunk_length", "meta"})

Kind = Literal["scores", "embeddings"]
"""What a result file holds; also the name of its folder."""

ScoreArray = npt.NDArray[np.floating[Any]]
Block = bytes | memoryview
"""A part of a file's content."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """One labelled clip in the JSON: `scores_file` is its `.npy`, `extra` holds further keys."""

    id: str
    scores_file: str
    patch_hop_s: float
    meta: Mapping[str, Any] | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)


def check_scores(array: npt.NDArray[Any], n_classes: int, kind: Kind = "scores") -> None:
    """Refuse what must not be stored.

    Shape:
        array: [n_patches, n_classes], float16 or float32, finite (embeddings: [n_patches, dim])

    Raises:
        AudioError: it is something else.
    """
    if array.dtype not in SCORE_DTYPES:
        raise _bad(kind, f"have the type {array.dtype}; allowed: float16, float32")
    if array.ndim != 2 or array.shape[1] != n_classes:
        raise _bad(kind, f"have the shape {array.shape}; expected [n_patches, {n_classes}]")
    if not is_finite(array):
        raise _bad(kind, "are not all finite (float16 holds up to 65504)")


def is_finite(array: npt.NDArray[Any]) -> bool:
    """Whether all values are; block by block, for the answers for ten hours would be 40 MB.

    Shape: ``[n, width]``
    """
    n_rows = max(1, _BLOCK_VALUES // max(1, array.shape[1]))
    return all(
        np.isfinite(array[first : first + n_rows]).all() for first in range(0, len(array), n_rows)
    )


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


def read_scores(path: Path, *, mmap: bool = False) -> ScoreArray:
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
    """Where the results of a clip lie: `<kind>/<model>/<2 hex>/<clip>-<16 hex>.npy`.

    The content is in the name, because the same clip may give other bytes on another device.

    Raises:
        ValueError: a part is no slug or no lower-case SHA-256; user text never gets into a path.
    """
    if not _SLUG.fullmatch(model_slug):
        raise ValueError(f"model {model_slug!r} is no slug: a-z, 0-9, '.', '_', '-', at most 64")
    for digest in (clip_sha256, npy_sha256):
        if not _SHA256.fullmatch(digest):
            raise ValueError(f"{digest!r} is no SHA-256 of 64 lower-case hex digits")
    name = f"{clip_sha256}-{npy_sha256[:16]}.npy"
    return PurePosixPath(kind, model_slug, clip_sha256[:2], name)


def write_atomically(path: Path, data: bytes) -> None:
    """Replace one file, durably; on any error the old file stays and no temporary is left.

    Raises:
        OSError: the disk is full, a sync failed, ...
    """
    write_many([(path, data)])


def write_many(items: Iterable[tuple[Path, bytes | Sequence[Block]]]) -> None:
    """Write several files, whole or in blocks, syncing each folder once; durable when it returns.

    On an error nothing temporary is left; files renamed before it stay, whole but not promised.

    Raises:
        OSError: the disk is full, a sync failed, ...
    """
    _write_streams((path, (data,) if isinstance(data, bytes) else data) for path, data in items)


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write, which takes the place of `path` once the block has ended without an error.

    Raises:
        OSError: the disk is full, a sync failed, ...; the old file stays.
    """
    _make_folder(path.parent)
    temp = path.with_name(f".{secrets.token_hex(8)}{TEMP_SUFFIX}")
    try:
        with temp.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temp.replace(path)
    except BaseException:
        temp.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def write_text(path: Path, texts: Iterable[str]) -> None:
    """Write a text in UTF-8, piece by piece, and put it in the place of `path`.

    Raises:
        OSError: the disk is full, a sync failed, ...; the old file stays.
    """
    with replacing(path) as file:
        for text in texts:
            file.write(text.encode())


def write_seed_json(
    path: Path, model: str, categories: Iterable[Category], predictions: Iterable[Prediction]
) -> None:
    """Write `{model, model_categories, predictions}`, one prediction a line, atomically.

    Predictions are streamed: a million need no more memory than one. `meta` is kept verbatim.

    Raises:
        UserError: a prediction's meta or extra keys are no JSON (NaN is none); the old file stays.
        OSError: the disk is full, a sync failed, ...
    """
    _write_streams([(path, _blocks(_seed_json_lines(model, categories, predictions)))])


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


def _write_streams(items: Iterable[tuple[Path, Iterable[Block]]]) -> None:
    """All temporaries written and synced, then all renamed, then each folder synced."""
    written: list[tuple[Path, Path]] = []
    try:
        for path, blocks in items:
            _make_folder(path.parent)
            temp = path.with_name(f".{secrets.token_hex(8)}{TEMP_SUFFIX}")
            descriptor = os.open(temp, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
            written.append((temp, path))
            try:
                for block in blocks:
                    _write_all(descriptor, block)
                os.fsync(descriptor)
            except OSError as error:
                error.filename = error.filename or str(path.parent)  # which disk is full
                raise
            finally:
                os.close(descriptor)
        for temp, path in written:
            temp.replace(path)
    except BaseException:
        for temp, _ in written:
            temp.unlink(missing_ok=True)
        raise
    for folder in dict.fromkeys(path.parent for _, path in written):
        _sync_folder(folder)


def _write_all(descriptor: int, block: Block) -> None:
    """os.write reports a full disk with its errno, which numpy's own writer does not."""
    rest = memoryview(block)
    while rest:
        n_bytes = os.write(descriptor, rest)
        if n_bytes == 0:
            raise OSError(errno.EIO, "nothing could be written")
        rest = rest[n_bytes:]


def _make_folder(folder: Path) -> None:
    """Like mkdir -p, but durable: a synced file in a folder that vanishes is lost all the same."""
    if folder.is_dir():
        return
    _make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    _sync_folder(folder.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _seed_json_lines(
    model: str, categories: Iterable[Category], predictions: Iterable[Prediction]
) -> Iterator[str]:
    listed = [{"name": category.name, "id": category.mid} for category in categories]
    yield f'{{"model": {json.dumps(model)},\n"model_categories": {json.dumps(listed)},\n'
    yield '"predictions": ['
    separator = "\n"
    for prediction in predictions:
        yield separator + _seed_json_entry(prediction)
        separator = ",\n"
    yield "\n]}\n"


def _seed_json_entry(prediction: Prediction) -> str:
    clashing = _SEED_KEYS & prediction.extra.keys()
    if clashing:
        raise UserError(f"clip {prediction.id!r}: extra key {min(clashing)!r} is already taken")
    entry = {
        "id": prediction.id,
        "category_tsr_fname": prediction.scores_file,
        "per_chunk_length": prediction.patch_hop_s,
        "meta": dict(prediction.meta or {}),
        **prediction.extra,
    }
    try:
        # ASCII escapes carry any text, also file names that are no UTF-8.
        return json.dumps(entry, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise UserError(
            f"clip {prediction.id!r}: meta or extra keys cannot be written as JSON ({error}); "
            "use text, finite numbers, booleans, null, lists and objects"
        ) from error


def _blocks(texts: Iterable[str]) -> Iterator[bytes]:
    """Join small texts into blocks worth a system call."""
    block = bytearray()
    for text in texts:
        block += text.encode("ascii")
        if len(block) >= _JSON_BLOCK_BYTES:
            yield bytes(block)
            block.clear()
    yield bytes(block)
