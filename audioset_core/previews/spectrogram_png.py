"""Spectrograms as pictures: one palette, one scale, and PNG bytes for a page.

The PNG has indexed colours and needs only zlib, so that a report needs no further package.

Source: PNG (Portable Network Graphics) Specification, third edition, W3C; the palette follows
"magma" by Stéfan van der Walt and Nathaniel Smith (CC0).
"""

from __future__ import annotations

import math
import struct
import zlib

import numpy as np
import numpy.typing as npt

from audioset_core.arrays import F32

# Dark to light, evenly spaced; between them colours are mixed.
_ANCHORS = (
    (0, 0, 4), (28, 16, 68), (79, 18, 123), (129, 37, 129), (181, 54, 122), (229, 80, 100),
    (251, 135, 97), (254, 194, 135), (252, 253, 191),
)  # fmt: skip
_LEAST_SPAN = 4.0
"""Least range of natural logarithms: silence is not amplified to noise."""
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_INDEXED = 3


def palette() -> npt.NDArray[np.uint8]:
    """256 colours from dark to light. Shape: ``[256, 3]``."""
    anchors = np.array(_ANCHORS, np.float64)
    at = np.linspace(0, len(anchors) - 1, 256)
    mixed = [np.interp(at, np.arange(len(anchors)), anchors[:, channel]) for channel in range(3)]
    return np.stack(mixed, axis=1).round().astype(np.uint8)


def shown_range(log_mel: F32) -> tuple[float, float]:
    """The values that get the darkest and the lightest colour; NaN is ignored."""
    values = log_mel[np.isfinite(log_mel)]
    if not len(values):
        return 0.0, _LEAST_SPAN
    low, high = np.percentile(values, [5, 99.9]).tolist()
    return low, max(high, low + _LEAST_SPAN)


def spectrogram_png(log_mel: F32) -> bytes:
    """A picture, a pixel a value, low frequencies at the bottom. Shape: ``[n_columns, n_mels]``."""
    low, high = shown_range(log_mel)
    level = np.nan_to_num((log_mel - low) / (high - low), nan=0.0).clip(0, 1)
    indices = (level * 255).round().astype(np.uint8).T[::-1]
    return _png(indices)


def axis_step(length: float, n_most: int, steps: tuple[float, ...]) -> float:
    """The least of `steps` that cuts `length` into at most `n_most`; else multiples of the last.

    >>> axis_step(50.0, 6, (1.0, 5.0, 10.0)), axis_step(300.0, 6, (1.0, 5.0, 10.0))
    (10.0, 50.0)
    """
    for step in steps:
        if length / step <= n_most:
            return step
    return steps[-1] * math.ceil(length / steps[-1] / n_most)


def _png(indices: npt.NDArray[np.uint8]) -> bytes:
    height, width = indices.shape
    header = struct.pack(">IIBBBBB", width, height, 8, _INDEXED, 0, 0, 0)
    # Each line begins with the number of its filter: 0, as it is.
    lines = np.zeros((height, width + 1), np.uint8)
    lines[:, 1:] = indices
    chunks = (
        (b"IHDR", header),
        (b"PLTE", palette().tobytes()),
        (b"IDAT", zlib.compress(lines.tobytes(), 9)),
        (b"IEND", b""),
    )
    return _SIGNATURE + b"".join(_chunk(kind, data) for kind, data in chunks)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
