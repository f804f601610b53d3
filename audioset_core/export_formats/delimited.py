"""Delimited tables, a row per detection: CSV with every column, and the TSV of two data sets.

Sources: github.com/DCASE-REPO/DESED_task (filename, onset, offset, event_label; sed_eval,
sed_scores_eval and psds_eval read it), and research.google.com/audioset/download_strong.html
(segment_id, start and end in seconds, MID).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from audioset_core.export_formats.file_names import line_name, uri
from audioset_core.export_formats.rows import Event, Labelled, Recording
from audioset_core.export_formats.text import delimited, number, one_line
from audioset_core.export_formats.touching_events import merged

COLUMNS = (
    "path", "uri", "clip", "id", "mid", "name", "start_s", "end_s", "peak", "mean", "peak_s",
    "duration_s", "model", "model_version", "patch_hop_s", "window_s", "detection_threshold",
    "parameters", "is_partial", "remarks",
    "site",
)  # fmt: skip
"""Columns of CSV and Parquet: file, class, times, scores, and how the labelling was made."""

Row = tuple[Any, ...]


def values(recording: Recording, event: Event) -> Row:
    """A detection by `COLUMNS`, as Python values."""
    return (
        recording.path_text,
        uri(recording.path),
        recording.clip,
        recording.user_id,
        event.mid,
        event.name,
        event.start_s,
        event.end_s,
        event.peak,
        event.mean,
        event.peak_s,
        recording.duration_s,
        event.model,
        event.model_version,
        recording.patch_hop_s,
        recording.window_s,
        recording.detection_threshold,
        recording.parameters,
        recording.is_partial,
        recording.remarks,
        recording.site,
    )


def csv_texts(labelled: Iterable[Labelled], root: bytes) -> Iterator[str]:  # noqa: ARG001
    """Every detection with its file, scores, times and parameters."""
    rows = (_plain(values(recording, e)) for recording, events in labelled for e in events)
    return delimited(_headed(COLUMNS, rows), ",")


def dcase_texts(labelled: Iterable[Labelled], root: bytes) -> Iterator[str]:
    """DCASE's event lists: the file below the common folder, onset, offset, the class's name."""
    rows = (
        (line_name(recording.path, root), number(s.start_s), number(s.end_s), one_line(s.name))
        for recording, events in labelled
        for s in merged(events)
    )
    return delimited(_headed(("filename", "onset", "offset", "event_label"), rows), "\t")


def audioset_strong_texts(labelled: Iterable[Labelled], root: bytes) -> Iterator[str]:
    """AudioSet's strong labels: a manifest's id or the file, start, end, the class's MID."""
    columns = ("segment_id", "start_time_seconds", "end_time_seconds", "label")
    rows = (
        (
            one_line(recording.user_id or line_name(recording.path, root)),
            number(span.start_s),
            number(span.end_s),
            span.mid,
        )
        for recording, events in labelled
        for span in merged(events)
    )
    return delimited(_headed(columns, rows), "\t")


def _headed(header: tuple[str, ...], rows: Iterable[Row]) -> Iterator[Row]:
    yield header
    yield from rows


def _plain(row: Row) -> Row:
    return tuple(number(value) if isinstance(value, float) else value for value in row)
