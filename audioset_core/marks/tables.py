"""Marks in tables, one in each line; the meaning of a column is found by its heading.

    Raven            Begin Path or Begin File, Begin Time (s), End Time (s), Annotation
    crowsetta        generic-seq (label, onset_s, offset_s, notated_path), simple-seq
    DCASE, AudioSet  filename, onset, offset, event_label; segment_id, start_time_seconds, ...
    own files        CSV and Parquet of `audioset export`, answers of `query --csv`, reviews

In a Raven table of several sound files the times count from the start of the first file, and `File
Offset (s)` from the start of the row's own file.

Source: Raven Pro 1.6 User's Manual, chapter 6 and appendix E; crowsetta.readthedocs.io/formats;
https://github.com/maRce10/Rraven/issues/3 (what Raven makes of File Offset)
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TextIO

from audioset_core.errors import UserError
from audioset_core.inputs.delimited import heading, table_in
from audioset_core.marks.mark import Problem, RawMark, RawMarks, Verdict
from audioset_core.marks.names import keys_of_own_name, recording_keys, seconds

KEYS = (
    "clip", "sha256", "uri", "path", "file_path", "filepath", "full_path", "fullname", "begin_path",
    "begin_file", "notated_path", "file", "file_name", "filename", "audio_file", "audio_path",
    "audio", "fname", "recording", "sound_files", "source_file", "segment_id", "id",
)  # fmt: skip
MIDS = ("mid", "mids")
NAMES = (
    "label", "labels", "annotation", "annotations", "species", "class", "classes", "name",
    "category", "event_label", "common_name", "tag", "tags", "sound_type", "scientific_name",
    "type",
)  # fmt: skip
STARTS = (
    "start_s", "begin_time_(s)", "onset_s", "start_time_seconds", "onset", "start", "begin",
    "start_time", "begin_time", "start_(s)", "begin_s", "start_time_(s)", "start_seconds",
)  # fmt: skip
ENDS = (
    "end_s", "end_time_(s)", "offset_s", "end_time_seconds", "offset", "end", "stop", "end_time",
    "end_(s)", "stop_s", "stop_seconds", "end_seconds",
)  # fmt: skip
VERDICTS = ("verdict", "judgement", "is_correct", "correct")
PEOPLE = ("judged_by", "reviewer", "reviewed_by", "annotator", "annotated_by", "observer")
TIMES = ("reviewed_at", "judged_at", "annotated_at", "confirmed_at", "confirmed_at_(utc)")
_BEGIN, _OFFSET, _CONFIRMED = "begin_time_(s)", "file_offset_(s)", "confirmed"
_LIKE_A_START = re.compile("start|begin_t|onset|t_?min|from")
_KNOWN = {*KEYS, *MIDS, *NAMES, *STARTS, *ENDS, *VERDICTS, _OFFSET, _CONFIRMED}

WORDS: Mapping[str, Verdict | None] = {
    **dict.fromkeys(("yes", "y", "present", "true", "1", "positive", "correct", "tp"), "present"),
    **dict.fromkeys(("no", "n", "absent", "false", "0", "negative", "wrong", "fp"), "absent"),
    **dict.fromkeys(("unsure", "u", "?", "uncertain", "maybe"), "unsure"),
    "": None,
}
"""The words of a verdict; an empty cell: not judged."""


def is_raven(first_line: str) -> bool:
    """Whether a first line has Raven's columns."""
    return _BEGIN in {heading(cell) for cell in first_line.split("\t")}


def table_marks(file: TextIO, path: Path, column: str | None, *, raven: bool) -> RawMarks:
    """The marks of a delimited table in an open file (newline="").

    Raises:
        UserError: no column has the classes, or `column` does not exist.
        csv.Error, UnicodeError: it is no such table.
    """
    table = table_in(file, path.name, _KNOWN, is_ragged=True, quotes=not raven)
    yield from row_marks(
        table.headings,
        ((f"line {line}", cells) for line, cells in table.rows),
        path,
        column,
        seen=table.described,
    )


