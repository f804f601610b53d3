"""Tables in text files, in the forms that programs write: separators, encodings, headings.

Excel writes semicolons where the comma is the decimal mark, "Unicode text" as UTF-16 with tabs, and
a first line ``sep=;``; PowerShell writes a first line ``#TYPE ...``.

Source: RFC 4180; https://github.com/BodenmillerGroup/steinbock/issues/28,
https://github.com/shancarter/mr-data-converter/issues/52
"""

from __future__ import annotations

import codecs
import csv
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from audioset_core.errors import UserError

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}

_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_SAMPLE_BYTES = 4096
_STATED = re.compile(r'"?sep=([^\w\s"]|\t)"?[,;\s]*', re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Table:
    """A table whose first line names its columns.

    `columns` are the names as written, `headings` the same names made comparable by `heading`.
    `rows` are (line number, cells), with as many cells as columns; blank lines are left out.
    """

    columns: tuple[str, ...]
    headings: tuple[str, ...]
    separator: str
    rows: Iterator[tuple[int, list[str]]]

    @property
    def described(self) -> str:
        """The first line as it was understood, for a message."""
        named = ", ".join(map(repr, self.columns[:6])) or "nothing"
        more = ", ..." if len(self.columns) > 6 else ""
        kind = SEPARATORS.get(self.separator, repr(self.separator))
        return f"its first line, separated by {kind}, reads {named}{more}"


def encoding_of(path: Path) -> str:
    """The encoding by a file's first bytes; UTF-8 where they do not show one.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        start = file.read(_SAMPLE_BYTES)
    for bom, encoding in _BOMS:
        if start.startswith(bom):
            return encoding
    # Text of Latin letters as UTF-16: every second byte is zero.
    for first, encoding in ((1, "utf-16-le"), (0, "utf-16-be")):
        if len(start) >= 8 and start[first::2].count(0) > 0.7 * len(start[first::2]):
            return encoding
    return "utf-8"


def heading(text: str) -> str:
    """A column's name in the form in which names are compared.

    >>> heading(" File Name")
    'file_name'
    """
    return re.sub(r"[\s_-]+", "_", text.strip().strip("\"'").strip()).casefold()


@contextmanager
def open_table(path: Path, known: Collection[str]) -> Iterator[Table]:
    """Open a table; `known` are the headings by which a separator is recognised.

    Raises:
        UserError: a row has more or fewer cells than the first line.
        OSError, UnicodeError, csv.Error: it cannot be read.
    """
    with path.open(newline="", encoding=encoding_of(path)) as file:
        yield table_in(file, path.name, known)


def table_in(
    file: TextIO, name: str, known: Collection[str], *, is_ragged: bool = False, quotes: bool = True
) -> Table:
    """The table in an open file (newline=""); messages call the file `name`.

    `is_ragged`: short rows are filled up and long rows cut, instead of refused. Without `quotes`,
    quotation marks are text, as in Raven's tables.

    Raises:
        UserError: a row has more or fewer cells than the first line.
        UnicodeError, csv.Error: it cannot be read.
    """
    n_before, first, stated = _first_line(file)
    separator = stated or _separator(first, known)
    columns = tuple(next(csv.reader([first], delimiter=separator), ()))
    while columns and not columns[-1].strip():
        columns = columns[:-1]
    cells = csv.reader(
        file, delimiter=separator, quoting=csv.QUOTE_MINIMAL if quotes else csv.QUOTE_NONE
    )
    filled = ((n_before + cells.line_num, row) for row in cells if any(map(str.strip, row)))
    n = len(columns)
    rows = _ragged(filled, n) if is_ragged else _rows(name, filled, n, separator)
    names = tuple(column.strip() for column in columns)
    return Table(names, tuple(map(heading, columns)), separator, rows)


def _first_line(file: TextIO) -> tuple[int, str, str | None]:
    """(number of the heading line, the heading line, the separator that ``sep=`` states)."""
    stated = None
    for number, line in enumerate(file, 1):
        text = line.rstrip("\r\n")
        said = _STATED.fullmatch(text)
        if said:
            stated = said[1]
        elif text.strip() and not text.startswith("#TYPE"):
            return number, text, stated
    return 0, "", stated


def _separator(line: str, known: Collection[str]) -> str:
    """The separator that gives the most known names; among equals, the most names."""

    def named(separator: str) -> tuple[int, int]:
        cells = next(csv.reader([line], delimiter=separator), [])
        return sum(heading(cell) in known for cell in cells), len(cells)

    return max(SEPARATORS, key=named)


_Rows = Iterator[tuple[int, list[str]]]


def _ragged(rows: _Rows, n_columns: int) -> _Rows:
    for line, row in rows:
        yield line, (row + [""] * n_columns)[:n_columns]


def _rows(name: str, rows: _Rows, n_columns: int, separator: str) -> _Rows:
    for line, row in rows:
        if len(row) > n_columns and not any(map(str.strip, row[n_columns:])):
            row = row[:n_columns]
        if len(row) != n_columns:
            kind = SEPARATORS.get(separator, repr(separator))
            raise UserError(
                f"{name}, line {line}: not {n_columns} columns as in the first line "
                f"(separated by {kind})"
            )
        yield line, row
