"""What queries return: plain frozen records. Scores are in [0, 1], times in seconds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from db.records import Clip, Remark


Track = int | Literal["default", "all"]
"""Of a recording's audio tracks: a number from 1, the one that FFmpeg chooses, or all mixed."""


def track_of(parameters: Mapping[str, Any] | None) -> Track:
    """Which track a labelling is of, by its set of parameters; None: there is no labelling.

    >>> track_of({"patch_hop_s": 0.48, "extra": {"track": 2}}), track_of(None)
    (2, 'default')
    """
    track: Track = (parameters or {}).get("extra", {}).get("track", "default")
    return track


@dataclass(frozen=True, slots=True)
class Hit:
    """A clip in a subtree: its best category there, and that category's best interval.

    `path` is the first of `n_sources` (None once every copy is gone); the interval is None where
    no patch reached the detection threshold. The last two are when the recording and the interval
    began, on the recorder's clock, where that is known. `window_s`: how long the sound is that one
    score is of; the best one's begins at `peak_s`.
    """

    clip: str
    path: bytes | None
    path_text: str | None
    n_sources: int
    is_missing: bool
    mid: str
    name: str
    score: float
    start_s: float | None
    end_s: float | None
    peak_s: float | None
    window_s: float
    duration_s: float
    site: str | None
    recorded_at: datetime | None = None
    heard_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class HeardSound:
    """A class from one time to another in a clip, and the recording and labelling that it is of.

    `sample_rate_hz`, `n_samples` (per channel), `n_channels` and `format` are the recording's own.
    """

    clip: str
    mid: str
    name: str
    score: float
    start_s: float
    end_s: float
    n_samples: int
    sample_rate_hz: int
    n_channels: int
    format: str
    model: str
    model_version: str
    is_partial: bool
    track: Track


@dataclass(frozen=True, slots=True)
class SourceReport:
    """A place where the clip was seen."""

    path: bytes
    path_text: str
    status: str
    user_id: str | None
    meta: dict[str, Any] | None
    recorded_unix_ms: int | None
    recorded_utc_offset_s: int | None
    recorded_by: str | None
    """How the start was found, and who states another one."""
    site: str | None
    site_by: str | None
    """Who says so, and who says something else."""


@dataclass(frozen=True, slots=True)
class LabellingReport:
    """A clip under one model and one set of parameters.

    `patch_hop_s` and `window_s` are of the rows of its files, `step_s` is the hop of detections.
    """

    model: str
    model_version: str
    status: str
    is_current: bool
    is_beside: bool
    """Whether it is a taught model's that counts beside the current one."""
    labelled_at: datetime | None
    n_patches: int | None
    scores_path: str | None
    embeddings_path: str | None
    note: str | None
    patch_hop_s: float
    window_s: float
    step_s: float
    score_floor: float
    detection_threshold: float
    is_partial: bool
    track: Track = "default"
    """Which of the recording's audio tracks was labelled."""


@dataclass(frozen=True, slots=True)
class Label:
    """A category of a clip."""

    mid: str
    name: str
    peak: float
    mean: float


@dataclass(frozen=True, slots=True)
class Interval:
    """A detection in seconds."""

    mid: str
    name: str
    start_s: float
    end_s: float
    peak: float
    mean: float
    peak_s: float


@dataclass(frozen=True, slots=True)
class ClipReport:
    """Everything known of one clip; labels (best first, each class once) and detections are of the
    current labelling and of those that count beside it, remarks of the current one.
    """

    clip: Clip
    sources: tuple[SourceReport, ...]
    labellings: tuple[LabellingReport, ...]
    labels: tuple[Label, ...]
    detections: tuple[Interval, ...]
    remarks: tuple[Remark, ...] = ()


@dataclass(frozen=True, slots=True)
class FailureReport:
    """A file that could not be labelled, and why."""

    path: bytes
    path_text: str
    reason: str | None
    reason_detail: str | None
    user_id: str | None
    size_bytes: int
    last_read_at: datetime | None


@dataclass(frozen=True, slots=True)
class CorpusSummary:
    """The collection at a glance; hours count each clip once, however many copies there are."""

    n_clips: int
    n_labelled: int
    hours: float
    hours_labelled: float
    n_sources: int
    sources_by_status: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class PredictionRow:
    """One entry of the JSON export."""

    clip: str
    user_id: str | None
    path: bytes | None
    path_text: str | None
    meta: dict[str, Any] | None
    scores_path: str | None
    patch_hop_s: float
    n_patches: int
    model: str
    model_version: str
    is_partial: bool
    labelling_id: int
    site: str | None
    remarks: tuple[Remark, ...] = ()


@dataclass(frozen=True, slots=True)
class ModelReport:
    """A registered model; `n_current` of its `n_labelled` labellings are the clip's current one."""

    name: str
    version: str
    weights_sha256: str
    sample_rate_hz: int
    window_s: float
    n_classes: int
    embedding_dim: int | None
    registered_at: datetime
    is_promoted: bool
    is_taught: bool
    is_retired: bool
    n_labelled: int
    n_current: int