def row_marks(
    headings: Sequence[str],
    rows: Iterable[tuple[str, Sequence[str]]],
    path: Path,
    column: str | None,
    *,
    seen: str,
) -> RawMarks:
    """The marks of rows (place, cells) with headings; `seen` describes the table in a message.

    Raises:
        UserError: no column has the classes, or `column` does not exist.
    """
    there = set(headings)
    names = _named_by(column, there, path) if column else tuple(n for n in NAMES if n in there)
    mids = () if column else tuple(n for n in MIDS if n in there)
    if not names and not mids:
        raise UserError(f"{path}: no column has the classes: name one with --column ({seen})")
    odd = sorted(h for h in there if _LIKE_A_START.match(h)) if not there & set(STARTS) else ()
    if odd:
        raise UserError(
            f"{path}: is {odd[0]!r} the start of a sound? Name the columns start_s and end_s"
        )
    own_name = keys_of_own_name(path)
    known_keys: dict[tuple[str, ...], tuple[str, ...]] = {}
    own_start = "" if _OFFSET not in there else _OFFSET
    for place, cells in rows:
        row = {h: c.strip() for h, c in zip(reversed(headings), reversed(cells), strict=True)}
        verdict = _verdict(row)
        if isinstance(verdict, Problem):
            yield replace(verdict, place=place)
            continue
        start, end = _first(row, STARTS), _first(row, ENDS)
        if own_start and row.get(own_start):
            start, end = _in_own_file(start, end, row[own_start])
        mid, label = _first(row, mids), _unquoted(_first(row, names))
        written = tuple(row[key] for key in KEYS if row.get(key))
        keys = known_keys.setdefault(written, ()) or recording_keys(written) or own_name
        known_keys[written] = keys
        yield RawMark(
            keys,
            start,
            end,
            label or mid,
            place,
            mid if label else "",
            verdict,
            _first(row, PEOPLE),
            _first(row, TIMES),
        )


def _verdict(row: Mapping[str, str]) -> Verdict | Problem | None:
    """The verdict; None: not judged."""
    written = next((row[name] for name in VERDICTS if name in row), None)
    if written is not None:
        word = written.casefold()
        if word not in WORDS:
            return Problem(f"the verdict {written!r} is not one of yes, no, unsure", "")
        return WORDS[word]
    if _CONFIRMED in row:  # of BirdNET: what is not confirmed was not looked at
        return "present" if WORDS.get(row[_CONFIRMED].casefold()) == "present" else None
    return "present"


def _in_own_file(start: str, end: str, offset: str) -> tuple[str, str]:
    """A row's span, counted from the start of its own file."""
    begins, ends, own = seconds(start), seconds(end), seconds(offset)
    if begins is None or ends is None or own is None:
        return start, end
    return repr(own), repr(round(own + ends - begins, 9))


def _named_by(column: str, there: set[str], path: Path) -> tuple[str, ...]:
    if heading(column) not in there:
        from difflib import get_close_matches

        near = get_close_matches(heading(column), there, n=1) or sorted(there)[:6]
        raise UserError(f"{path} has no column {column!r}; there is {', '.join(map(repr, near))}")
    return (heading(column),)


def _first(row: Mapping[str, str], names: Iterable[str]) -> str:
    return next((row[name] for name in names if row.get(name)), "")


def _unquoted(text: str) -> str:
    """Raven's tables have no quoting, but spreadsheets that saved one may have added it."""
    if len(text) > 1 and text[0] == text[-1] == '"':
        return text[1:-1].replace('""', '"')
    return text


def parquet_rows(path: Path) -> tuple[tuple[str, ...], Iterator[tuple[str, Sequence[str]]]]:
    """The headings and the (place, cells) of a Parquet file.

    Raises:
        UserError: pyarrow is not installed, or cannot read it.
    """
    try:
        import pyarrow.parquet
    except ImportError:
        raise UserError("Parquet needs pyarrow: pip install 'audioset-flows[parquet]'") from None
    try:
        table = pyarrow.parquet.ParquetFile(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise UserError(f"cannot read {path}: {error}") from None
    names = tuple(table.schema_arrow.names)

    def rows() -> Iterator[tuple[str, Sequence[str]]]:
        n = 0
        for batch in table.iter_batches():
            for row in batch.to_pylist():
                n += 1
                yield f"row {n}", ["" if row[k] is None else str(row[k]) for k in names]

    return tuple(map(heading, names)), rows()
