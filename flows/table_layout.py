"""How a table fits a terminal: words stay whole, a path keeps its end, numbers are never broken.

Where the columns do not fit side by side, each row becomes a few lines, a name and a value each.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.cells import cell_len, set_cell_size

WIDE_GAP, NARROW_GAP = 3, 1
"""Cells between two columns: where all fit as they are, and where they do not."""
_EDGES = 2
# A path may be shortened to this, and a longer word (a digest, an address) be broken.
_LEAST_PATH, _LONGEST_WORD = 20, 24
PATHS = "file"
"""The column whose cells are paths."""
_ELLIPSIS = "…"


def column_widths(
    columns: Sequence[str], rows: Sequence[Sequence[str]], width: int
) -> tuple[list[int], int] | None:
    """Cells of each column and of the gap between two; None if they do not fit side by side.

    Columns '>x' are numbers: as wide as the widest. Others give way, the widest first, down to
    their longest word.

    >>> column_widths(("class", ">hours"), [("Wild animals", "0.0022")], 80)
    ([12, 6], 3)
    >>> column_widths(("class", ">hours"), [("Wild animals", "0.0022")], 16)
    ([7, 6], 1)
    >>> column_widths(("class", ">hours"), [("Wild animals", "0.0022")], 12) is None
    True
    """
    cells = list(zip(columns, *rows, strict=True)) if rows else [(name,) for name in columns]
    widths = [max(cell_len(cell.removeprefix(">")) for cell in column) for column in cells]
    if sum(widths) + WIDE_GAP * (len(widths) - 1) + _EDGES <= width:
        return widths, WIDE_GAP
    least = [
        natural if name.startswith(">") else min(natural, _least(name, column))
        for name, natural, column in zip(columns, widths, cells, strict=True)
    ]
    room = width - NARROW_GAP * (len(widths) - 1) - _EDGES
    if sum(least) > room:
        return None
    while sum(widths) > room:
        gives = [each for each in range(len(widths)) if widths[each] > least[each]]
        widths[max(gives, key=lambda each: widths[each])] -= 1
    return widths, NARROW_GAP


def shortened(path: str, width: int) -> str:
    """A path that fits, cut at its beginning.

    >>> shortened("/home/me/recordings/morning.flac (missing)", 24)
    '…/morning.flac (missing)'
    """
    if cell_len(path) <= width:
        return path
    return _ELLIPSIS + set_cell_size(path[::-1], width - 1).rstrip()[::-1]


def record_lines(
    columns: Sequence[str], rows: Sequence[Sequence[str]], width: int
) -> Iterator[str]:
    """A row as lines of a name and a value, an empty line between two rows."""
    names = [column.removeprefix(">") for column in columns]
    indent = max(map(cell_len, names)) + 2 if any(names) else 2
    for number, row in enumerate(rows):
        if number and any(names):
            yield ""
        for place, (name, cell) in enumerate(zip(names, row, strict=True)):
            is_heading = not any(names) and place == 0
            room = width if is_heading else width - indent
            first = "" if is_heading else f"{name:{indent}}"
            value = shortened(cell, room) if name == PATHS else cell
            for line in wrapped(value, room):
                yield f"{first}{line}".rstrip()
                first = " " * (0 if is_heading else indent)


def wrapped(text: str, width: int) -> Iterator[str]:
    """Lines at blanks; a word that is longer than a line goes on in the next."""
    line = ""
    for word in text.split(" "):
        if line and cell_len(line) + 1 + cell_len(word) > width:
            yield line
            line = word
        else:
            line = f"{line} {word}" if line else word
        while cell_len(line) > width:
            yield line[:width]
            line = line[width:]
    yield line


def _least(name: str, column: Sequence[str]) -> int:
    if name == PATHS:
        return _LEAST_PATH
    words = (word for cell in column for word in cell.split())
    return max((min(cell_len(word), _LONGEST_WORD) for word in words), default=0)
