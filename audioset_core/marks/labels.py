"""Marks in files about one recording: Audacity's label tracks, WebVTT, Praat's TextGrids.

Source: manual.audacityteam.org/man/importing_and_exporting_labels.html (a line that begins with a
backslash has the label's frequencies), www.w3.org/TR/webvtt1,
www.fon.hum.uva.nl/praat/manual/TextGrid_file_formats.html (only free-standing numbers, quoted texts
and flags count, so that the long and the short format read alike)
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from audioset_core.errors import UserError
from audioset_core.marks.mark import Problem, RawMark, RawMarks
from audioset_core.marks.names import keys_of_own_name, recording_keys, seconds

# Older programs write blanks between the columns; a label may be missing.
_AUDACITY = re.compile(r"\s*(\S+)(?:\t\s*|\s+)(\S+)(?:(?:\t|\s+)(.*))?")
_CUE = re.compile(r"(\S+)\s+-->\s+(\S+)(?:\s.*)?")
_SCORE = re.compile(r"\s+[01]\.\d\d$")
_TOKENS = re.compile(r'"((?:[^"]|"")*)"|(?<!\S)(<\w+>|[+-]?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)(?!\S)')


def is_audacity(line: str) -> bool:
    """Whether a line is one of Audacity's labels."""
    found = _AUDACITY.fullmatch(line.rstrip("\r\n"))
    return found is not None and None not in (seconds(found[1]), seconds(found[2]))


def audacity_marks(lines: Iterable[str], path: Path) -> RawMarks:
    """A label a line: start, end, text. Empty lines and lines with frequencies are skipped."""
    keys = keys_of_own_name(path)
    for n, line in enumerate(lines, 1):
        if not line.strip() or line.lstrip().startswith("\\"):
            continue
        found = _AUDACITY.fullmatch(line.rstrip("\r\n"))
        if found is None:
            yield Problem("not a label (start, end and text, with tabs between them)", f"line {n}")
            continue
        label = (found[3] or "").partition("\t")[0].strip()
        yield RawMark(keys, found[1], found[2], label, f"line {n}")


def webvtt_marks(lines: Iterable[str], path: Path) -> RawMarks:
    """Cues; a comment may have the recording's address, as `audioset export webvtt` writes it."""
    keys = keys_of_own_name(path)
    span: tuple[str, str] | None = None
    for n, line in enumerate(lines, 1):
        text = line.strip()
        if text.startswith("file://"):
            keys = recording_keys((text,))
        elif cue := _CUE.fullmatch(text):
            span = cue[1], cue[2]
        elif not text:
            span = None
        elif span is not None:
            plain = html.unescape(re.sub(r"<[^>]*>", "", text))
            yield RawMark(keys, *span, _SCORE.sub("", plain), f"line {n}")


def textgrid_marks(text: str, path: Path) -> RawMarks:
    """Intervals and points of every tier that have a text.

    Raises:
        UserError: the file ends early, or is not a TextGrid.
    """
    keys = keys_of_own_name(path)
    tokens = _Tokens(text, path)
    for wanted in ("ooTextFile", "TextGrid"):
        if not tokens.text().startswith(wanted):
            raise UserError(f"{path} is not a TextGrid in Praat's text format")
    tokens.number(), tokens.number(), tokens.flag()
    for tier in range(1, int(tokens.number()) + 1):
        is_intervals = tokens.text() == "IntervalTier"
        name = tokens.text()
        tokens.number(), tokens.number()
        for entry in range(1, int(tokens.number()) + 1):
            start = tokens.number()
            end = tokens.number() if is_intervals else start
            label = tokens.text().strip()
            if label:
                place = f"tier {tier} ({name}), entry {entry}"
                yield RawMark(keys, repr(start), repr(end), label, place)


class _Tokens:
    def __init__(self, text: str, path: Path) -> None:
        self._found: Iterator[re.Match[str]] = _TOKENS.finditer(text)
        self._path = path

    def text(self) -> str:
        found = self._next()[1]
        if found is None:
            raise UserError(f"{self._path}: damaged: a text is missing")
        return found.replace('""', '"')

    def number(self) -> float:
        value = seconds(self._next()[2] or "")
        if value is None:
            raise UserError(f"{self._path}: damaged: a number is missing")
        return value

    def flag(self) -> str:
        return self._next()[2] or ""

    def _next(self) -> re.Match[str]:
        found = next(self._found, None)
        if found is None:
            raise UserError(f"{self._path}: damaged: it ends early")
        return found
