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


def as_rows(stored: Labels, steps_per_row: int) -> Labels:
    """The labels with detections in rows of the score file, those made one whose rows touch.

    Only borders and peaks: a row's score is that of its best step, so the rest is not known of it.
    Detections that overlap stay apart, and so agree with no file.
    """
    found: dict[tuple[int, int], Row] = {}
    last: Row = {"node_id": None}
    last_step = -1
    for (node_id, start), row in sorted(stored.detections.items()):
        first_row, last_row = start // steps_per_row, row["end_patch"] // steps_per_row
        is_same = last["node_id"] == node_id
        if is_same and last_step < start and first_row <= last["end_patch"] + 1:
            last |= {"end_patch": last_row, "peak": max(last["peak"], row["peak"])}
        else:
            borders = {"start_patch": first_row, "end_patch": last_row}
            last = {"node_id": node_id, **borders, "peak": row["peak"]}
            found[node_id, first_row if last_step < start or not is_same else -start] = last
        last_step = row["end_patch"]
    return Labels(stored.scores, found)


def without_steps(right: Labels) -> Labels:
    """What of the labels of a file's rows must agree with `as_rows`."""
    names = ("node_id", "start_patch", "end_patch", "peak")
    kept = {key: {name: row[name] for name in names} for key, row in right.detections.items()}
    return Labels(right.scores, kept)


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
