"""Published weights to safetensors, each layout by name, nothing unread and nothing guessed.

Layouts: YAMNet from Google's Keras ``yamnet.h5`` and from the predecessor's ``yamnet.pth``.
Reading HDF5 needs no TensorFlow. A weights file is somebody else's input: HDF5 links that
point elsewhere are refused, shapes are checked before anything is read, pickles never run.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audioset_core.errors import WeightsError
from audioset_core.export import write_atomically

Arrays = dict[str, NDArray[np.float32]]

_SUFFIXES = {".h5": "keras", ".hdf5": "keras", ".pth": "torch", ".pt": "torch"}


@dataclass(frozen=True, slots=True)
class _Target:
    """Where one published dataset goes: our name, our shape, and how it gets there."""

    name: str
    shape: tuple[int, ...]
    axes: tuple[int, ...] | None = None
    """Permutation from the published axes to ours; None keeps them."""

    @property
    def published_shape(self) -> tuple[int, ...]:
        if self.axes is None:
            return self.shape
        published = [0] * len(self.shape)
        for ours, theirs in enumerate(self.axes):
            published[theirs] = self.shape[ours]
        return tuple(published)

    def place(self, array: NDArray[Any]) -> NDArray[np.float32]:
        moved = array if self.axes is None else array.transpose(self.axes)
        with np.errstate(over="ignore"):  # infinity is refused by name, later
            return np.ascontiguousarray(moved, dtype=np.float32)


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def tensors_sha256(arrays: Mapping[str, NDArray[np.float32]]) -> str:
    """Digest of the values themselves: the same weights from any container agree."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name}{array.shape}{array.dtype.str}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def read_metadata(path: Path) -> dict[str, str]:
    """The metadata of a safetensors file, read without its tensors and without torch.

    Raises:
        WeightsError: not a safetensors file, or one that this project did not write.
    """
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 2 <= length <= 10_000_000:
                raise ValueError("header length")
            header = json.loads(file.read(length))
        metadata = header["__metadata__"]
        return {key: str(metadata[key]) for key in ("model", "version", "source_sha256")}
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise WeightsError(
            f"{path} is not a weights file made by 'audioset convert'; "
            f"give the published file (.h5 or .pth) instead"
        ) from error


def convert(source: Path, target: Path, *, model: str = "yamnet") -> dict[str, str]:
    """Read published weights, check them, write safetensors; returns the metadata.

    Raises:
        WeightsError: unknown layout, a missing, spare or misshapen dataset, or NaN values.
    """
    if not source.is_file():
        raise WeightsError(f"no weights file at {source}")
    arrays = load_published(source, model=model)
    metadata = {
        "model": model,
        "version": f"1-{tensors_sha256(arrays)[:12]}",
        "source_sha256": file_sha256(source),
        "source_name": source.name,
    }
    target.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(target, _safetensors(arrays, metadata))
    return metadata


