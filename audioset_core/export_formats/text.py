"""Numbers and names as text, the same in every format."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal
from typing import Any

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")


def number(value: float) -> str:
    """The shortest decimal that reads back as the same double, never with an exponent.

    >>> number(1e-7)
    '0.0000001'
    """
    text = repr(value)
    return format(Decimal(text), "f") if "e" in text else text


def one_line(text: str) -> str:
    """The text as one line: rows of tabs, line ends and control characters become one space."""
    return _CONTROL.sub(" ", text)


def delimited(rows: Iterable[Sequence[Any]], delimiter: str) -> Iterator[str]:
    """Lines of CSV or TSV; cells are quoted only where that is necessary."""
    writer = csv.writer(_Echo(), delimiter=delimiter, lineterminator="\n")
    for row in rows:
        # The writer returns what the file's write returned.
        yield writer.writerow(row)


class _Echo:
    def write(self, text: str) -> str:
        """Return the text instead of storing it."""
        return text
