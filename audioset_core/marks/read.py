"""Any file with marks: its format, and which class it marks where."""

from __future__ import annotations

import codecs
import csv
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

from audioset_core.errors import UserError
from audioset_core.export_formats.text import one_line
from audioset_core.inputs.delimited import encoding_of
from audioset_core.marks.label_studio import json_marks
from audioset_core.marks.labels import audacity_marks, is_audacity, textgrid_marks, webvtt_marks
from audioset_core.marks.mark import Mark, MarkFile, Problem, RawMark, RawMarks
from audioset_core.marks.names import keys_of_own_name, listed, moment, seconds
from audioset_core.marks.tables import is_raven, parquet_rows, row_marks, table_marks
from audioset_core.ontology.graph import Ontology

ENDINGS = (".txt", ".csv", ".tsv", ".json", ".vtt", ".textgrid", ".parquet")
_IN_SAMPLES = (".phn", ".wrd")  # of TIMIT
_BLOCK_BYTES = 1 << 20


def mark_files(paths: Sequence[Path]) -> list[Path]:
    """The named files, and in named folders the files with known endings, sorted.

    Raises:
        UserError: a named file does not exist, or a folder has no readable file.
    """
    found: dict[Path, None] = {}
    for path in paths:
        if not path.exists():
            raise UserError(f"there is no file {str(path)!r}")
        inside = [path]
        if path.is_dir():
            inside = sorted(
                p for p in path.rglob("*") if p.suffix.lower() in ENDINGS and p.is_file()
            )
        if not inside:
            raise UserError(f"the folder {path} holds no {', '.join(ENDINGS)}")
        found.update(dict.fromkeys(inside))
    return list(found)


def format_of(path: Path) -> str:
    """The format: parquet, json, webvtt, textgrid, audacity, raven, export or table.

    Raises:
        UserError: the file cannot be read, or is not text.
    """
    if path.suffix.lower() in _IN_SAMPLES:
        raise UserError(f"{path}: {path.suffix} counts in samples, not in seconds: not supported")
    try:
        with path.open("rb") as file:
            start = file.read(4096)
        if start.startswith(b"PAR1"):
            return "parquet"
        with path.open(encoding=_encoding(path)) as text:
            head = text.read(4096).lstrip("\ufeff \t\r\n")
    except (OSError, UnicodeError) as error:
        raise UserError(f"cannot read {path}: {error}") from None
    if "\0" in head:
        raise UserError(f"{path} is neither text nor a Parquet file")
    lines = [line for line in head.splitlines() if line.strip()]
    first = lines[0] if lines else "0 0"  # an empty file is a label track without labels
    kinds: Sequence[tuple[str, Callable[[], bool]]] = (
        ("json", lambda: head.startswith(("[", "{"))),
        ("webvtt", lambda: head.startswith("WEBVTT")),
        ("textgrid", lambda: '"ooTextFile' in first),
        ("raven", lambda: is_raven(first)),
        ("export", lambda: first.startswith("path") and "detection_threshold" in first),
        ("audacity", lambda: is_audacity(first)),
    )
    return next((kind for kind, fits in kinds if fits()), "table")


def read_marks(
    path: Path,
    ontology: Ontology,
    *,
    column: str | None = None,
    classes: Mapping[str, str] | None = None,
) -> MarkFile:
    """The marks of a file, and its problems by place.

    `column` is the heading of the classes in a table; `classes` maps labels that AudioSet does not
    have to MIDs.

    Raises:
        UserError: the file cannot be read, or nothing in it could be a mark.
    """
    kind = format_of(path)
    found = MarkFile(str(path), kind)
    resolve = _Classes(ontology, dict(classes or {}), found)
    seen: set[tuple[object, ...]] = set()
    try:
        for raw in _raw_marks(path, kind, column):
            if isinstance(raw, Problem):
                found.problems.append(raw)
                continue
            for mark in resolve.marks(raw):
                # Raven has a row for every view and channel of a selection.
                key = (mark.keys, mark.span_s, mark.mid, mark.verdict, mark.by, mark.at)
                if key in seen:
                    found.counts["lines that say the same again (views, channels)"] += 1
                    continue
                seen.add(key)
                found.marks.append(mark)
    except (OSError, UnicodeError, csv.Error) as error:
        raise UserError(f"cannot read {path}: {error}") from None
    if kind == "export" and all(mark.verdict == "present" for mark in found.marks):
        found.counts["detections that were left in the export count as present"] = len(found.marks)
    if not found.marks and not found.problems:
        found.silent = keys_of_own_name(path)
    return found


