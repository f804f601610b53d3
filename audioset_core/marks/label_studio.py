"""Marks in JSON: Label Studio's exports, full and reduced, and plain lists of objects.

A region of a prediction that the annotation no longer has was removed by a person: that class is
absent there. Regions of sound are in seconds; regions of videos, in frames, are refused.

Source: labelstud.io/guide/export.html, labelstud.io/guide/task_format.html, labelstud.io/tags/audio
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from audioset_core.errors import UserError
from audioset_core.inputs.delimited import heading
from audioset_core.marks.mark import Problem, RawMark, RawMarks, Verdict
from audioset_core.marks.names import keys_of_address, recording_keys
from audioset_core.marks.tables import row_marks

_OWN_KEYS = ("clip", "uri", "path", "id")
_CHOICES = ("labels", "timeserieslabels", "choices", "taxonomy")
_CONTROLS = ("choice", "choices", "label", "labels", "class")
"""Usual names of a control, whose single choice is a text in the reduced format."""
_OF_REDUCED = ("annotation_id", "annotator", "lead_time")


def json_marks(text: str, path: Path, column: str | None) -> RawMarks:
    """The marks of a JSON file.

    Raises:
        UserError: the text is not JSON, or of another kind.
    """
    try:
        found = json.loads(text)
    except ValueError as error:
        raise UserError(f"{path} is not JSON: {error}") from None
    if isinstance(found, dict):
        if "predictions" in found and "model_categories" in found:
            raise UserError(
                f"{path} holds the scores of a model, in which nothing can be corrected: export "
                "csv, raven, audacity or label-studio"
            )
        # Of old versions: tasks by number; or a single task.
        found = [found] if "data" in found or "audio" in found else list(found.values())
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise UserError(f"{path} is neither an export of Label Studio nor a list of objects")
    if any("data" in task for task in found):
        for n, task in enumerate(found, 1):
            yield from _task_marks(task, f"task {task.get('id', n)}")
    elif any(name in row for row in found for name in _OF_REDUCED):
        for n, row in enumerate(found, 1):
            yield from _reduced_marks(row, f"task {row.get('id', n)}")
    else:
        yield from _plain_marks(found, path, column)


def _task_marks(task: Mapping[str, Any], place: str) -> RawMarks:
    keys = _keys(_object(task.get("data")), task.get("file_upload"))
    predicted = [
        region
        for prediction in _objects(task.get("predictions"))
        for region in _objects(prediction.get("result"))
    ]
    for annotation in _objects(task.get("annotations") or task.get("completions")):
        if annotation.get("was_cancelled") or annotation.get("skipped"):
            continue
        by = _person(annotation)
        at = str(annotation.get("updated_at") or annotation.get("created_at") or "")
        regions = _objects(annotation.get("result"))
        for region in regions:
            yield from _region_marks(keys, region, (place, by, at), "present")
        kept = {_what(region, label) for region in regions for label in _labels(region)}
        for region in predicted:
            if not any(_stays(region, label, kept) for label in _labels(region)):
                yield from _region_marks(keys, region, (place, by, at), "absent")


def _region_marks(
    keys: tuple[str, ...],
    region: Mapping[str, Any],
    said: tuple[str, str, str],
    verdict: Verdict,
) -> RawMarks:
    place, by, at = said
    value = _object(region.get("value"))
    if "ranges" in value or "sequence" in value:
        yield Problem("a region of a video, in frames: only regions of sound are read", place)
        return
    start, end = (str(value.get(name, "")) for name in ("start", "end"))
    for label in _labels(region):
        yield RawMark(keys, start, end, label, place, verdict=verdict, by=by, at=at)


def _reduced_marks(row: Mapping[str, Any], place: str) -> RawMarks:
    """Label Studio's JSON-MIN: the data and each control's regions in one object."""
    keys = _keys(row, row.get("file_upload"))
    by, at = str(row.get("annotator") or ""), str(row.get("updated_at") or "")
    for name, value in row.items():
        regions = [value] if isinstance(value, dict) else _objects(value)
        if isinstance(value, str) and name in _CONTROLS:
            regions = [{"choices": value}]
        for region in regions:
            yield from _region_marks(keys, {"value": region}, (place, by, at), "present")


def _plain_marks(found: Sequence[Mapping[str, Any]], path: Path, column: str | None) -> RawMarks:
    names = list(dict.fromkeys(name for row in found for name in row))
    rows = (
        (f"entry {n}", ["" if row.get(k) is None else str(row[k]) for k in names])
        for n, row in enumerate(found, 1)
    )
    seen = f"its objects have {', '.join(map(repr, names[:6])) or 'nothing'}"
    yield from row_marks([heading(name) for name in names], rows, path, column, seen=seen)


def _keys(data: Mapping[str, Any], upload: object) -> tuple[str, ...]:
    """The clip and the path of our own tasks, else every address in the task's data."""
    own = recording_keys(str(data[name]) for name in _OWN_KEYS[:3] if data.get(name))
    rest = [str(v) for k, v in data.items() if isinstance(v, str) and k not in _OWN_KEYS and v]
    rest += [str(upload)] if upload else []
    addresses = (key for text in rest if "." in text for key in keys_of_address(text))
    return tuple(dict.fromkeys((*own, *addresses)))


def _labels(region: Mapping[str, Any]) -> Iterator[str]:
    value = _object(region.get("value"))
    for name in _CHOICES:
        chosen = value.get(name)
        for label in [chosen] if isinstance(chosen, str) else _list(chosen):
            # A choice of a taxonomy is the path to it.
            yield str(label[-1]) if isinstance(label, list) and label else str(label)


def _what(region: Mapping[str, Any], label: str) -> tuple[str, float, float]:
    value = _object(region.get("value"))
    return label, *(
        float(v) if isinstance(v := value.get(name), int | float) else -1.0
        for name in ("start", "end")
    )  # type: ignore[return-value]


def _stays(region: Mapping[str, Any], label: str, kept: set[tuple[str, float, float]]) -> bool:
    """Whether the annotation has the class anywhere in the predicted region."""
    _, start, end = _what(region, label)
    return any((own == label and a < end and b > start) or (own, a, b) == (label, start, end)
               for own, a, b in kept)  # fmt: skip


def _person(annotation: Mapping[str, Any]) -> str:
    by = annotation.get("completed_by") or annotation.get("created_username") or ""
    if isinstance(by, dict):
        by = by.get("email") or by.get("username") or by.get("id") or ""
    return str(by).strip()


def _objects(found: object) -> list[Mapping[str, Any]]:
    return [each for each in _list(found) if isinstance(each, dict)]


def _object(found: object) -> Mapping[str, Any]:
    return found if isinstance(found, dict) else {}


def _list(found: object) -> list[Any]:
    return found if isinstance(found, list) else []
