"""What pooling found, as rows of the database."""

from __future__ import annotations

from collections.abc import Iterable

from audioset_core.scores import pooling
from db.records import ClassScore, DetectionRow


def class_score_rows(found: Iterable[pooling.ClassScore]) -> tuple[ClassScore, ...]:
    """Class scores of one clip, in the same order."""
    return tuple(ClassScore(c.category_index, c.peak, c.mean) for c in found)


def detection_rows(found: Iterable[pooling.Detection]) -> tuple[DetectionRow, ...]:
    """Detections of one clip, in the same order."""
    return tuple(
        DetectionRow(d.category_index, d.start_patch, d.end_patch, d.peak, d.mean, d.peak_patch)
        for d in found
    )
