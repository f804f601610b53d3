"""Text of recordings and people as Markdown that shows it as it is."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from flows.terminal import one_line

# What Markdown takes for markup; the last three are what GitHub's takes for a link.
_MARKUP = re.compile(r"[\\`*_\[\]~!|]|:(?=//)|@|(?<=www)\.", re.IGNORECASE)
# A bar needs the backslash: one of Prefect's two sets of pages shows `&#124;` as it stands.
_AS_ENTITY = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})
_BEGINS_BLOCK = re.compile(r"(?:[-+=#]|(?<=\d)[.)])")
_MAY_BE_MARKUP = re.compile(
    r"[\\`*~@]|<[a-z/!?]|&[#\w]|\][(\[:]|!\[|://|www\.|(?<!\w)_|_(?!\w)|^(?![/\w])|^\d+[.)]",
    re.IGNORECASE,
)


def cleaned(text: str) -> str:
    """Text that Markdown shows as it is, in a line of its own and in a table; nothing links."""
    line = one_line(text)
    body = line.lstrip(" ")
    indent = "&#32;" * (len(line) - len(body))
    digits = len(body) - len(body.lstrip("0123456789"))
    block = _BEGINS_BLOCK.match(body, digits)
    shown = _MARKUP.sub(r"\\\g<0>", body.translate(_AS_ENTITY))
    return indent + (f"{shown[:digits]}\\{shown[digits:]}" if block else shown)


def as_code(text: str) -> str:
    """Text as code, also in a table; what code cannot hold there is text that is `cleaned`."""
    line = one_line(text)
    return cleaned(line) if re.search(r"[`|]|^ | $|^$", line) else f"`{line}`"


def as_cell(text: str) -> str:
    """Text for a cell of a table artifact.

    One of Prefect's two sets of pages takes a cell for Markdown, the other for plain text: what
    looks like markup is cleaned, and shows its backslashes on the other.
    """
    line = one_line(text)
    return cleaned(line) if _MAY_BE_MARKUP.search(line) else line


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """The lines of a table whose cells are Markdown already."""
    return [
        f"| {' | '.join(head)} |",
        "|" + "---|" * len(head),
        *(f"| {' | '.join(row)} |" for row in rows),
    ]
