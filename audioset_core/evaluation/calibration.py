"""Platt scaling: the straight line through logits that fits best to what is known of recordings.

`sigmoid(scale * x + shift)` is then the share of recordings that truly have the sound, among those
with the logit `x`. Two numbers for all classes together: few judged recordings suffice.

Source: Platt 1999, Probabilistic outputs for support vector machines; Lin, Lin and Weng 2007,
https://doi.org/10.1007/s10994-007-5018-6, for the targets and Newton's method with halved steps
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from audioset_core.arrays import F64
from audioset_core.errors import UserError

LEAST_OF_EACH = 10
"""Fewest known pairs of recording and class in which the sound is present, and absent."""

_MOST_STEPS = 100
_DIGITS = 6
"""Decimals of the result, so that processors which round differently find the same numbers."""


@dataclass(frozen=True, slots=True)
class Platt:
    """The line, and from how many pairs of recording and class it was found."""

    scale: float = 1.0
    shift: float = 0.0
    n_present: int = 0
    n_absent: int = 0


def fit_platt(logits: F64, is_present: npt.NDArray[np.bool_]) -> Platt:
    """Logistic regression of presence on the logit.

    The targets are not 1 and 0 but (n + 1) / (n + 2) and 1 / (n + 2), so that a line exists also
    where a threshold separates the two without an error.

    Shape:
        logits, is_present: [n]

    Raises:
        UserError: too few pairs of one kind, or logits that do not rise with presence.
    """
    n_present = int(is_present.sum())
    n_absent = len(is_present) - n_present
    if min(n_present, n_absent) < LEAST_OF_EACH:
        raise UserError(
            f"the truth has {n_present:,} present and {n_absent:,} absent sounds; calibration "
            f"needs at least {LEAST_OF_EACH} of each"
        )
    targets = np.where(is_present, (n_present + 1) / (n_present + 2), 1 / (n_absent + 2))
    x = np.stack([logits, np.ones(len(logits))])
    line = np.array([0.0, np.log((n_present + 1) / (n_absent + 1))])
    for _ in range(_MOST_STEPS):
        z = line @ x
        p = 0.5 * (1 + np.tanh(z / 2))
        slope = x @ (p - targets)
        if np.abs(slope).max() < 1e-9 * len(logits):
            break
        curve = (x * (p * (1 - p))) @ x.T + 1e-12 * np.eye(2)
        step = np.linalg.solve(curve, slope)
        before = _loss(z, targets)
        # Where Newton's step goes too far, half of it, and so on.
        sizes = (0.5**n for n in range(30))
        size = next((s for s in sizes if _loss((line - s * step) @ x, targets) <= before), 0.0)
        if not size:
            break
        line -= size * step
    scale, shift = (round(float(value), _DIGITS) for value in line)
    if scale <= 0:
        raise UserError("scores are no higher where the truth has the sound: not calibrated")
    return Platt(scale, shift, n_present, n_absent)


def _loss(z: F64, targets: F64) -> float:
    return float((np.logaddexp(0, z) - targets * z).sum())
