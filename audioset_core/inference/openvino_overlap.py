"""Overlapping patches share what they share: their first layers, computed over a batch's frames.

Patches that overlap have equal values in the first layers, but for the rows near a patch's two
ends, which see the zeros that pad it. Each layer is computed once over all frames, and those rows,
the edges, apart for each patch. Where that no longer pays, patches are cut out, and the rest of the
network continues with them.

Of a layer whose windows have ``size`` rows, every ``stride`` rows, with ``before`` zeros in front,
row ``t`` sees the rows ``t * stride - before`` to ``t * stride - before + size - 1`` of the layer
in front of it. So ``left`` edge rows become ``ceil((left + before) / stride)``, and of ``n`` rows
with ``right`` edge rows at the end, those from ``ceil((n - right - size + 1 + before) / stride)``.

Every value is the sum of the same products as in the network that takes patches; its bits are the
same where the library adds them in the same order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from openvino import PartialShape, opset13, passes
from openvino.utils.node_factory import NodeFactory

_TIME = 2
"""The axis of frames in ``[batch, channels, frames, mels]``."""
_WINDOWED = ("Convolution", "GroupConvolution", "MaxPool", "AvgPool")
_ROW_BY_ROW: tuple[str, ...] = ("Add", "Relu")
_IN_FRONT: tuple[str, ...] = ("Unsqueeze", "Transpose", "BatchNormInference", *_ROW_BY_ROW)
"""Also row by row, until frames are on their axis."""
_WORTH_SHARING = 0.8
"""Of a patch's rows in a layer, the largest share that may be left to compute."""
_FEW_ROWS = 0.5
"""Of a patch's frames: before layers have fewer rows, cutting patches out costs what is saved."""


def overlapping(patchwise: Any, hop_frames: int) -> Any | None:
    """The same network for consecutive patches, as a function of the frames under them.

    Shape:
        patchwise: ``[n_patches, patch_frames, n_mels]`` -> outputs of ``n_patches``; found:
        ``[1, (n_patches - 1) * hop_frames + patch_frames, n_mels]`` -> the same outputs.

    Returns:
        None where patches have no layer that is worth sharing.
    """
    n_patches, n_rows, n_mels = patchwise.inputs[0].get_shape()
    if n_patches == 1 or hop_frames >= n_rows:
        return None
    model = patchwise.clone()
    manager = passes.Manager()
    manager.register_pass(passes.ConstantFolding())  # the sizes of padding are traced
    manager.run_passes(model)
    (frames,) = model.get_parameters()
    chain = _chain(frames)
    frames.set_partial_shape(PartialShape([1, (n_patches - 1) * hop_frames + n_rows, n_mels]))
    frames.validate_and_infer_types()
    trunk = _Trunk(n_patches, frames.output(0), n_rows, hop_frames)
    for operation, window in chain:
        _resize(operation, trunk.shared)
        if window is None:
            trunk.pass_on(operation)
        elif not trunk.slide(operation, window):
            break
    if trunk.n_rows >= _FEW_ROWS * n_rows:
        return None
    rest = trunk.shared.get_target_inputs()
    patches = trunk.patches()
    for reader in rest:
        reader.replace_source_output(patches)
    model.validate_nodes_and_infer_types()
    return model


@dataclass(frozen=True, slots=True)
class _Window:
    """How an operation moves along the frames; what pads it, as (frames, mels)."""

    size: int
    stride: int
    before: tuple[int, int]
    after: tuple[int, int]


_ONE_ROW = _Window(1, 1, (0, 0), (0, 0))


