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
class Health:
    """The state of a recording, over the part that was decoded; levels are of all its channels."""

    measured_s: float
    clipped_share: float
    """Share of the samples in clipped runs, in the channel that has most."""
    n_dropouts: int
    """Stretches of equal samples amid sound, in the channel that has most."""
    dropout_s: float
    dc_offset: float
    """How far the mean is from 0, in the channel in which it is farthest: 1 is full scale, or the
    peak if that is beyond."""
    silent_share: float
    """Share of the time in which the samples of every channel stay the same for 100 ms."""
    channel_gap_db: float | None
    """How far the weakest channel is below the loudest; None of one channel."""
    weakest_channel: int | None
    """Counted from 1."""
    peak_dbfs: float
    rms_dbfs: float
    """Without the mean. Both levels are -150 for digital silence."""
    loudness_lufs: float | None = None
    """Integrated loudness by ITU-R BS.1770-4; None: not asked for, or no block above -70 LUFS."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """Something that may be wrong with a recording: a measure of `Health` beyond a limit."""

    kind: str
    measure: str
    limit: float
    text: str
    """Format of the remark, with the fields of `Health`."""
    is_below: bool = False
    """The trouble begins at the limit and lies below it, not above."""


TROUBLES = (
    Trouble("silent", "silent_share", 0.5, "{silent_share:.0%} of it is digital silence"),
    Trouble("faint", "rms_dbfs", -90, "its level is {rms_dbfs:.0f} dBFS", is_below=True),
    Trouble("dead channel", "channel_gap_db", 30,
            "channel {weakest_channel} is {channel_gap_db:.0f} dB below the loudest"),
    Trouble("dropouts", "n_dropouts", 3, "{n_dropouts:,} dropouts, {dropout_s:.2f} s in all"),
    Trouble("clipping", "clipped_share", 0.01, "{clipped_share:.1%} of the samples are clipped"),
    Trouble("over full scale", "peak_dbfs", 6, "its peak is {peak_dbfs:+.0f} dBFS"),
    Trouble("DC offset", "dc_offset", 0.01, "its mean is {dc_offset:.1%} of full scale off 0"),
)  # fmt: skip
"""The worst first. The limits are ours; docs/health.md has the reason for each.

-90 dBFS is a step of 16 bits: nothing but rounding is below."""


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
