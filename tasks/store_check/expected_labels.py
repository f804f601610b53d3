"""A labelling's rows against what its stored scores pool to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from audioset_core.arrays import Floats
from audioset_core.scores.pooling import pool
from db.integrity.audit import Labels, step

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
    return Labels(
        {node_of[s.category_index]: (step(s.peak), step(s.mean)) for s in pooled.class_scores},
        {
            (node_of[d.category_index], d.start_patch): (
                d.end_patch,
                d.peak_patch,
                step(d.peak),
                step(d.mean),
            )
            for d in pooled.detections
        },
    )


def difference(stored: Labels, right: Labels) -> str:
    """What differs; "" if nothing does.

    A score may be one step off: processors round the exponential differently in its last bit.
    """
    differences = [
        *_differences("classes", stored.scores, right.scores),
        *_differences("detections", stored.detections, right.detections),
    ]
    return ", ".join(differences)


def _differences(
    what: str, rows: Mapping[K, tuple[int, ...]], wanted: Mapping[K, tuple[int, ...]]
) -> Iterator[str]:
    counts = {
        "missing": len(wanted.keys() - rows.keys()),
        "too many": len(rows.keys() - wanted.keys()),
        "with other values": sum(
            not _agree(rows[key], wanted[key]) for key in rows.keys() & wanted.keys()
        ),
    }
    return (f"{count} {what} {how}" for how, count in counts.items() if count)


def _agree(row: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    """Patches exactly; peak and mean, the last two, to one step."""
    if row[:-2] != wanted[:-2]:
        return False
    return all(abs(a - b) <= 1 for a, b in zip(row[-2:], wanted[-2:], strict=True))
