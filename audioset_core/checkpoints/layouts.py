"""How a published file names and shapes a model's arrays, and how they become ours.

A model's module lists its layouts; `audioset_core.weights.convert` finds the one that fits a file.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from audioset_core.arrays import F32, Floats
from audioset_core.checkpoints.readers import Kind, Stored
from audioset_core.errors import WeightsError

if TYPE_CHECKING:
    from torch import nn

Arrays = dict[str, F32]

# Published kernel axes to PyTorch's: height, width, inputs, outputs; depthwise has its
# multiplier last; dense is inputs, outputs.
HWIO, DEPTHWISE, DENSE = (3, 2, 0, 1), (2, 3, 0, 1), (1, 0)

# Arrays that are not weights: they count how often something was updated or saved.
_COUNTERS = ("num_batches_tracked", "save_counter", "global_step")
# A published constant must agree with ours within this part of its largest value: float32 rounding.
_CONSTANT_TOLERANCE = 1e-5


@dataclass(frozen=True, slots=True)
class Target:
    """The array of ours that one published array becomes."""

    name: str
    shape: tuple[int, ...]
    axes: tuple[int, ...] | None = None
    """Permutation from the published axes to ours; None keeps them."""

    @property
    def published_shape(self) -> tuple[int, ...]:
        """The shape in the file."""
        if self.axes is None:
            return self.shape
        published = [0] * len(self.shape)
        for ours, theirs in enumerate(self.axes):
            published[theirs] = self.shape[ours]
        return tuple(published)

    def place(self, array: NDArray[Any]) -> F32:
        """The array with our axes, contiguous, in float32."""
        moved = array if self.axes is None else array.transpose(self.axes)
        with np.errstate(over="ignore"):  # infinity is refused later, with the name of the array
            return np.ascontiguousarray(moved, dtype=np.float32)


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """One published form of a model's weights.

    ``targets`` is keyed by the name in the file. Variables of TensorFlow may have any scope
    before that name.
    """

    kind: Kind
    targets: Mapping[str, Target]
    constants: Mapping[str, Floats] = field(default_factory=dict)
    """Arrays in the file that we compute ourselves: they must agree, and are not used."""
    unused: dict[str, tuple[int, ...]] = field(default_factory=dict)
    """Shapes of arrays in the file that our network has no place for."""
    ones: tuple[str, ...] = ()
    """Our arrays that the file lacks because all values are one: scales of a batch norm."""
    renames: tuple[tuple[str, str], ...] = ()
    """Patterns of other names in use, and the names that they stand for."""
    has_scores: bool = True

    def fits(self, kind: Kind | None) -> bool:
        """Whether files of that kind may have this layout: others save state dicts either way."""
        state_dicts = ("torch", "safetensors")
        return kind == self.kind or (kind in state_dicts and self.kind in state_dicts)

    def named(self, names: Mapping[str, Stored], source: str) -> dict[str, Stored]:
        """The file's arrays under the names of this layout, counters left out.

        What wrappers put before all names, such as ``module.``, is left out as well.

        Raises:
            WeightsError: two arrays have the same name.
        """
        found: dict[str, Stored] = {}
        prefix = self._prefix(names)
        for name, stored in names.items():
            if name.rpartition(".")[2].rpartition("/")[2] in _COUNTERS:
                continue
            key = self._key(name.removeprefix(prefix))
            if key in found:
                raise WeightsError(f"{source}: two arrays have the name {key}")
            found[key] = stored
        return found

    def _prefix(self, names: Mapping[str, Stored]) -> str:
        """What stands before every name of the file, and before our first one."""
        first = next(iter(self.targets), "")
        before = (name.removesuffix(first) for name in names if name.endswith(f".{first}"))
        return next((p for p in before if all(name.startswith(p) for name in names)), "")

    def _key(self, name: str) -> str:
        if self.kind != "tensorflow":
            return name
        for pattern, stands_for in self.renames:
            name = re.sub(pattern, stands_for, name)
        parts = name.removesuffix(":0").split("/")
        endings = ("/".join(parts[first:]) for first in range(len(parts)))
        return next((ending for ending in endings if ending in self.targets), name)

    @property
    def expected(self) -> dict[str, tuple[int, ...]]:
        """The shape of every array that the file must have, by name."""
        shapes = {name: target.published_shape for name, target in self.targets.items()}
        return shapes | {name: array.shape for name, array in self.constants.items()} | self.unused

    def n_misfits(self, published: Mapping[str, Stored]) -> tuple[int, int]:
        """How many arrays are missing or unknown, and how many have another shape than ours."""
        expected = self.expected
        n_misshapen = sum(
            published[name].shape not in (None, expected[name])
            for name in expected.keys() & published.keys()
        )
        return len(expected.keys() ^ published.keys()), n_misshapen

    def place(
        self, published: Mapping[str, Stored], source: str, model: str = "the expected model"
    ) -> Arrays:
        """All published arrays by our names; each shape is checked before its array is read.

        ``source`` and ``model`` are what messages name.

        Raises:
            WeightsError: an array is missing, unknown, of another shape, or not of floats.
        """
        expected = self.expected.keys()
        missing, spare = sorted(expected - published.keys()), sorted(published.keys() - expected)
        if missing or spare:
            found = (
                f"{len(missing)} datasets missing" if missing else f"{len(spare)} unknown datasets"
            )
            raise WeightsError(
                f"{source} is not {model}: {found}, such as {(missing or spare)[0]!r}"
            )
        arrays: Arrays = {}
        for name, target in self.targets.items():
            array = _read(published[name], name, target.published_shape, source)
            arrays[target.name] = target.place(array)
        for name, constant in self.constants.items():
            array = _read(published[name], name, constant.shape, source)
            tolerance = _CONSTANT_TOLERANCE * float(np.abs(constant).max())
            if not np.allclose(array, constant, rtol=0.0, atol=tolerance):
                raise WeightsError(
                    f"{source}: {name} is not what this model's front end computes, "
                    f"so the weights were trained on other features"
                )
        for name, shape in self.unused.items():
            _read(published[name], name, shape, source)
        for name in self.ones:
            arrays[name] = np.ones_like(arrays[name.replace(".weight", ".bias")])
        return arrays


def own_names(build: Callable[[], nn.Module], **published: str) -> dict[str, Target]:
    """Targets of a state dict of our own names and axes.

    Args:
        build: makes the network; called without memory for its arrays.
        published: of our first names (``features`` of ``features.0.weight``), the published ones;
            ``rest`` for all others, put before them.
    """
    import torch

    with torch.device("meta"):
        state = build().state_dict()
    targets = {}
    for name, array in state.items():
        first, _, below = name.partition(".")
        if name.rpartition(".")[2] not in _COUNTERS:
            theirs = published.get(first, published.get("rest", "") + first)
            targets[f"{theirs}.{below}" if below else theirs] = Target(name, tuple(array.shape))
    return targets


def _read(stored: Stored, name: str, shape: tuple[int, ...], source: str) -> NDArray[Any]:
    if stored.shape is None or tuple(stored.shape) != shape:
        raise WeightsError(f"{source}: {name} has shape {stored.shape}, expected {shape}")
    if stored.dtype.kind != "f":
        raise WeightsError(f"{source}: {name} holds {stored.dtype}, not floats")
    return np.asarray(stored)
