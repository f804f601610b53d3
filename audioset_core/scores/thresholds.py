"""Intervals of sound from scores over time, by two thresholds and two durations.

A class begins where its score reaches `high`, and goes on, both ways, as long as it is at least
`low`. Then short gaps between intervals are closed, and after that short intervals are removed.
Works on the stored scores alone, in one pass in blocks of rows, so a clip may be of any length.

Source: hysteresis thresholding, Canny, "A computational approach to edge detection", 1986.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from audioset_core.arrays import F32, Floats
from audioset_core.errors import AudioError, Reason, UserError
from audioset_core.records import Detection, Threshold
from audioset_core.scores.pooling import (
    BLOCK_VALUES,
    Runs,
    detections_of,
    joined,
    merged,
    runs_in,
    score_blocks,
)

# Of a patch: 0.1 s + 0.2 s is to count as 0.3 s.
_SLACK = 1e-6


@dataclass(frozen=True, slots=True)
class IntervalRules:
    """How intervals are made of scores; by category index where it differs from `default`.

    `default` None: categories that are not listed are not detected. Intervals with a silence of
    at most `merge_gap_s` between them become one, so those that touch always do. Then those shorter
    than `min_duration_s` go.

    Raises:
        UserError: a duration is negative or not finite.
    """

    default: Threshold | None
    by_category: Mapping[int, Threshold] = field(default_factory=dict)
    min_duration_s: float = 0.0
    merge_gap_s: float = 0.0

    def __post_init__(self) -> None:
        for name in ("min_duration_s", "merge_gap_s"):
            value = getattr(self, name)
            if not 0 <= value < math.inf:
                raise UserError(f"{name} {value:g} is not a number of seconds of at least 0")


def least_patches(min_duration_s: float, *, patch_hop_s: float, window_s: float) -> int:
    """The fewest patches in a row that last so long: n patches last (n - 1) hops and a window.

    >>> least_patches(2.0, patch_hop_s=0.48, window_s=0.96)
    4
    """
    return 1 + max(0, math.ceil((min_duration_s - window_s) / patch_hop_s - _SLACK))


def most_missing(merge_gap_s: float, *, patch_hop_s: float, window_s: float) -> int:
    """The most patches that may lie between two intervals for the gap to be closed.

    With n patches between them, the second interval begins n + 1 hops after the start of the first
    one's last patch, which lasts window_s.

    >>> most_missing(0.5, patch_hop_s=0.48, window_s=0.96)
    2
    """
    return max(0, math.floor((merge_gap_s + window_s) / patch_hop_s + _SLACK) - 1)


def in_steps(found: Detection, steps_per_row: int) -> Detection:
    """An interval of rows as one of the steps that the rows were pooled from.

    >>> in_steps(Detection(0, 1, 2, 0.9, 0.5, 2), 5)
    Detection(category_index=0, start_patch=5, end_patch=14, peak=0.9, mean=0.5, peak_patch=10)
    """
    return replace(
        found,
        start_patch=found.start_patch * steps_per_row,
        end_patch=(found.end_patch + 1) * steps_per_row - 1,
        peak_patch=found.peak_patch * steps_per_row,
    )


def derive_intervals(
    logits: Floats,
    rules: IntervalRules,
    *,
    patch_hop_s: float,
    window_s: float,
    block_values: int = BLOCK_VALUES,
) -> tuple[Detection, ...]:
    """The intervals of each category, by category index, then by start.

    Peak and mean are over the patches that reach `low`: a closed gap does not lower them. Duration
    is that of the patches, of which the last may go beyond the end of the recording.

    >>> logits = np.float32([[-9], [0], [3], [-9]])  # scores 0.0, 0.5, 0.95, 0.0
    >>> rules = IntervalRules(Threshold(high=0.9, low=0.3))
    >>> [found] = derive_intervals(logits, rules, patch_hop_s=0.48, window_s=0.96)
    >>> found.start_patch, found.end_patch, found.peak_patch
    (1, 2, 2)

    Shape:
        logits: [n_patches, n_classes], float16 or float32

    Raises:
        AudioError: a logit is not a number.
    """
    high, low = _columns(rules, logits.shape[1])
    found: list[Runs] = []
    for first_patch, scores in score_blocks(logits, block_values):
        if np.isnan(scores).any():
            raise AudioError(Reason.INTERNAL, "the logits hold values that are not numbers")
        runs = runs_in(scores, low, first_patch)
        # What lies whole in this block is decided now: memory holds intervals, not their edges.
        is_open = (runs.start == first_patch) | (runs.end == first_patch + len(scores) - 1)
        found.append(runs.where(is_open | (runs.peak >= high[runs.category])))
    if not found:
        return ()
    runs = joined(found)
    runs = runs.where(runs.peak >= high[runs.category])
    runs = merged(runs, most_missing(rules.merge_gap_s, patch_hop_s=patch_hop_s, window_s=window_s))
    least = least_patches(rules.min_duration_s, patch_hop_s=patch_hop_s, window_s=window_s)
    return detections_of(runs.where(runs.end - runs.start + 1 >= least))


def _columns(rules: IntervalRules, n_classes: int) -> tuple[F32, F32]:
    """High and low by category; infinite for one that is not detected."""
    default = rules.default
    high = np.full(n_classes, default.high if default else np.inf, dtype=np.float32)
    low = np.full(n_classes, default.low if default else np.inf, dtype=np.float32)
    for category, threshold in rules.by_category.items():
        high[category], low[category] = threshold.high, threshold.low
    return high, low
