"""Label Studio: a task per recording, with its detections as a prediction to be reviewed.

Sources: labelstud.io/guide/predictions.html, labelstud.io/guide/task_format.html,
labelstud.io/tags/audio.html.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from urllib.parse import quote_from_bytes

from audioset_core.export_formats.file_names import relative, uri
from audioset_core.export_formats.rows import Labelled, Recording
from audioset_core.export_formats.text import one_line

LOCAL_FILES = "/data/local-files/?d="
"""Where Label Studio serves files of its LOCAL_FILES_DOCUMENT_ROOT."""

_FROM_NAME, _TO_NAME = "label", "audio"


def label_studio_texts(
    labelled: Iterable[Labelled], root: bytes, url_prefix: str = LOCAL_FILES
) -> Iterator[str]:
    """A JSON array of tasks, a line each; audio is at `url_prefix` plus the path below `root`."""
    separator = "[\n"
    for recording, events in labelled:
        yield separator + _task_start(recording, root, url_prefix)
        separator = ",\n"
        score, between = 0.0, ""
        for n, event in enumerate(events):
            result = {
                "id": f"{recording.clip[:8]}-{n}",
                "from_name": _FROM_NAME,
                "to_name": _TO_NAME,
                "type": "labels",
                "original_length": recording.duration_s,
                "value": {
                    "start": event.start_s,
                    "end": event.end_s,
                    "channel": 0,
                    "labels": [one_line(event.name)],
                },
                "score": event.peak,
                "meta": {"text": [event.mid]},
            }
            yield between + json.dumps(result)
            between = ", "
            score = max(score, event.peak)
        yield f'], "score": {json.dumps(score)}}}]}}'
    yield "\n]\n" if separator != "[\n" else "[]\n"


def label_studio_config(names: Iterable[str]) -> Iterator[str]:
    """The labelling interface for the tasks, as XML: a waveform, the classes, a search field."""
    from xml.sax.saxutils import quoteattr

    yield "<View>\n"
    yield f'  <Filter toName="{_FROM_NAME}" minlength="0" name="filter"/>\n'
    yield f'  <Labels name="{_FROM_NAME}" toName="{_TO_NAME}">\n'
    for name in names:
        yield f"    <Label value={quoteattr(one_line(name))}/>\n"
    yield f'  </Labels>\n  <Audio name="{_TO_NAME}" value="$audio"/>\n</View>\n'


def _task_start(recording: Recording, root: bytes, url_prefix: str) -> str:
    data = {
        "audio": url_prefix + quote_from_bytes(relative(recording.path, root), safe="/"),
        "uri": uri(recording.path),
        "path": recording.path_text,
        "clip": recording.clip,
        "id": recording.user_id,
    }
    version = json.dumps(f"{recording.model} {recording.model_version}")
    prediction = f'{{"model_version": {version}, "result": ['
    return f'{{"data": {json.dumps(data)}, "predictions": [{prediction}'
