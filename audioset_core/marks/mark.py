"""A mark as a file has it, and as it is understood."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

Verdict = Literal["present", "absent", "unsure"]


@dataclass(frozen=True, slots=True)
class RawMark:
    """A mark as it is written: `keys` name the recording, the surest first; `place` is in the file.

    Without `start` and `end` it is of the whole recording. `mid` is given where the file has both.
    `verdict` None: the person said nothing.
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
    """A class in a span (None: all) of a recording, in seconds."""

    keys: tuple[str, ...]
    span_s: tuple[float, float] | None
    mid: str
    verdict: Verdict
    place: str
    by: str = ""
    at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that could not be used; equal texts are one problem at several places."""

    text: str
    place: str


@dataclass(slots=True)
class MarkFile:
    """What a file says. `counts`: by reason, how many lines say nothing (and are no mistake).

    `silent`: what the recording may be called in which nothing was marked.
    """

    name: str
    format: str
    marks: list[Mark] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    silent: tuple[str, ...] = ()


RawMarks = Iterator[RawMark | Problem]
