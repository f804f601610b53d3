"""Remarks on recordings that were labelled: what is missing, added or left out.

A recording is labelled as far as it can be decoded. Each difference from what the file states, or
from what a player would show, is a remark beside its labels.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from enum import StrEnum

from audioset_core.errors import AudioError, Reason
from audioset_core.records import TROUBLES, Health


class RemarkKind(StrEnum):
    """What a remark is about; the text is what a person reads first."""

    TRUNCATED = "truncated"
    """The sound ends before the end that the file states."""
    DAMAGED = "damaged"
    """A part is damaged: it has silence, or not what was recorded."""
    GAP = "gap"
    """Time stamps jump: silence is put where nothing was recorded."""
    UNREAD = "more follows"
    """More sound follows, which is not labelled."""
    SIZE = "wrong size"
    """The header's size is not the recording's; all of it is labelled."""
    JOINED = "joined"
    """The file has several recordings, one after the other; all of them are labelled."""
    LATE = "late start"
    """The sound begins later than the recording: silence is put before it."""
    TRACKS = "tracks"
    """The file has other audio tracks, or lacks the track that was asked for."""
    OPPOSED = "opposed channels"
    """The channels cancel each other in their mean: only the loudest one is labelled."""
    SILENT = "silent"
    """Half of it or more is digital silence. This and what follows: `records.TROUBLES`."""
    FAINT = "faint"
    """Nothing in it is louder than a converter's own noise."""
    DEAD_CHANNEL = "dead channel"
    """One channel has no sound, others have."""
    DROPOUTS = "dropouts"
    """Samples stay the same for milliseconds, amid sound."""
    CLIPPING = "clipping"
    """The sound was louder than the recorder could record."""
    OVER = "over full scale"
    """Samples in floating point are far beyond full scale."""
    DC_OFFSET = "DC offset"
    """The samples lie on one side of zero."""

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
    """A remark on a recording, and the part that it is about (None: no part in particular)."""

    kind: RemarkKind
    detail: str
    start_s: float | None = None
    end_s: float | None = None

    def __str__(self) -> str:
        return f"{self.kind}: {self.detail}"


def is_partial(remarks: Iterable[Remark]) -> bool:
    """Whether something that was recorded is not labelled."""
    return any(remark.kind.is_partial for remark in remarks)


def health_remarks(health: Health) -> tuple[Remark, ...]:
    """What is wrong with a recording, by its measures."""
    measures = asdict(health)
    found = ((each, measures[each.measure]) for each in TROUBLES)
    return tuple(
        Remark(RemarkKind(each.kind), each.text.format(**measures))
        for each, value in found
        if value is not None and (value <= each.limit if each.is_below else value >= each.limit)
    )


STRICTLY = "; refused by --strict"
"""The end of the detail of a refusal; a run without --strict labels such a file."""


def refuse_partial(remarks: Iterable[Remark]) -> None:
    """Refuse a recording that is not whole.

    Raises:
        AudioError: for the first remark that makes the recording partial.
    """
    for remark in remarks:
        if remark.kind.is_partial:
            raise AudioError(_REASONS[remark.kind], remark.detail + STRICTLY)


MOST_REMARKS = 50
"""Remarks kept of a recording: a stream may have thousands of gaps."""


class Remarks:
    """Collects the remarks on one recording; those beyond the limit are only counted, by kind."""

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
        """Add a remark; it is joined to an equal remark whose part ends where this part begins."""
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
        """Remove a kind of remark from a time on, because a better one follows."""
        self._found = [
            remark
            for remark in self._found
            if remark.kind is not kind or remark.start_s is None or remark.start_s < from_s
        ]

    def has(self, kind: RemarkKind) -> bool:
        """Whether there is a remark of that kind."""
        return any(remark.kind is kind for remark in self._found)

    def extend(self, remarks: Iterable[Remark]) -> None:
        """Add the remarks of another reader."""
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
