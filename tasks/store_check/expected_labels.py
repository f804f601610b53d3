"""A labelling's rows against what its stored scores pool to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from audioset_core.arrays import Floats
from audioset_core.scores.pooling import pool
from db.integrity.audit import Labels
from db.ledger.label_rows import Row, label_rows
from db.types import SCORE_SCALE

K = TypeVar("K")


def pooled_labels(
    logits: Floats, parameters: Mapping[str, Any], node_of: Mapping[int, int]
) -> Labels:
    """The rows that a labelling with these scores must have.

    Shape:
        logits: [n_patches, n_classes], as stored
    """
    floor, threshold = parameters["score_floor"], parameters["detection_threshold"]
    pooled = pool(logits, floor=floor, threshold=threshold)
    found = (pooled.class_scores, pooled.detections)
    return Labels.of(*(label_rows(each, node_of) for each in found))


def difference(stored: Labels, right: Labels) -> str:
    """What differs; "" if nothing does.

    A score may be one step off: processors round the exponential differently in its last bit.
    """
    differences = [
        *_differences("classes", stored.scores, right.scores),
        *_differences("detections", stored.detections, right.detections),
    ]
    return ", ".join(differences)


def _differences(what: str, rows: Mapping[K, Row], wanted: Mapping[K, Row]) -> Iterator[str]:
    counts = {
        "missing": len(wanted.keys() - rows.keys()),
        "too many": len(rows.keys() - wanted.keys()),
        "with other values": sum(
            not _agree(rows[key], wanted[key]) for key in rows.keys() & wanted.keys()
        ),
    }
    return (f"{count} {what} {how}" for how, count in counts.items() if count)


def _agree(row: Row, wanted: Row) -> bool:
    return all(
        abs(_step(row[name]) - _step(wanted[name])) <= 1
        if name in ("peak", "mean")
        else row[name] == wanted[name]
        for name in wanted
    )


def _step(score: float) -> int:
    """A score as it is stored."""
    return round(score * SCORE_SCALE)