def _raw_marks(path: Path, kind: str, column: str | None) -> RawMarks:
    if kind == "parquet":
        headings, rows = parquet_rows(path)
        seen = f"its columns are {', '.join(map(repr, headings[:6]))}"
        yield from row_marks(headings, rows, path, column, seen=seen)
        return
    with path.open(newline="", encoding=_encoding(path)) as file:
        if kind in ("raven", "export", "table"):
            yield from table_marks(file, path, column, raven=kind == "raven")
        else:
            yield from _OF_TEXT[kind](file, path, column)


_OF_TEXT: Mapping[str, Callable[[IO[str], Path, str | None], Iterator[RawMark | Problem]]] = {
    "json": lambda file, path, column: json_marks(file.read(), path, column),
    "webvtt": lambda file, path, _: webvtt_marks(_lines(file), path),
    "textgrid": lambda file, path, _: textgrid_marks(file.read(), path),
    "audacity": lambda file, path, _: audacity_marks(_lines(file), path),
}


def _lines(file: IO[str]) -> Iterator[str]:
    """Lines, whether they end as on Linux, Windows or old Macs."""
    return iter(io.StringIO(file.read().removeprefix("\ufeff"), newline=None))


def _encoding(path: Path) -> str:
    """The encoding by the first bytes; else UTF-8, or cp1252 (Windows) if the file is not UTF-8."""
    told = encoding_of(path)
    if told != "utf-8":
        return told
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        with path.open("rb") as file:
            while block := file.read(_BLOCK_BYTES):
                decoder.decode(block)
            decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return "cp1252"
    return "utf-8"


class _Classes:
    """Turns what is written into marks: which class, when, present or absent."""

    def __init__(self, ontology: Ontology, classes: dict[str, str], found: MarkFile) -> None:
        self._ontology = ontology
        self._classes = {label.casefold(): mid for label, mid in classes.items()}
        self._found = found
        self._known: dict[str, str | None] = {}
        self._why: dict[str, str] = {}

    def marks(self, raw: RawMark) -> Iterator[Mark]:
        """The marks of one line: none if something is wrong with it."""
        problem = self._problem
        if raw.verdict is None:
            self._found.counts["lines without a verdict"] += 1
            return
        if not raw.keys:
            problem("no recording is named", raw)
            return
        span = _span(raw.start, raw.end)
        if isinstance(span, str):
            problem(span, raw)
            return
        at = moment(raw.at) if raw.at else None
        if raw.at and at is None:
            self._found.counts[f"moments such as {raw.at!r} that are not ISO 8601"] += 1
        mids = list(self._mids(raw))
        for mid in mids:
            yield Mark(raw.keys, span, mid, raw.verdict, _plain(raw.place), _plain(raw.by), at)

    def _mids(self, raw: RawMark) -> Iterator[str]:
        if not raw.label:
            self._problem("no class is named", raw)
            return
        known = self._ontology.nodes.get(raw.mid)
        if known is not None and known.name == raw.label:
            yield known.mid
            return
        whole = self._find(raw.label)
        labels = [raw.label] if whole is not None else listed(raw.label) or [raw.label]
        for label in labels:
            mid = self._find(label)
            if mid is None:
                self._problem(self._why[label], raw)
                continue
            if raw.mid and mid != raw.mid and len(labels) == 1:
                # In an export a person changes the name; the MID beside it stays.
                self._found.counts["lines whose name and MID differ: the name counts"] += 1
            yield mid

    def _find(self, label: str) -> str | None:
        if label not in self._known:
            try:
                given = self._classes.get(label.casefold())
                self._known[label] = given or self._ontology.find(label).mid
            except UserError as error:
                self._known[label] = None
                self._why[label] = str(error)
        return self._known[label]

    def _problem(self, text: str, raw: RawMark) -> None:
        self._found.problems.append(Problem(text, raw.place))


def _span(start: str, end: str) -> tuple[float, float] | str | None:
    """The span in seconds; None for the whole recording; a text if the span is wrong."""
    if not start and not end:
        return None
    start_s, end_s = seconds(start), seconds(end)
    if start_s is None or end_s is None:
        return f"{start!r} to {end!r} is not a span of seconds"
    if not 0 <= start_s <= end_s:
        return f"{start_s:g} s to {end_s:g} s: it ends before it starts" if start_s >= 0 else (
            f"{start_s:g} s to {end_s:g} s begins before the recording"
        )  # fmt: skip
    return start_s, end_s


def _plain(text: str) -> str:
    """The text as one line that every database can store."""
    return one_line(text).strip().encode("utf-8", "replace").decode()
