"""What a person should know of a recording that was labelled: what is missing, added or left out.

A recording is labelled as far as it decodes. Whatever differs from what the file states, or from
what a player would show, is a remark beside its labels.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from audioset_core.errors import AudioError, Reason


class RemarkKind(StrEnum):
    """What a remark is about; the text is what a person reads first."""

    TRUNCATED = "truncated"
    """The sound ends before the end that the file states."""
    DAMAGED = "damaged"
    """A part is spoilt: what stands there is silence, or not what was recorded."""
    GAP = "gap"
    """Time stamps jump: silence stands where nothing was recorded."""
    UNREAD = "more follows"
    """Sound follows that is not labelled."""
    SIZE = "wrong size"
    """The header's size is not the recording's; all of it is labelled."""
    JOINED = "joined"
    """Several recordings stand one behind the other in the file; all of them are labelled."""
    LATE = "late start"
    """The sound begins after the recording does: silence stands before it."""
    TRACKS = "tracks"
    """The file has other audio tracks, or not the one that was asked for."""
    OPPOSED = "opposed channels"
    """The channels cancel each other in their mean: the loudest one alone is labelled."""

    @property
    def is_partial(self) -> bool:
        """Whether something that was recorded is not labelled."""
        return self in _REASONS


_REASONS = {
    RemarkKind.TRUNCATED: Reason.TRUNCATED,
    RemarkKind.DAMAGED: Reason.DAMAGED,
    RemarkKind.GAP: Reason.DAMAGED,
    RemarkKind.UNREAD: Reason.UNSUPPORTED,
}


@dataclass(frozen=True, slots=True)
class Remark:
    """A remark on a recording, and the part of it that is meant (None: no part in particular)."""

    kind: RemarkKind
    detail: str
    start_s: float | None = None
    end_s: float | None = None

    def __str__(self) -> str:
        return f"{self.kind}: {self.detail}"


def is_partial(remarks: Iterable[Remark]) -> bool:
    """Whether something that was recorded is not labelled."""
    return any(remark.kind.is_partial for remark in remarks)


STRICTLY = "; refused by --strict"
"""How the detail of a refusal ends that a run without it does not repeat."""


def refuse_partial(remarks: Iterable[Remark]) -> None:
    """Raises: AudioError: the first remark by which the recording is not whole."""
    for remark in remarks:
        if remark.kind.is_partial:
            raise AudioError(_REASONS[remark.kind], remark.detail + STRICTLY)


MOST_REMARKS = 50
"""Remarks kept of a recording: a stream may have thousands of gaps."""


class Remarks:
    """The remarks on one recording, as they come; one kind's beyond the limit are counted only."""

    def __init__(self) -> None:
        self._found: list[Remark] = []
        self._n_more: dict[RemarkKind, int] = {}

    def add(
        self,
        kind: RemarkKind,
        detail: str,
        start_s: float | None = None,
        end_s: float | None = None,
    ) -> None:
        """One more; a part that follows its kind's last one directly becomes one with it."""
        for at, last in enumerate(self._found):
            if (last.kind, last.detail) == (kind, detail):
                if start_s is None or last.end_s is None or start_s > last.end_s + _TOUCHES_S:
                    continue
                if end_s is not None:
                    self._found[at] = Remark(kind, detail, last.start_s, max(end_s, last.end_s))
                return
        if len(self._found) >= MOST_REMARKS:
            self._n_more[kind] = self._n_more.get(kind, 0) + 1
            return
        self._found.append(Remark(kind, detail, _rounded(start_s), _rounded(end_s)))

    def drop_end(self, kind: RemarkKind, from_s: float) -> None:
        """Leave out what is said of the end, for something better is known of it."""
        self._found = [
            remark
            for remark in self._found
            if remark.kind is not kind or remark.start_s is None or remark.start_s < from_s
        ]

    def has(self, kind: RemarkKind) -> bool:
        """Whether there is a remark of that kind."""
        return any(remark.kind is kind for remark in self._found)

    def extend(self, remarks: Iterable[Remark]) -> None:
        """Take another reader's remarks in."""
        for remark in remarks:
            self.add(remark.kind, remark.detail, remark.start_s, remark.end_s)

    def all(self) -> tuple[Remark, ...]:
        """Every remark, in the order of the recording."""
        more = [Remark(kind, f"{n:,} more of these") for kind, n in self._n_more.items()]
        return (*sorted(self._found, key=_position), *more)


_TOUCHES_S = 0.05


def _position(remark: Remark) -> tuple[float, str]:
    return (-1.0 if remark.start_s is None else remark.start_s, remark.kind)


def _rounded(time_s: float | None) -> float | None:
    return None if time_s is None else round(time_s, 3)