def _safetensors(arrays: Arrays, metadata: dict[str, str]) -> bytes:
    """The file's bytes, always the same: safetensors itself writes metadata in random order."""
    from safetensors.numpy import save

    blob = save(dict(sorted(arrays.items())), metadata=metadata)
    end = 8 + int.from_bytes(blob[:8], "little")
    header = json.dumps(json.loads(blob[8:end]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + blob[end:]


def load_published(source: Path, *, model: str = "yamnet") -> Arrays:
    """State dict (our names and axes, float32) of a published weights file.

    Raises:
        WeightsError: as `convert`.
    """
    layout = _SUFFIXES.get(source.suffix.lower())
    reader = _READERS.get((model, layout or ""))
    if reader is None:
        known = ", ".join(sorted(_SUFFIXES))
        raise WeightsError(f"{source.name}: no {model} weights are known by that ending ({known})")
    arrays = reader(source)
    bad = sorted(name for name, array in arrays.items() if not np.isfinite(array).all())
    if bad:
        raise WeightsError(f"{source.name}: values that are not finite in {bad[0]}")
    return arrays


def _yamnet_keras_targets() -> dict[str, _Target]:
    """Every dataset of yamnet.h5 and its place in `audioset_core.yamnet.YAMNet`."""
    from audioset_core.yamnet import EMBEDDING_DIM, N_CLASSES, SEPARABLE_LAYERS

    targets: dict[str, _Target] = {}

    def convolution(block: str, kernel: str, name: str, target: _Target) -> None:
        targets[f"{block}/{block}/{kernel}:0"] = target
        for theirs, ours in _BATCH_NORM.items():
            targets[f"{block}/bn/{block}/bn/{theirs}:0"] = _Target(
                f"{name}.bn.{ours}", (target.shape[0],)
            )

    hwio, depthwise = (3, 2, 0, 1), (2, 3, 0, 1)
    convolution(
        "layer1/conv", "kernel", "layers.layer1",
        _Target("layers.layer1.conv.weight", (32, 1, 3, 3), hwio),
    )  # fmt: skip
    inputs = 32
    for index, (_, filters) in enumerate(SEPARABLE_LAYERS, 2):
        name = f"layers.layer{index}"
        convolution(
            f"layer{index}/depthwise_conv", "depthwise_kernel", f"{name}.depthwise_conv",
            _Target(f"{name}.depthwise_conv.conv.weight", (inputs, 1, 3, 3), depthwise),
        )  # fmt: skip
        convolution(
            f"layer{index}/pointwise_conv", "kernel", f"{name}.pointwise_conv",
            _Target(f"{name}.pointwise_conv.conv.weight", (filters, inputs, 1, 1), hwio),
        )  # fmt: skip
        inputs = filters
    targets["logits/logits/kernel:0"] = _Target(
        "classifier.weight", (N_CLASSES, EMBEDDING_DIM), (1, 0)
    )
    targets["logits/logits/bias:0"] = _Target("classifier.bias", (N_CLASSES,))
    return targets


_BATCH_NORM = {"beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}


def _yamnet_from_keras(source: Path) -> Arrays:
    return _with_unit_scale(_read_h5(source, _yamnet_keras_targets()))


def _yamnet_from_torch(source: Path) -> Arrays:
    """The predecessor's ``yamnet.pth``: same axes as ours, older names, batch-norm scale kept."""
    ours = {target.name: target for target in _yamnet_keras_targets().values()}
    targets: dict[str, _Target] = {}
    for name, target in ours.items():
        plain = name.removeprefix("layers.").replace("layer1.", "layer1.fused.")
        targets[plain] = _Target(name, target.shape)
        if name.endswith("bn.bias"):
            scale = _Target(name.replace("bn.bias", "bn.weight"), target.shape)
            targets[plain.replace("bn.bias", "bn.weight")] = scale
    state = {
        name: array
        for name, array in _read_torch(source).items()
        if not name.endswith("num_batches_tracked")
    }
    return _place(source, state, targets)


def _with_unit_scale(arrays: Arrays) -> Arrays:
    """TensorFlow's batch norm here has no scale: ours is one."""
    for name in [name for name in arrays if name.endswith("bn.bias")]:
        arrays[name.replace("bn.bias", "bn.weight")] = np.ones_like(arrays[name])
    return arrays


def _place(source: Path, published: Mapping[str, Any], targets: Mapping[str, _Target]) -> Arrays:
    """Each published dataset to its target, all of them, every shape checked before reading."""
    missing, spare = sorted(targets.keys() - published), sorted(published.keys() - targets)
    if missing or spare:
        found = f"{len(missing)} datasets missing" if missing else f"{len(spare)} unknown datasets"
        raise WeightsError(
            f"{source.name} is not the expected model: {found}, such as {(missing or spare)[0]!r}"
        )
    arrays: Arrays = {}
    for name, target in targets.items():
        shape = published[name].shape
        if shape is None or tuple(shape) != target.published_shape:
            raise WeightsError(
                f"{source.name}: {name} has shape {shape}, expected {target.published_shape}"
            )
        if published[name].dtype.kind != "f":
            raise WeightsError(f"{source.name}: {name} holds {published[name].dtype}, not floats")
        arrays[target.name] = target.place(np.asarray(published[name]))
    return arrays


def _read_h5(source: Path, targets: Mapping[str, _Target]) -> Arrays:
    import h5py

    try:
        with h5py.File(source, "r") as file:
            return _place(source, _h5_datasets(source, file), targets)
    except (OSError, RuntimeError, ValueError, KeyError) as error:  # h5py's answers to damage
        raise WeightsError(f"{source.name} is not a readable HDF5 file") from error


def _h5_datasets(source: Path, file: Any) -> dict[str, Any]:
    """Datasets of an HDF5 file by path, still unread; only plain hard links are followed."""
    import h5py

    datasets: dict[str, Any] = {}
    pending = [("", file)]
    while pending:
        prefix, group = pending.pop()
        for name in group:
            path = f"{prefix}{name}"
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                raise WeightsError(f"{source.name}: {path} is a link, which weights never hold")
            item = group[name]
            if isinstance(item, h5py.Group):
                if path.count("/") > 16:
                    raise WeightsError(f"{source.name}: groups nested too deep at {path}")
                pending.append((f"{path}/", item))
            elif not isinstance(item, h5py.Dataset):
                raise WeightsError(f"{source.name}: {path} is neither a group nor a dataset")
            elif item.external or item.is_virtual:
                raise WeightsError(f"{source.name}: {path} points to another file")
            else:
                datasets[path] = item
    return datasets


def _read_torch(source: Path) -> dict[str, NDArray[Any]]:
    import torch

    try:
        state = torch.load(source, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises a different type for each kind of damage
        reason = re.sub(r"\s+", " ", str(error))[:120]
        raise WeightsError(f"{source.name} is not a PyTorch state dict: {reason}") from error
    if not isinstance(state, dict) or not all(isinstance(v, torch.Tensor) for v in state.values()):
        raise WeightsError(f"{source.name} is not a PyTorch state dict")
    spare = sorted(str(name) for name, tensor in state.items() if tensor.is_sparse)
    if spare:
        raise WeightsError(f"{source.name}: {spare[0]} is a sparse tensor")
    return {
        str(name): (tensor.float() if tensor.is_floating_point() else tensor).detach().numpy()
        for name, tensor in state.items()
    }


_READERS: dict[tuple[str, str], Callable[[Path], Arrays]] = {
    ("yamnet", "keras"): _yamnet_from_keras,
    ("yamnet", "torch"): _yamnet_from_torch,
}
