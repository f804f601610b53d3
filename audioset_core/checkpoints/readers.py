"""Reads the containers in which weights are published, without executing anything in them.

HDF5, PyTorch state dicts, TensorFlow checkpoints (V1 and V2) and SavedModels. A weights
file is not trusted: HDF5 links that point elsewhere are refused, pickles are never run, and of a
SavedModel only the variables are read, never its graph. TensorFlow is needed for its own
two formats only, and imported when one is opened.

Source: https://www.tensorflow.org/guide/saved_model,
https://github.com/tensorflow/tensorflow/blob/master/tensorflow/core/protobuf/trackable_object_graph.proto
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from audioset_core.errors import WeightsError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Kind = Literal["h5", "torch", "safetensors", "tensorflow"]

ENDINGS = ".ckpt, .h5, .hdf5, .index, .pt, .pth, .safetensors, or the folder of a SavedModel"

_SUFFIXES: dict[str, Kind] = {
    ".h5": "h5", ".hdf5": "h5", ".pth": "torch", ".pt": "torch", ".safetensors": "safetensors",
}  # fmt: skip
_V1_CHECKPOINT = re.compile(r".*\.ckpt(-\d+)?")
_OBJECT_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"
_MAX_GROUP_DEPTH = 16
_NO_TENSORFLOW = (
    "TensorFlow is needed to read this format; install it with: "
    "pip install 'audioset-flows[convert]'"
)


class Stored(Protocol):
    """An array that is still in its file: shape and type are known, values are read on request."""

    @property
    def shape(self) -> tuple[int, ...] | None: ...  # noqa: D102
    @property
    def dtype(self) -> np.dtype[Any]: ...  # noqa: D102
    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]: ...


@dataclass(frozen=True, slots=True)
class Container:
    """Published weights on disk. ``kind`` is None where the ending is unknown."""

    path: Path
    kind: Kind | None
    files: tuple[tuple[str, Path], ...]
    """Every file that belongs to it, by a name that does not depend on its folder."""
    prefix: Path
    """The argument for TensorFlow's reader; for other kinds the file."""


def find_container(path: Path) -> Container | None:
    """The weights at the path; None if there are none.

    A file, a SavedModel's folder, or a checkpoint by its prefix, its ``.index`` file or the
    folder that holds it alone.

    Raises:
        WeightsError: a folder with several checkpoints, or one that cannot be read.
    """
    try:
        return _container(path)
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror}") from error


def _container(path: Path) -> Container | None:
    if path.is_dir():
        return _in_folder(path)
    if path.suffix == ".index" and path.is_file():
        return _v2_checkpoint(path, path.with_suffix(""))
    if not path.is_file():
        index = path.with_name(path.name + ".index")
        return _v2_checkpoint(path, path) if index.is_file() else None
    kind = _SUFFIXES.get(path.suffix.lower())
    if kind is None and _V1_CHECKPOINT.fullmatch(path.name):
        kind = "tensorflow"
    return Container(path, kind, (("", path),), path)


@contextmanager
def open_container(container: Container) -> Iterator[Mapping[str, Stored]]:
    """The arrays by name, to be read inside the ``with`` block.

    Raises:
        WeightsError: damage, or something that weights never contain; also from within the block.
    """
    if container.kind is None:
        raise WeightsError(f"{container.path.name}: no weights are known by that ending")
    with _OPENERS[container.kind](container) as arrays:
        yield arrays


def _in_folder(folder: Path) -> Container | None:
    if (folder / "saved_model.pb").is_file():
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        named = tuple((path.relative_to(folder).as_posix(), path) for path in files)
        return Container(folder, "tensorflow", named, folder / "variables" / "variables")
    found = sorted(
        path
        for path in folder.iterdir()
        if path.is_file() and (path.suffix == ".index" or _V1_CHECKPOINT.fullmatch(path.name))
    )
    if len(found) > 1:
        raise WeightsError(f"{folder} holds several checkpoints: give one, such as {found[0]}")
    return _container(found[0]) if found else None


def _v2_checkpoint(path: Path, prefix: Path) -> Container:
    shard = re.compile(re.escape(prefix.name) + r"\.(index|data-\d{5}-of-\d{5})")
    files = sorted(file for file in prefix.parent.iterdir() if shard.fullmatch(file.name))
    named = tuple((file.name.removeprefix(prefix.name), file) for file in files)
    return Container(path, "tensorflow", named, prefix)


@contextmanager
def _open_h5(container: Container) -> Iterator[Mapping[str, Stored]]:
    import h5py

    try:
        with h5py.File(container.path, "r") as file:
            yield _h5_datasets(container.path.name, file)
    except (OSError, RuntimeError, ValueError, KeyError) as error:  # what h5py raises for damage
        raise WeightsError(f"{container.path.name} is not a readable HDF5 file") from error


