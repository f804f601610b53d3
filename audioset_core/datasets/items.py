"""Reads and checks the items of a dataset, whose code is not ours.

Every item becomes an id, metadata and a decoder, or is refused with a reason.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from audioset_core.arrays import F32
from audioset_core.audio.mono import Decoder, StreamInfo, check_range, frames_per_block
from audioset_core.errors import AudioError, Reason, UserError

T_co = TypeVar("T_co", covariant=True)

_INT_SCALES = {np.dtype(np.int16): 2.0**-15, np.dtype(np.int32): 2.0**-31}


class ItemReason(StrEnum):
    """Why an item was not labelled, beside the reasons of `audioset_core.errors.Reason`."""

    RAISED = "the dataset raised an error"
    MALFORMED = "malformed item"
    DUPLICATE = "duplicate id"
    BAD_META = "meta is not JSON"


class MapDataset(Protocol[T_co]):
    """A dataset with a length and an index; torch calls it map-style."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> T_co: ...


class RefusedError(Exception):
    """An item that is not labelled; only for use in this package."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail


class ArrayDecoder(Decoder):
    """An item's waveform in place of a file's decoder: the same mixing and checks.

    Raises (from `__init__`):
        RefusedError, AudioError: unsupported data or sr.
    """

    def __init__(self, fields: Mapping[str, Any]) -> None:
        self._data = _array(fields["data"])
        n_channels, self.n_samples = self._data.shape
        rate_hz = _rate_hz(fields["sr"])
        self.info = StreamInfo("array", rate_hz, n_channels, self.n_samples)
        try:
            check_range(self.info)
        except AudioError as error:
            shape = f"data of shape {self._data.shape} is [channels, samples]"
            raise AudioError(error.reason, f"{error.detail}; {shape}") from None
        if not self.n_samples:
            raise AudioError(Reason.EMPTY, "data has no samples")

    def _raw_blocks(self) -> Iterator[F32]:
        want = frames_per_block(self.info.n_channels)
        scale = _INT_SCALES.get(self._data.dtype.newbyteorder("="))
        for start in range(0, self.n_samples, want):
            part = self._data[:, start : start + want].T
            with np.errstate(over="ignore"):  # infinity is refused later
                block: F32 = part.astype(np.float32, copy=False)
            yield block if scale is None else block * np.float32(scale)


def items_of(dataset: Any) -> tuple[Iterator[object], int | None]:
    """The items and their number; a map-style dataset continues after an error."""
    from torch.utils.data import IterableDataset

    if isinstance(dataset, (Mapping, str, bytes)):
        raise UserError(f"dataset: items are expected, not one {type(dataset).__name__}")
    has_length = hasattr(dataset, "__len__")
    # torch gives every dataset a __getitem__, also those that can only be iterated.
    if has_length and hasattr(dataset, "__getitem__") and not isinstance(dataset, IterableDataset):
        return _by_index(dataset, len(dataset)), len(dataset)
    if not hasattr(dataset, "__iter__"):
        raise UserError(
            f"dataset: {type(dataset).__name__} is neither an iterable nor has "
            "__len__ and __getitem__"
        )
    try:
        n_total = len(dataset) if has_length else None
    except TypeError:  # raised by torch's loaders over a stream
        n_total = None
    return _each(dataset), n_total


def fields_of(item: object) -> Mapping[str, Any]:
    """The fields of an item, read once, since the item may compute them."""
    if isinstance(item, _Raised):
        raise RefusedError(ItemReason.RAISED, one_line(item.error))
    if not isinstance(item, Mapping):
        raise RefusedError(
            ItemReason.MALFORMED, f"{type(item).__name__}, not a mapping with id, data and sr"
        )
    try:
        return dict(item)
    except Exception as error:  # the mapping's own code
        raise RefusedError(ItemReason.RAISED, one_line(error)) from error


def id_of(fields: Mapping[str, Any]) -> str:
    """The id; refuses an item without all required fields."""
    item_id = fields.get("id", "")
    if not isinstance(item_id, str):
        raise RefusedError(
            ItemReason.MALFORMED, f"id is {type(item_id).__name__}, not text: use str()"
        )
    missing = [name for name in ("id", "data", "sr") if name not in fields]
    if missing:
        raise RefusedError(ItemReason.MALFORMED, f"without {', '.join(missing)}")
    # In the form that JSON gives back: a surrogate pair and its character are the same id.
    text: str = json.loads(json.dumps(item_id))
    return text


def meta_of(fields: Mapping[str, Any]) -> str:
    """Meta as JSON text, made at once, since the dataset may change it later."""
    meta = fields.get("meta")
    if meta is None:
        return "{}"
    if not isinstance(meta, Mapping):
        raise RefusedError(ItemReason.BAD_META, f"{type(meta).__name__}, not an object")
    try:
        return json.dumps(dict(meta), allow_nan=False)
    except Exception as error:  # TypeError, ValueError, RecursionError, or the mapping's own
        raise RefusedError(ItemReason.BAD_META, one_line(error)) from error


def one_line(error: BaseException) -> str:
    """An error as one short line."""
    try:
        text = " ".join(str(error).split())
    except Exception:  # a broken __str__ of the dataset's own
        text = ""
    return f"{type(error).__name__}: {text}"[:200] if text else type(error).__name__


@dataclass(frozen=True, slots=True)
class _Raised:
    """What a map-style dataset raised in place of an item."""

    error: Exception


def _by_index(dataset: MapDataset[object], n_items: int) -> Iterator[object]:
    for index in range(n_items):
        try:
            item = dataset[index]
        except Exception as error:  # the dataset's own code may raise anything
            item = _Raised(error)
        yield item


def _each(dataset: Iterable[object]) -> Iterator[object]:
    # A generator: what iter() raises counts as raised by the iterator, too.
    yield from dataset


def _array(data: Any) -> NDArray[Any]:
    """Shape: ``[n_channels, n_samples]``, float, int16 or int32; a view where that is possible."""
    import torch

    if isinstance(data, torch.Tensor):
        try:
            tensor = data.detach().cpu()
            data = (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
        except Exception as error:  # sparse, quantised, without storage, ...
            raise RefusedError(ItemReason.MALFORMED, f"data: {one_line(error)}") from error
    if not isinstance(data, np.ndarray):
        raise RefusedError(
            ItemReason.MALFORMED, f"data is {type(data).__name__}, not an array or tensor"
        )
    if data.ndim != 2:
        raise RefusedError(
            ItemReason.MALFORMED, f"data has shape {data.shape}, not [channels, samples]"
        )
    if data.dtype.kind != "f" and data.dtype.newbyteorder("=") not in _INT_SCALES:
        raise RefusedError(
            ItemReason.MALFORMED, f"data is {data.dtype}; supported types: float, int16, int32"
        )
    return np.asarray(data)


def _rate_hz(rate: Any) -> int:
    try:
        if float(rate).is_integer():
            return int(rate)
    except Exception:  # noqa: S110 (None, text, a tensor of many: as a fraction, no rate)
        pass
    raise RefusedError(ItemReason.MALFORMED, f"sr is {str(rate)[:40]!r}, not a whole number of Hz")
