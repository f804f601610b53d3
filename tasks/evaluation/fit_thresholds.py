"""A set of thresholds from recordings, or spans of them, that are known to hold a class or not."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from audioset_core.errors import UserError
from audioset_core.evaluation.metrics import Best, best_threshold
from audioset_core.records import Threshold, ThresholdSet
from db.types import SCORE_SCALE
from tasks.evaluation.score_truth import Scored


@dataclass(frozen=True, slots=True)
class FittedClass:
    """How a class's threshold was found; `high` None: it was not, for `reason`."""

    mid: str
    n_positives: int
    n_negatives: int
    high: float | None
    best: Best | None = None
    reason: str = ""


def fit_classes(scored: Scored, *, min_positives: int) -> list[FittedClass]:
    """The threshold of best F1 for each class, on peaks: a clip with one is a clip detected."""
    fitted = []
    for k, mid in enumerate(scored.mids):
        labels = scored.labels[:, k]
        counts = (mid, int((labels == 1).sum()), int((labels == 0).sum()))
        best = best_threshold(scored.scores[:, k], labels)
        if counts[1] < min_positives:
            fitted.append(FittedClass(*counts, None, reason=f"under {min_positives} positives"))
        elif best is None:
            fitted.append(FittedClass(*counts, None, reason="no negatives"))
        else:
            # In the steps that are stored; never 0, which would be everything.
            high = max(1, round(best.threshold * SCORE_SCALE)) / SCORE_SCALE
            fitted.append(FittedClass(*counts, high, best))
    return fitted


def fitted_set(
    fitted: list[FittedClass], base: ThresholdSet, *, low_share: float, how: dict[str, Any]
) -> ThresholdSet:
    """`base` with the fitted classes; a class goes on down to `low_share` of where it begins.

    Raises:
        UserError: no class could be fitted.
    """
    by_mid = {
        each.mid: Threshold(
            each.high, max(1, round(each.high * low_share * SCORE_SCALE)) / SCORE_SCALE
        )
        for each in fitted
        if each.high is not None
    }
    if not by_mid:
        why = ", ".join(sorted({each.reason for each in fitted}))
        raise UserError(f"no class could be fitted ({why}): more labels are needed")
    classes = {
        each.mid: {
            "positives": each.n_positives,
            "negatives": each.n_negatives,
            "f1": each.best.f1,
            "precision": each.best.precision,
            "recall": each.best.recall,
        }
        for each in fitted
        if each.best is not None
    }
    return replace(base, by_mid=by_mid, how={**how, "low_share": low_share, "classes": classes})


def digest_of(path: Path) -> str:
    """SHA-256 of a file, to know a truth file by; of a folder, that of its files' digests."""
    if path.is_dir():
        own = (digest_of(each) for each in sorted(path.rglob("*")) if each.is_file())
        return hashlib.sha256("\n".join(own).encode()).hexdigest()
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
