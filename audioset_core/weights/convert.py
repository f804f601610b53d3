"""Published weights to safetensors: every array is matched by its name, and none is left over.

The layouts are those of the models' modules, the files are read by
`audioset_core.checkpoints.readers`. Reading HDF5 and PyTorch files needs no TensorFlow.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from audioset_core.checkpoints.readers import (
    ENDINGS,
    Container,
    Stored,
    find_container,
    open_container,
)
from audioset_core.errors import WeightsError
from audioset_core.models.registry import BUNDLES
from audioset_core.storage.atomic_files import write_atomically

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from audioset_core.checkpoints.layouts import Arrays, Layout

_DAMAGE = (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError)
METADATA_KEYS = ("model", "version", "source_sha256")
"""Keys in every converted file. Older files lack ``has_scores``: they have a classifier head."""


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex.

    For a checkpoint or SavedModel, of its files' names and digests, whatever its folder and the
    checkpoint's prefix.

    Raises:
        OSError: it cannot be read.
    """
    container = find_container(path)
    if container is None or len(container.files) == 1:
        return _sha256(path if container is None else container.files[0][1])
    lines = [f"{_sha256(file)}  {name}\n" for name, file in container.files]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def tensors_sha256(arrays: Mapping[str, NDArray[Any]]) -> str:
    """Digest of the values: equal for the same weights from any container."""
    import numpy as np

    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name}{array.shape}{array.dtype.str}".encode())
        digest.update(array.data)
    return digest.hexdigest()


def read_metadata(path: Path) -> dict[str, str]:
    """The metadata of a safetensors file, read without its tensors.

    By hand, since safetensors' own reader imports numpy or torch, which `audioset models` needs
    for nothing else.

    Keys: ``model``, ``version``, ``source_sha256`` and ``has_scores`` ("true" or "false").

    Raises:
        WeightsError: not a safetensors file, or not written by this project.
    """
    try:
        metadata = _stated(path)
        found = {key: str(metadata[key]) for key in METADATA_KEYS}
        found["has_scores"] = str(metadata.get("has_scores", "true"))
        if found["has_scores"] not in ("true", "false"):
            raise ValueError("has_scores")
        return found
    except _DAMAGE as error:
        raise WeightsError(
            f"{path} is not a weights file made by 'audioset convert'; "
            f"give the published file (.h5 or .pth) instead"
        ) from error


def is_converted(path: Path) -> bool:
    """Whether this project wrote the safetensors file, or it is damaged, which its reader says.

    Others publish weights in the format too.
    """
    try:
        return set(METADATA_KEYS) <= _stated(path).keys()
    except _DAMAGE:
        return True


