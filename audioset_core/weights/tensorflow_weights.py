"""Reads published weights a second time, for the reference, without our converter.

Arrays of any file get TensorFlow's names and axes: ``layer1/conv/kernel``,
``layer2/depthwise_conv/bn/beta``, ``vggish/conv1/weights``. Axes of PyTorch files are turned back.

Source: tensorflow/models, research/audioset; https://github.com/w-hc/torch_audioset and
https://github.com/harritaylor/torchvggish for the names in PyTorch files.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from audioset_core.arrays import F32
from audioset_core.errors import WeightsError
from audioset_core.weights.tensorflow_networks import load_tensorflow

# Modules of the PyTorch VGGish by TensorFlow's names; the head is not Google's, its names ours.
_VGGISH_TORCH = {
    "features.0": "conv1",
    "features.3": "conv2",
    "features.6": "conv3/conv3_1",
    "features.8": "conv3/conv3_2",
    "features.11": "conv4/conv4_1",
    "features.13": "conv4/conv4_2",
    "embeddings.0": "fc1/fc1_1",
    "embeddings.2": "fc1/fc1_2",
    "embeddings.4": "fc2",
    "classifier.0": "head/hidden",
    "classifier.2": "head/classes",
}
_BATCH_NORM_TORCH = {
    "bias": "beta",
    "weight": "gamma",
    "running_mean": "moving_mean",
    "running_var": "moving_variance",
}
# Where a variable's own name starts, after the scopes and groups that it was saved in: Keras
# writes "layer1/conv/bn/layer1/conv/bn/beta:0" into HDF5.
_NAME_STARTS = re.compile(r"(?<![^/])(layer\d+/|logits/|vggish/)")
# Later versions of yamnet.py leave the last layer's name to Keras, which counts.
_UNNAMED_LOGITS = re.compile(r"(?<![^/])dense(_\d+)?/")
# No array of a known model has more values; a malicious file may state any shape.
_MAX_VALUES = 1 << 28
# The entry of an object-based checkpoint that says which variable each entry is.
_OBJECT_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"


def read_weights(source: Path) -> dict[str, F32]:
    """Every array of a published file under TensorFlow's names and axes.

    Understands HDF5, TensorFlow checkpoints and SavedModels, and the PyTorch files of the
    predecessor (``yamnet.pth``) and of torchvggish, whose axes are turned back.

    Raises:
        WeightsError: the file is not readable in the format of its ending.
    """
    readers = {".h5": _read_h5, ".hdf5": _read_h5, ".pth": _read_torch, ".pt": _read_torch}
    reader = readers.get(source.suffix.lower(), _read_tensorflow)
    try:
        return reader(source)
    except WeightsError:
        raise
    except Exception as error:  # each library raises its own types for damage
        reason = " ".join(str(error).split())[:120]
        raise WeightsError(f"{source.name} is not a readable weights file: {reason}") from error


def model_of(weights: Mapping[str, F32]) -> str:
    """The model that the names belong to.

    Raises:
        WeightsError: neither YAMNet nor VGGish.
    """
    for name, known in (("yamnet", "layer1/conv/kernel"), ("vggish", "vggish/conv1/weights")):
        if known in weights:
            return name
    raise WeightsError("these weights have the names of neither YAMNet nor VGGish")


def _read_h5(source: Path) -> dict[str, F32]:
    import h5py

    found: dict[str, F32] = {}

    def keep(path: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            if item.external or item.is_virtual or item.size > _MAX_VALUES:
                raise WeightsError(f"{source.name}: {path} is not an array that weights hold")
            found[_plain_name(path)] = np.asarray(item, np.float32)

    with h5py.File(source, "r") as file:
        file.visititems(keep)
    return found


def _read_tensorflow(source: Path) -> dict[str, F32]:
    """A checkpoint, or the one inside a SavedModel; no graph is loaded."""
    tf = load_tensorflow()
    reader = tf.train.load_checkpoint(str(_checkpoint_prefix(source)))
    dtypes = reader.get_variable_to_dtype_map()
    names = {key: key for key in dtypes}
    if _OBJECT_GRAPH in names:
        names = _object_names(reader.get_tensor(_OBJECT_GRAPH))
    return {
        _plain_name(name): np.asarray(reader.get_tensor(key), np.float32)
        for key, name in names.items()
        if key in dtypes and dtypes[key].is_floating
    }


def _checkpoint_prefix(source: Path) -> Path:
    if not source.is_dir():
        return source.with_suffix("") if source.suffix == ".index" else source
    if (source / "saved_model.pb").exists():
        return source / "variables" / "variables"
    found = sorted(source.glob("*.index")) or sorted(source.glob("*.ckpt"))
    if len(found) != 1:
        raise WeightsError(f"{source} holds {len(found)} checkpoints: one is expected")
    return _checkpoint_prefix(found[0])


def _plain_name(path: str) -> str:
    path = _UNNAMED_LOGITS.sub("logits/", path)
    starts = [match.start() for match in _NAME_STARTS.finditer(path)]
    return path[starts[-1] if starts else 0 :].removesuffix(":0")


def _object_names(serialized: bytes) -> dict[str, str]:
    """Keys of an object-based checkpoint -> the variables' own names."""
    protocol: Any = importlib.import_module("tensorflow.core.protobuf.trackable_object_graph_pb2")
    graph = protocol.TrackableObjectGraph.FromString(serialized)
    return {
        value.checkpoint_key: value.full_name or value.checkpoint_key
        for node in graph.nodes
        for value in node.attributes
    }


