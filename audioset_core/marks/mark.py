"""A mark as it is written in a file, and as it is understood."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

Verdict = Literal["present", "absent", "unsure"]


@dataclass(frozen=True, slots=True)
class RawMark:
    """A mark as written. `keys` are names of the recording, the most likely first.

    Without `start` and `end` the mark is of the whole recording. `mid` is given where the file has
    the label and the MID. `verdict` None: the person did not judge. `place`: the line in the file.
    """

    keys: tuple[str, ...]
    start: str
    end: str
    label: str
    place: str
    mid: str = ""
    verdict: Verdict | None = "present"
    by: str = ""
    at: str = ""


@dataclass(frozen=True, slots=True)
class Mark:
    """A class in a span of a recording, in seconds; `span_s` None: in the whole recording."""

    keys: tuple[str, ...]
    span_s: tuple[float, float] | None
    mid: str
    verdict: Verdict
    place: str
    by: str = ""
    at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that could not be used; equal texts are one problem in several places."""

    text: str
    place: str


@dataclass(slots=True)
class MarkFile:
    """The content of a file. `counts`: by reason, how many lines were ignored without being wrong.

    `silent`: the names of the recording, if nothing was marked in it.
    """

    name: str
    format: str
    marks: list[Mark] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    silent: tuple[str, ...] = ()


RawMarks = Iterator[RawMark | Problem]
