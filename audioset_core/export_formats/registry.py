"""Every format by the name that the command line offers, and the function that writes it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

from audioset_core.export_formats.audacity import audacity_texts
from audioset_core.export_formats.delimited import audioset_strong_texts, csv_texts, dcase_texts
from audioset_core.export_formats.parquet import write_parquet
from audioset_core.export_formats.raven import raven_texts
from audioset_core.export_formats.rows import Event, Labelled, Recording
from audioset_core.export_formats.webvtt import webvtt_texts


@dataclass(frozen=True, slots=True)
class FileFormat:
    """All recordings in one file. `write` gets their common folder, if it names files by it."""

    write: Callable[[BinaryIO, Iterable[Labelled], bytes], None]
    help: str
    needs_root: bool = True


@dataclass(frozen=True, slots=True)
class FolderFormat:
    """A file per recording; `suffix` comes after the recording's own."""

    texts: Callable[[Recording, Iterable[Event]], Iterator[str]]
    suffix: str
    help: str


def as_text(
    texts: Callable[[Iterable[Labelled], bytes], Iterator[str]],
) -> Callable[[BinaryIO, Iterable[Labelled], bytes], None]:
    """A function that writes the parts of a text in UTF-8."""

    def write(file: BinaryIO, labelled: Iterable[Labelled], root: bytes) -> None:
        for text in texts(labelled, root):
            file.write(text.encode())

    return write


FILE_FORMATS = {
    "csv": FileFormat(
        as_text(csv_texts),
        "CSV, a row per detection: file, class, times, scores, model, parameters.",
        needs_root=False,
    ),
    "dcase": FileFormat(
        as_text(dcase_texts), "DCASE's TSV: filename, onset, offset, event_label (name)."
    ),
    "audioset-strong": FileFormat(
        as_text(audioset_strong_texts),
        "AudioSet's strong labels as TSV: segment_id, start, end, MID.",
    ),
    "parquet": FileFormat(
        write_parquet,
        "Parquet, the columns of the CSV, typed; needs pyarrow: "
        "pip install 'audioset-flows[parquet]'.",
        needs_root=False,
    ),
}

FOLDER_FORMATS = {
    "audacity": FolderFormat(audacity_texts, ".txt", "Audacity's label tracks, one per recording."),
    "raven": FolderFormat(
        raven_texts, ".selections.txt", "Raven's selection tables, one per recording."
    ),
    "webvtt": FolderFormat(webvtt_texts, ".vtt", "WebVTT captions, one per recording."),
}