def _stated(path: Path) -> dict[str, Any]:
    """The metadata of a safetensors file; raises one of `_DAMAGE`."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= 10_000_000:
            raise ValueError("header length")
        header = json.loads(file.read(length))
    return dict(header.get("__metadata__", {}))


def convert(source: Path, target: Path, *, model: str | None = None) -> dict[str, str]:
    """Read published weights, check them, write safetensors; returns the metadata.

    ``source`` is a file, a SavedModel's folder, or a checkpoint's prefix, ``.index`` or folder.
    ``model`` None: the names in the file say which it is.

    Raises:
        WeightsError: an unknown layout, an array that is missing, unknown or misshapen, or NaN.
    """
    model, layout, arrays = _load(source, model)
    metadata = {
        "model": model,
        "version": f"1-{tensors_sha256(arrays)[:12]}",
        "has_scores": "true" if layout.has_scores else "false",
        "source_sha256": file_sha256(source),
        "source_name": source.name,
    }
    target.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(target, safetensors_bytes(arrays, metadata))
    return metadata


def load_published(source: Path, *, model: str | None = None) -> Arrays:
    """State dict (our names and axes, float32) of published weights.

    Raises:
        WeightsError: as `convert`.
    """
    return _load(source, model)[2]


def _load(source: Path, model: str | None) -> tuple[str, Layout, Arrays]:
    import numpy as np

    container = find_container(source)
    if container is None:
        raise WeightsError(f"no weights file at {source}")
    candidates = _candidates(container, model)
    if not candidates:
        raise WeightsError(
            f"{source.name}: no {f'{model} ' if model else ''}weights are known by that ending "
            f"({ENDINGS})"
        )
    with open_container(container) as published:
        found, layout = _fitting(candidates, published, model, source)
        arrays = layout.place(layout.named(published, source.name), source.name, found)
    bad = sorted(name for name, array in arrays.items() if not np.isfinite(array).all())
    if bad:
        raise WeightsError(f"{source.name}: values that are not finite in {bad[0]}")
    return found, layout, arrays


def _candidates(container: Container, model: str | None) -> list[tuple[str, Layout]]:
    """The layouts for that kind of file; none if the wanted model has none."""
    found = [
        (name, layout)
        for name, bundle in BUNDLES.items()
        for layout in (bundle.layouts() if container.kind else ())
        if layout.fits(container.kind)
    ]
    return found if model is None or any(name == model for name, _ in found) else []


def _fitting(
    candidates: list[tuple[str, Layout]],
    published: Mapping[str, Stored],
    model: str | None,
    source: Path,
) -> tuple[str, Layout]:
    """The layout that fits the names and shapes in the file best; of ``model``, if one is given.

    Raises:
        WeightsError: the file has another model, no known model, or could be several.
    """
    misfits = [
        (layout.n_misfits(layout.named(published, source.name)), name, layout)
        for name, layout in candidates
    ]
    least = min(misfit for misfit, _, _ in misfits)
    fitting: dict[str, Layout] = {}
    for misfit, name, layout in misfits:
        if misfit == least:
            fitting.setdefault(name, layout)
    nearest = next(iter(fitting))
    is_known = least[0] <= len(fitting[nearest].expected) / 2
    if least == (0, 0):
        nearest = _identified(tuple(fitting), model, source)
    elif model is None and not is_known:
        known = ", ".join(BUNDLES)
        raise WeightsError(f"{source.name} has none of the known models: {known}")
    if model is None or model in fitting:
        return model or nearest, fitting[model or nearest]
    if is_known:
        state = "holds" if least == (0, 0) else "is nearest to"
        raise WeightsError(f"{source.name} {state} {nearest} weights, not {model}")
    own = [entry for entry in misfits if entry[1] == model]
    return model, min(own, key=lambda entry: entry[0])[2]


def _identified(fitting: tuple[str, ...], model: str | None, source: Path) -> str:
    """Which of the models whose arrays are in the file; the given one, if it is among them.

    Models of one family may differ in the front end alone: then the digest of a published
    file, or the file's name, tells which it is. Only a longer name contradicts a model that is
    given: ``mn10_as_hop_5_...`` is not mn10.

    Raises:
        WeightsError: the file is another of them than the given one, or could be several.
    """
    if len(fitting) == 1:
        return fitting[0]
    stated, is_proven = _as_published(fitting, source)
    if model is None and stated is None:
        raise WeightsError(
            f"{source.name} could be {', '.join(fitting)}, whose arrays are alike: name one with "
            f"--model"
        )
    if model is None or model not in fitting:
        return stated or fitting[0]
    if stated and (model != stated if is_proven else not model.startswith(stated)):
        by_name = "" if is_proven else ", by its name: rename the file if that is wrong"
        raise WeightsError(f"{source.name} holds {stated} weights, not {model}{by_name}")
    return model


def _as_published(models: tuple[str, ...], source: Path) -> tuple[str | None, bool]:
    """Which of the models the file is by its digest (proven), or by the begin of its name."""
    digest = file_sha256(source)
    for name in models:
        official = BUNDLES[name].official
        if official is not None and official.sha256 == digest:
            return name, True
    plain = re.sub(r"_as(?![a-z])|[^a-z0-9]", "", source.stem.lower())
    named = [name for name in models if plain.startswith(name.replace("_", ""))]
    return max(named, key=len, default=None), False


def safetensors_bytes(arrays: Mapping[str, NDArray[Any]], metadata: dict[str, str]) -> bytes:
    """The file's bytes, the same every time: safetensors itself writes metadata in random order."""
    from safetensors.numpy import save

    blob = save(dict(sorted(arrays.items())), metadata=metadata)
    end = 8 + int.from_bytes(blob[:8], "little")
    header = json.dumps(json.loads(blob[8:end]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return b"".join((len(header).to_bytes(8, "little"), header, memoryview(blob)[end:]))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
