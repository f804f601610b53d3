"""Mono samples from a recording's own rate to the rate of a model."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import soxr

from audioset_core.arrays import F32


def resampled(blocks: Iterator[F32], rate_hz: int, target_hz: int) -> Iterator[F32]:
    """Blocks at ``target_hz`` through soxr HQ, whose state carries over block borders.

    The stream equals the resampled whole to the bit, however it is cut.
    """
    if rate_hz == target_hz:
        yield from blocks
        return
    stream = soxr.ResampleStream(rate_hz, target_hz, 1, dtype="float32", quality="HQ")
    for block in blocks:
        yield stream.resample_chunk(block)
    yield stream.resample_chunk(np.empty(0, np.float32), last=True)