def _h5_datasets(source: str, file: Any) -> dict[str, Stored]:
    """Datasets of an HDF5 file by path, still unread; only plain hard links are followed."""
    import h5py

    datasets: dict[str, Stored] = {}
    if not isinstance(file["/"], h5py.Group):  # h5py does not check that
        raise ValueError("the root is no group")
    pending = [("", file)]
    while pending:
        prefix, group = pending.pop()
        for name in group:
            path = f"{prefix}{name}"
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                raise WeightsError(f"{source}: {path} is a link, which weights never hold")
            item = group[name]
            if isinstance(item, h5py.Group):
                if path.count("/") > _MAX_GROUP_DEPTH:
                    raise WeightsError(f"{source}: groups nested too deep at {path}")
                pending.append((f"{path}/", item))
            elif not isinstance(item, h5py.Dataset):
                raise WeightsError(f"{source}: {path} is neither a group nor a dataset")
            elif item.external or item.is_virtual:
                raise WeightsError(f"{source}: {path} points to another file")
            else:
                datasets[path] = item
    return datasets


@contextmanager
def _open_torch(container: Container) -> Iterator[Mapping[str, Stored]]:
    """A state dict, or a training checkpoint that holds one as ``model``."""
    import torch

    source = container.path.name
    try:
        with torch.serialization.safe_globals(_plain_numpy()):
            state = torch.load(container.path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises a different type for each kind of damage
        reason = re.sub(r"\s+", " ", str(error))[:120]
        raise WeightsError(f"{source} is not a PyTorch state dict: {reason}") from error
    if isinstance(state, dict) and isinstance(state.get("model"), dict):
        state = state["model"]
    if not isinstance(state, dict) or not all(isinstance(v, torch.Tensor) for v in state.values()):
        raise WeightsError(f"{source} is not a PyTorch state dict")
    strange = sorted(str(n) for n, t in state.items() if t.layout is not torch.strided)
    if strange:
        raise WeightsError(f"{source}: {strange[0]} is a sparse tensor")
    for name, tensor in state.items():
        # A stride of 0 turns one value into terabytes at the first copy.
        if tensor.untyped_storage().nbytes() < tensor.numel() * tensor.element_size():
            raise WeightsError(f"{source}: {name} claims more values than the file holds")
    yield {
        str(name): (tensor.float() if tensor.is_floating_point() else tensor).detach().numpy()
        for name, tensor in state.items()
    }


@contextmanager
def _open_safetensors(container: Container) -> Iterator[Mapping[str, Stored]]:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        arrays: Mapping[str, Any] = load_file(container.path)
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        # KeyError: a type of number that numpy does not have.
        raise WeightsError(f"{container.path.name} is not a readable safetensors file") from error
    yield arrays


def _plain_numpy() -> list[Any]:
    """The classes of plain numpy arrays, which PANNs' files have beside weights; none runs code.

    They are listed by the names that numpy 1 and numpy 2 pickle them under.
    """
    import numpy as np

    rebuild = np._core.multiarray._reconstruct  # type: ignore[attr-defined]
    return [
        np.ndarray,
        np.dtype,
        *(type(np.dtype(code)) for code in ("b1", "i1", "i2", "i4", "i8", "f4", "f8")),
        (rebuild, "numpy.core.multiarray._reconstruct"),
        (rebuild, "numpy._core.multiarray._reconstruct"),
    ]


@contextmanager
def _open_tensorflow(container: Container) -> Iterator[Mapping[str, Stored]]:
    with _quiet():
        try:
            from tensorflow.core.protobuf.trackable_object_graph_pb2 import TrackableObjectGraph
            from tensorflow.train import load_checkpoint
        except ImportError as error:
            raise WeightsError(f"{container.path.name}: {_NO_TENSORFLOW}") from error
        try:
            reader = load_checkpoint(os.fspath(container.prefix))
            names = {name: name for name in reader.get_variable_to_shape_map()}
            if names.pop(_OBJECT_GRAPH, None):
                graph = TrackableObjectGraph.FromString(reader.get_tensor(_OBJECT_GRAPH))
                names = _variable_names(container.path.name, graph, names)
            yield {name: _tf_variable(reader, key) for name, key in names.items()}
        except WeightsError:
            raise
        except Exception as error:  # TensorFlow has an exception per kind of damage
            raise WeightsError(
                f"{container.path.name} is not a readable TensorFlow checkpoint"
            ) from error


def _variable_names(source: str, graph: Any, keys: Mapping[str, str]) -> dict[str, str]:
    """Variables by their own name; object-based checkpoints have them by their place in a graph."""
    names: dict[str, str] = {}
    for node in graph.nodes:
        for attribute in node.attributes:
            key, name = attribute.checkpoint_key, attribute.full_name
            if key in keys and names.setdefault(name or key, key) != key:
                raise WeightsError(f"{source}: two variables are called {name}")
    unnamed = sorted(keys.keys() - names.values())
    return names | {key: key for key in unnamed}


@dataclass(frozen=True, slots=True)
class _TensorFlowVariable:
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    reader: Any
    key: str

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        del copy  # always fresh
        import numpy as np

        return np.asarray(self.reader.get_tensor(self.key), dtype)


def _tf_variable(reader: Any, key: str) -> Stored:
    import numpy as np

    shape = tuple(reader.get_variable_to_shape_map()[key])
    dtype = np.dtype(reader.get_variable_to_dtype_map()[key].as_numpy_dtype)
    return _TensorFlowVariable(shape, dtype, reader, key)


@contextmanager
def _quiet() -> Iterator[None]:
    """TensorFlow without its start-up messages and its warnings about its own code."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


_OPENERS: dict[Kind, Any] = {
    "h5": _open_h5,
    "torch": _open_torch,
    "safetensors": _open_safetensors,
    "tensorflow": _open_tensorflow,
}
