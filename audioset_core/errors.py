"""Every error this library raises on purpose.

AudiosetError
├── UserError            the person's input is wrong: one clear line, exit code 2
│   ├── UnknownNodeError     no such ontology node (carries the nearest names)
│   ├── OntologyError        an ontology file that is not one
│   └── WeightsError         weights missing, damaged, or of another model
└── AudioError           one recording cannot be labelled (carries a Reason)
"""

from __future__ import annotations

from enum import StrEnum


class Reason(StrEnum):
    """Why a recording was not labelled, as a person reads it."""

    EMPTY = "empty"
    NOT_AUDIO = "not audio"
    UNSUPPORTED = "unsupported format"
    TRUNCATED = "truncated"
    DAMAGED = "damaged"
    UNREADABLE = "unreadable"
    NO_SUCH_FILE = "no such file"
    VANISHED = "vanished"
    CHANGED = "changed while being read"
    NOT_A_FILE = "not a regular file"
    NOT_FINITE = "samples are not finite"
    OUT_OF_RANGE = "sample rate or channels out of range"
    CRASHED = "decoder crashed"
    TOO_SLOW = "decoder too slow"
    TOO_LARGE = "decoder out of memory"
    TOO_LONG = "too long for its size"
    INTERNAL = "internal error"

    @property
    def is_permanent(self) -> bool:
        """Whether the same bytes would fail again; if not, the next run tries the file again."""
        return self not in _TRANSIENT


_TRANSIENT = frozenset(
    {Reason.NO_SUCH_FILE, Reason.UNREADABLE, Reason.VANISHED, Reason.CHANGED, Reason.INTERNAL}
)


class AudiosetError(Exception):
    """The base class of all of them."""


class UserError(AudiosetError):
    """The input is wrong; the message says what is allowed and what to do next."""


class UnknownNodeError(UserError):
    """No ontology node has the given name, MID or path."""

    def __init__(self, text: str, nearest: tuple[str, ...]) -> None:
        # The arguments themselves, not a message: errors are pickled by them.
        super().__init__(text, nearest)
        self.text = text
        self.nearest = nearest

    def __str__(self) -> str:
        hint = f"; did you mean {', '.join(map(repr, self.nearest))}?" if self.nearest else ""
        return f"no AudioSet class or category is called {self.text!r}{hint}"


class OntologyError(UserError):
    """An ontology file is malformed: cycle, missing child, duplicate id."""


class WeightsError(UserError):
    """Weights are missing, damaged, or belong to another model."""


class AudioError(AudiosetError):
    """One recording cannot be labelled."""

    def __init__(self, reason: Reason, detail: str = "") -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}" if self.detail else str(self.reason)
