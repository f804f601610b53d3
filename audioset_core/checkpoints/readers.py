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
# How files begin: they are often renamed. Of a safetensors file, eight bytes are a length.
_BEGINNINGS: tuple[tuple[re.Pattern[bytes], Kind], ...] = (
    (re.compile(rb"\x89HDF\r\n\x1a\n"), "h5"),
    (re.compile(rb"PK\x03\x04"), "torch"),
    (re.compile(rb"\x80\x02[\x8a}c]"), "torch"),
    (re.compile(rb"[\s\S]{6}\0\0\{\s*\""), "safetensors"),
)
# What failed downloads leave under the name of the weights.
_NOT_WEIGHTS = (
    (re.compile(rb"\Z"), "is empty"),
    (re.compile(rb"version https://git-lfs"), "is a Git LFS pointer, which stands for the file"),
    (re.compile(rb"\s*<"), "is a web page"),
    (re.compile(rb"\s*[{\[]\s*[\"{]"), "is a text in JSON, such as a site's message"),
)
_BEGINNING_BYTES = 64
_CUT = "its end is missing or damaged; fetch it again"
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
    begins = _beginning(path)
    found = (kind for pattern, kind in _BEGINNINGS if pattern.match(begins))
    kind = next(found, _SUFFIXES.get(path.suffix.lower()))
    if kind is None and _V1_CHECKPOINT.fullmatch(path.name):
        kind = "tensorflow"
    return Container(path, kind, (("", path),), path)


def not_weights(path: Path) -> str:
    """What a file is that a failed download left, as the end of a sentence; else empty.

    >>> not_weights(Path(__file__))
    ''
    """
    begins = _beginning(path) if path.is_file() else b"-"
    return next((what for pattern, what in _NOT_WEIGHTS if pattern.match(begins)), "")


@contextmanager
def open_container(container: Container) -> Iterator[Mapping[str, Stored]]:
    """The arrays by name, to be read inside the ``with`` block.

    Raises:
        WeightsError: damage, or something that weights never contain; also from within the block.
    """
    wrong = not_weights(container.path)
    if wrong:
        raise WeightsError(
            f"{container.path.name} {wrong}, not the weights: the download failed; fetch it again"
        )
    if container.kind is None:
        raise WeightsError(f"{container.path.name}: no weights are known by that ending")
    with _OPENERS[container.kind](container) as arrays:
        yield arrays


def _beginning(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_BEGINNING_BYTES)


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
    """A state dict, or a training checkpoint that holds one."""
    import torch

    source = container.path.name
    _check_archive(container.path)
    try:
        with torch.serialization.safe_globals(_plain_numpy()), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about types that are refused below
            loaded = torch.load(container.path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises a different type for each kind of damage
        raise WeightsError(f"{source} is not a PyTorch state dict: {_why(error)}") from error
    state = _state_dict(loaded, source)
    strange = sorted(
        str(n) for n, t in state.items() if t.layout is not torch.strided or t.is_quantized
    )
    if strange:
        raise WeightsError(f"{source}: {strange[0]} is a sparse or quantized tensor")
    for name, tensor in state.items():
        # A stride of 0 turns one value into terabytes at the first copy.
        if tensor.untyped_storage().nbytes() < tensor.numel() * tensor.element_size():
            raise WeightsError(f"{source}: {name} claims more values than the file holds")
    yield _as_float32(state)


def _check_archive(path: Path) -> None:
    """Refuse an archive that is cut or has a wrong check sum: torch loads zeros as weights."""
    import zipfile

    if not _beginning(path).startswith(b"PK"):
        return  # the older kind of file, which is no archive
    try:
        with zipfile.ZipFile(path) as archive:
            spoilt = archive.testzip()
    except zipfile.BadZipFile as error:
        raise WeightsError(f"{path.name} is not a PyTorch state dict: {_CUT}") from error
    except (OSError, ValueError, RuntimeError, NotImplementedError, EOFError) as error:
        raise WeightsError(f"{path.name} is not a PyTorch state dict: damaged") from error
    if spoilt:
        raise WeightsError(
            f"{path.name} is not a PyTorch state dict: {spoilt} in it is damaged; fetch it again"
        )


def _why(error: Exception) -> str:
    """Why torch cannot load a file, without its advice to run what is in there."""
    text = re.sub(r"\s+", " ", str(error))
    unknown = re.search(r"Unsupported (?:global|class|operand)[:\s]+(?:GLOBAL )?([\w.]+)", text)
    if unknown:
        return (
            f"it holds a Python object ({unknown[1]}), and reading one would run its code; save "
            f"the arrays alone with torch.save(model.state_dict(), FILE)"
        )
    if "TorchScript" in text:
        return "it is a TorchScript program; save its state_dict() instead"
    if "EOF" in f"{type(error).__name__}: {text}":
        return _CUT
    return "damaged, or another kind of file"


def _state_dict(loaded: Any, source: str) -> Mapping[str, Any]:
    """The one set of tensors in what a file holds; training checkpoints keep it under a name.

    Raises:
        WeightsError: no set, or several: an averaged one beside it has other scores.
    """
    import torch

    def is_set(value: Any) -> bool:
        return isinstance(value, dict) and all(isinstance(v, torch.Tensor) for v in value.values())

    if is_set(loaded):
        return dict(loaded)
    entries = loaded.items() if isinstance(loaded, dict) else ()
    sets = {str(name): value for name, value in entries if is_set(value) and value}
    if len(sets) > 1:
        raise WeightsError(f"{source} holds several sets of weights ({', '.join(sets)}): save one")
    if not sets:
        raise WeightsError(f"{source} is not a PyTorch state dict")
    return next(iter(sets.values()))


def _as_float32(state: Mapping[str, Any]) -> dict[str, Stored]:
    """Tensors as arrays; floats of any width in float32."""
    return {
        str(name): (tensor.float() if tensor.is_floating_point() else tensor).detach().numpy()
        for name, tensor in state.items()
    }


@contextmanager
def _open_safetensors(container: Container) -> Iterator[Mapping[str, Stored]]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file  # numpy has no bfloat16

    try:
        arrays = _as_float32(load_file(container.path))
    except (SafetensorError, OSError, KeyError, ValueError, TypeError, AttributeError) as error:
        # The last three: a type of number that is not known here.
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
