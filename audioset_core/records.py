"""Plain records that the library makes and the database keeps: no numpy, nothing to compute.

`db` may import this module and nothing else of the library.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from audioset_core.errors import UserError


@dataclass(frozen=True, slots=True)
class Node:
    """One class of sounds.

    Abstract: a heading that nobody would use as a label. Blacklisted: not used by the raters;
    some model outputs are blacklisted all the same, so both are flags to show, not to filter by.
    """

    mid: str
    name: str
    child_mids: tuple[str, ...] = ()
    is_abstract: bool = False
    is_blacklisted: bool = False
    description: str | None = None
    citation_uri: str | None = None
    examples: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Statement:
    """Something that a file says of its recording, and where it says so.

    ``start`` is the time in ISO 8601 where it states when the recording began; ``doubt`` says why
    that is not used, or which statement before it differs.
    """

    source: str
    key: str
    value: str
    start: str | None = None
    doubt: str | None = None

    @property
    def name(self) -> str:
        """Where it stands: source and key."""
        return f"{self.source} {self.key}"


@dataclass(frozen=True, slots=True)
class ClassScore:
    """One category over a whole clip: highest and mean score of its patches."""

    category_index: int
    peak: float
    mean: float


@dataclass(frozen=True, slots=True)
class Detection:
    """Consecutive patches of one category at or above the threshold; `end_patch` is inclusive."""

    category_index: int
    start_patch: int
    end_patch: int
    peak: float
    mean: float
    peak_patch: int


@dataclass(frozen=True, slots=True)
class Threshold:
    """Where a class begins, and down to where it goes on: 0 < low <= high <= 1.

    Raises:
        UserError: they are not like that.
    """

    high: float
    low: float

    def __post_init__(self) -> None:
        if not 0 < self.low <= self.high <= 1:
            raise UserError(
                f"thresholds high {self.high:g} and low {self.low:g}: needed is "
                "0 < low <= high <= 1"
            )


@dataclass(frozen=True, slots=True)
class ThresholdSet:
    """Thresholds by MID, and for every other class (None: these are not detected).

    `model`: the one whose scores they are for; None for any. `how` they were made, in JSON.
    """

    model: str | None
    default: Threshold | None
    by_mid: Mapping[str, Threshold]
    min_duration_s: float = 0.0
    merge_gap_s: float = 0.0
    how: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TimeRule:
    """How the files below a folder (all, if it is empty) tell their time.

    `pattern` is as for `strptime`; None means the usual names. `timezone` None: UTC is assumed.
    """

    folder: str = ""
    pattern: str | None = None
    timezone: str | None = None


@dataclass(frozen=True, slots=True)
class SiteRule:
    """What belongs to a site: a folder, or a recorder by its serial number (`kind`).

    With days (ISO 8601, the last one included) only what was recorded on them, by its own clock.
    """

    kind: str
    value: str
    first_day: str | None = None
    last_day: str | None = None


@dataclass(frozen=True, slots=True)
class Site:
    """A place where recordings are made; `id` is 0 before it is stored."""

    name: str
    latitude_deg: float
    longitude_deg: float
    timezone: str | None = None
    notes: str | None = None
    rules: tuple[SiteRule, ...] = ()
    id: int = 0