@dataclass(slots=True)
class _Trunk:
    """The layers so far: a patch has ``n_rows``, and the next one begins ``step`` rows later."""

    n_patches: int
    shared: Any
    n_rows: int
    step: int
    edges: Any = None
    """Shape: ``[n_patches, channels, left + right, mels]``."""
    left: int = 0
    right: int = 0

    def slide(self, operation: Any, window: _Window) -> bool:
        """Add a windowed operation; False, and nothing is added, where it is not worth sharing."""
        size, stride, before, after = window.size, window.stride, window.before, window.after
        n_rows = (self.n_rows + before[0] + after[0] - size) // stride + 1
        left = -(-(self.left + before[0]) // stride)
        first = -(-(self.n_rows - self.right - size + 1 + before[0]) // stride)
        right = n_rows - first
        n_left_to_compute = self.step // stride + left + right
        if self.step % stride or n_left_to_compute > _WORTH_SHARING * n_rows:
            return False
        made = []
        if left:
            seen = self._cut(self.left, (left - 1) * stride - before[0] + size)
            strip = _joined([*self._own(0, self.left), *seen])
            made.append(_copy(operation, strip, pads=(before, (0, after[1]))))
        if right:
            seen = self._cut(first * stride - before[0], self.n_rows - self.right)
            strip = _joined([*seen, *self._own(self.left, self.left + self.right)])
            made.append(_copy(operation, strip, pads=((0, before[1]), after)))
        self.edges = _joined(made) if made else None
        self.left, self.right, self.n_rows, self.step = left, right, n_rows, self.step // stride
        self.shared = operation.output(0)
        return True

    def pass_on(self, operation: Any) -> None:
        """Add an operation that computes each row by itself."""
        self.shared = operation.output(0)
        if self.edges is not None:
            self.edges = _copy(operation, self.edges)

    def patches(self) -> Any:
        """Whole patches. Shape: ``[n_patches, channels, n_rows, mels]``."""
        middle = self._cut(self.left, self.n_rows - self.right)
        end = self.left + self.right
        return _joined([*self._own(0, self.left), *middle, *self._own(self.left, end)])

    def _cut(self, first: int, end: int) -> list[Any]:
        """Shared rows of every patch: one array, or none if there are no rows."""
        if first >= end:
            return []
        starts = range(0, self.n_patches * self.step, self.step)
        cuts = [_rows(self.shared, start + first, start + end) for start in starts]
        return [opset13.concat(cuts, 0).output(0)]

    def _own(self, first: int, end: int) -> list[Any]:
        """Rows of the edges: one array, or none if there are no rows."""
        return [_rows(self.edges, first, end)] if first < end else []


def _chain(frames: Any) -> list[tuple[Any, _Window | None]]:
    """The operations from the first on, as long as each reads the one before, and constants.

    A window is None where each row is computed by itself. Padding belongs to what follows it.
    """
    chain: list[tuple[Any, _Window | None]] = []
    padding, at, row_by_row = None, frames, _IN_FRONT
    while len(readers := at.output(0).get_target_inputs()) == 1:
        at = next(iter(readers)).get_node()
        kind = at.get_type_name()
        if any(v.get_node().get_type_name() != "Constant" for v in at.input_values()[1:]):
            break
        if kind == "Pad" and padding is None:
            padding = at
        elif kind in _WINDOWED:
            window = _window(at, padding)
            chain.append((at, None if window == _ONE_ROW else window))
            padding, row_by_row = None, _ROW_BY_ROW
        elif kind in row_by_row and padding is None:
            chain.append((at, None))
        else:
            break
    return chain


def _window(operation: Any, padding: Any) -> _Window:
    attributes = operation.get_attributes()
    size = attributes.get("kernel") or operation.input_value(1).get_shape()[-2:]
    pads = [attributes["pads_begin"], attributes["pads_end"]]
    if padding is not None:
        added = [padding.input_value(at).get_node().get_data()[-2:].tolist() for at in (1, 2)]
        pads = np.add(pads, added).tolist()
    return _Window(size[0], attributes["strides"][0], tuple(pads[0]), tuple(pads[1]))


def _resize(operation: Any, source: Any) -> None:
    """Tell an operation, and the padding in front of it, the new size of what they read."""
    reader = operation.input_value(0)
    if reader != source:
        reader.get_node().validate_and_infer_types()
    operation.validate_and_infer_types()


def _rows(array: Any, first: int, end: int) -> Any:
    bounds = [opset13.constant([value]) for value in (first, end, 1, _TIME)]
    return opset13.slice(array, *bounds).output(0)


def _joined(parts: list[Any]) -> Any:
    return opset13.concat(parts, _TIME).output(0) if len(parts) > 1 else parts[0]


def _copy(operation: Any, source: Any, pads: tuple[tuple[int, int], ...] = ()) -> Any:
    """The operation on another array. It has weights of its own: OpenVINO joins a convolution with
    what follows it only where nothing else reads their constants."""
    attributes = operation.get_attributes()
    if pads:
        attributes |= {"pads_begin": pads[0], "pads_end": pads[1]}
    others = [opset13.constant(v.get_node().get_data()) for v in operation.input_values()[1:]]
    copy = NodeFactory("opset13").create(operation.get_type_name(), [source, *others], attributes)
    return copy.output(0)
