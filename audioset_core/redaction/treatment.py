"""The samples of a recording with its spans made silent or low-passed, block by block."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

import numpy as np
from scipy.signal import firwin, oaconvolve

from audioset_core.arrays import F64, Floats
from audioset_core.audio.mono import StreamInfo
from audioset_core.redaction.settings import FADE_S
from audioset_core.redaction.spans import Spans

Pieces = Iterator[tuple[Floats, Floats, slice]]
"""Samples as they are, as they are to be, and the part in which both differ."""

_TAPS_PER_PERIOD = 6.6
"""A Hamming window's band between passing and stopping is then half of the cut-off's frequency."""


def treated(
    blocks: Iterator[Floats], info: StreamInfo, spans: Spans, low_pass_hz: float | None
) -> Pieces:
    """Pieces of a recording as it is, and as it is to be, and the part in which they differ.

    Outside of the part, which may be empty, both are equal to the bit. Whole numbers stay whole
    numbers of the recording's own type.

    Shape:
        blocks: [n, n_channels] each; spans: [n_spans, 2]
    """
    n_half, taps = 0, np.ones(1)
    if low_pass_hz is not None:
        n_half = round(_TAPS_PER_PERIOD / 2 * info.sample_rate_hz / low_pass_hz)
        taps = firwin(2 * n_half + 1, low_pass_hz, fs=info.sample_rate_hz)
    ends = np.zeros((n_half, info.n_channels))
    waiting, at = ends, 0
    for block in chain(blocks, [ends]):
        waiting = np.concatenate([waiting, block])
        n_ready = len(waiting) - 2 * n_half
        if n_ready <= 0:
            continue
        before = waiting[n_half : n_half + n_ready]
        gain = kept(spans, at, n_ready, round(FADE_S * info.sample_rate_hz))
        inside = np.flatnonzero(gain < 1)
        part = slice(int(inside[0]), int(inside[-1]) + 1) if len(inside) else slice(0, 0)
        after = before
        if len(inside):
            after = before.copy()
            share = gain[part, np.newaxis]
            after[part] = after[part] * share + 0.0  # no -0 in the silence
            if low_pass_hz is not None:
                around = waiting[part.start : part.stop + 2 * n_half]
                after[part] += (1 - share) * oaconvolve(around, taps[:, None], "valid", axes=0)
            _to_stored(after[part], info.sample_type)
            after[part] = np.where(share < 1, after[part], before[part])
        yield before, after, part
        waiting, at = waiting[n_ready:], at + n_ready


def kept(spans: Spans, first: int, n: int, n_fade: int) -> F64:
    """The share of each sample that stays: 1 outside of spans, 0 inside, between them at the ends.

    >>> kept(np.array([[2, 8]]), 0, 10, 2).tolist()
    [1.0, 1.0, 0.5, 0.0, 0.0, 0.0, 0.0, 0.5, 1.0, 1.0]

    Shape:
        spans: [n_spans, 2] -> [n]
    """
    share = np.ones(n)
    begin, end = (
        np.searchsorted(spans[:, 1], first, "right"),
        np.searchsorted(spans[:, 0], first + n),
    )
    for start, stop in spans[begin:end]:
        places = np.arange(max(start, first), min(stop, first + n))
        from_edge = np.minimum(places - start, stop - 1 - places) + 1
        share[places - first] = np.maximum(0.0, 1 - from_edge / max(1, n_fade))
    return share


def _to_stored(samples: Floats, sample_type: str) -> None:
    """Round to values that the recording's type holds, in place. Lossy recordings: any value."""
    if sample_type.startswith("int"):
        full = 2.0 ** (int(sample_type.removeprefix("int")) - 1)
        samples[:] = np.clip(np.rint(samples * full), -full, full - 1) / full
    elif sample_type == "float32":
        samples[:] = samples.astype(np.float32)
