"""Spans of a recording, in samples: found where a voice is likely, widened, and joined.

Shape of spans everywhere: ``[n, 2]`` int64, the first sample and the one after the last.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from audioset_core.arrays import F32, F64

_ROUNDING = 1e-6
"""Of a place in samples that was computed from seconds."""

Spans = npt.NDArray[np.int64]


def likely_spans(probabilities: F32, least: float, frame_s: float) -> F64:
    """From where to where frames reach `least`, in seconds.

    >>> likely_spans(np.float32([0.1, 0.9, 0.9, 0.1, 0.9]), 0.5, 0.5).tolist()
    [[0.5, 1.5], [2.0, 2.5]]

    Shape:
        probabilities: [n_frames] -> [n, 2]
    """
    edges = np.flatnonzero(np.diff(probabilities >= least, prepend=False, append=False))
    found: F64 = edges.reshape(-1, 2) * np.float64(frame_s)
    return found


def joined(spans_s: F64, padding_s: float, rate_hz: int, n_samples: int) -> Spans:
    """Spans in any order, each widened by the padding at both ends, as samples; none touch.

    >>> joined(np.array([[3.0, 4.0], [0.1, 1.0], [1.3, 2.0]]), 0.2, 10, 41).tolist()
    [[0, 22], [28, 41]]

    Shape:
        spans_s: [n, 2] seconds
    """
    if not len(spans_s):
        return np.zeros((0, 2), np.int64)
    wide = spans_s[np.argsort(spans_s[:, 0], kind="stable")] + [-padding_s, padding_s]
    starts = np.clip(np.floor(wide[:, 0] * rate_hz + _ROUNDING), 0, n_samples).astype(np.int64)
    ends = np.clip(np.ceil(wide[:, 1] * rate_hz - _ROUNDING), 0, n_samples).astype(np.int64)
    reached = np.maximum.accumulate(ends)
    is_first = np.concatenate([[True], starts[1:] > reached[:-1]])
    last_of_each = np.append(np.flatnonzero(is_first)[1:] - 1, len(starts) - 1)
    found = np.stack([starts[is_first], reached[last_of_each]], axis=1)
    return found[found[:, 1] > found[:, 0]]