def _read_torch(source: Path) -> dict[str, F32]:
    import torch

    state = torch.load(source, map_location="cpu", weights_only=True)
    if any(t.untyped_storage().nbytes() < t.numel() * t.element_size() for t in state.values()):
        raise WeightsError(f"{source.name} claims more values than it holds")
    arrays = {str(name): np.asarray(array.float().numpy()) for name, array in state.items()}
    if "features.0.weight" in arrays:
        return _from_torch_vggish(arrays)
    return _from_torch_yamnet(arrays)


def _from_torch_vggish(arrays: Mapping[str, F32]) -> dict[str, F32]:
    found: dict[str, F32] = {}
    for name, array in arrays.items():
        module, _, value = name.rpartition(".")
        if value == "weight" and module in _VGGISH_TORCH:
            found[f"vggish/{_VGGISH_TORCH[module]}/weights"] = _to_tensorflow_axes(array)
        elif value == "bias" and module in _VGGISH_TORCH:
            found[f"vggish/{_VGGISH_TORCH[module]}/biases"] = array
    return found


def _from_torch_yamnet(arrays: Mapping[str, F32]) -> dict[str, F32]:
    """The predecessor's names: ``layer1.fused.conv``, ``layer7.depthwise_conv.bn``, ..."""
    found = {
        "logits/kernel": arrays["classifier.weight"].T,
        "logits/bias": arrays["classifier.bias"],
    }
    for name, array in arrays.items():
        if name.startswith("classifier.") or name.endswith("num_batches_tracked"):
            continue
        layer, block, part, value = name.split(".")
        path = f"{layer}/{'conv' if block == 'fused' else block}"
        if part == "bn":
            found[f"{path}/bn/{_BATCH_NORM_TORCH[value]}"] = array
        elif block == "depthwise_conv":
            found[f"{path}/depthwise_kernel"] = np.ascontiguousarray(array.transpose(2, 3, 0, 1))
        else:
            found[f"{path}/kernel"] = _to_tensorflow_axes(array)
    return found


def _to_tensorflow_axes(array: F32) -> F32:
    """``[out, in, H, W]`` -> ``[H, W, in, out]``; ``[out, in]`` -> ``[in, out]``."""
    return np.ascontiguousarray(array.transpose((2, 3, 1, 0) if array.ndim == 4 else (1, 0)))
