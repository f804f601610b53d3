"""What goes into the database: plain frozen records, no SQLAlchemy."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import Enum, IntEnum, StrEnum
from typing import Any

from audioset_core.records import ClassScore, Detection, Health, Statement
from db.types import canonical_json


@dataclass(frozen=True, slots=True)
class Model:
    """One version of one model; `categories` are (index, MID, name)."""

    name: str
    version: str
    weights_sha256: str
    sample_rate_hz: int
    window_s: float
    embedding_dim: int | None
    categories: tuple[tuple[int, str, str], ...]
    is_taught: bool = False
    """Whether what it says counts beside the current labellings."""


@dataclass(frozen=True, slots=True)
class Parameters:
    """The settings that change labels; `extra` holds further JSON values.

    `patch_hop_s` is the hop of detections: of patches, or of the steps within a patch.
    """

    patch_hop_s: float
    score_floor: float
    detection_threshold: float
    extra: Mapping[str, Any] = field(default_factory=dict)
    steps_per_row: int = 1
    """Rows of the score files are pooled from so many steps of `patch_hop_s`."""

    def as_json(self) -> dict[str, Any]:
        """Everything in one JSON object."""
        # Sets from before there were steps keep their digest.
        steps = {"steps_per_row": self.steps_per_row} if self.steps_per_row > 1 else {}
        return steps | {
            "patch_hop_s": float(self.patch_hop_s),
            "score_floor": float(self.score_floor),
            "detection_threshold": float(self.detection_threshold),
            "extra": dict(self.extra),
        }

    @property
    def twin(self) -> Parameters:
        """The same settings without embeddings, or with them: both give the same labels."""
        others = {name: value for name, value in self.extra.items() if name != "embeddings"}
        given = {} if self.has_embeddings else {"embeddings": True}
        return replace(self, extra=others | given)

    @property
    def has_embeddings(self) -> bool:
        """Whether embeddings were asked for."""
        return bool(self.extra.get("embeddings"))

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON: equal settings, equal digest."""
        return hashlib.sha256(canonical_json(self.as_json()).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Variant:
    """The model and the parameters that a labelling is made with."""

    model_id: int
    parameter_set_id: int
    fuller_set_id: int | None = field(default=None, compare=False)
    """The same parameters with embeddings, if they were ever used: what has those is labelled."""
    barer_set_id: int | None = field(default=None, compare=False)
    """The same parameters without embeddings, if they were ever used: only those are added."""


@dataclass(frozen=True, slots=True)
class SeenSource:
    """A file as discovery saw it; annotations are None where no manifest gives them."""

    path: bytes
    size_bytes: int
    mtime_ns: int
    user_id: str | None = None
    meta: dict[str, Any] | None = None
    etag: str | None = None
    """The version of an object, as its server names it."""


@dataclass(frozen=True, slots=True)
class KnownSource:
    """A file that the tables know."""

    source_id: int
    path_digest: bytes
    path: bytes


class FileState(Enum):
    """What is known of a file that was seen."""

    NEW = "new"
    """Never seen, or listed and not read since."""
    CHANGED = "changed"
    """Size or time differ from what was read."""
    UNLABELLED = "unlabelled"
    """Known content without a finished labelling under every variant of the run."""
    RETRY = "retry"
    """Failed for a reason that may pass."""
    DONE = "done"
    """Labelled under every variant of the run."""
    FAILED = "failed"
    """Failed for a permanent reason, and not changed since."""


@dataclass(frozen=True, slots=True)
class Triaged:
    """What `triage` finds of a file: its state, and what else is known of it."""

    state: FileState
    is_back: bool = False
    """It was marked missing."""
    waiting_since: datetime | None = None
    """When it was first seen, with this very size and time, too young to be read."""


@dataclass(frozen=True, slots=True)
class WorkItem:
    """One entry of a run's work list."""

    source_id: int
    path: bytes
    size_bytes: int
    mtime_ns: int
    estimated_s: float
    etag: str | None = None


@dataclass(frozen=True, slots=True)
class Clip:
    """One recording. Its figures are the header's until the commit, then the decoder's."""

    sha256: str
    size_bytes: int
    duration_s: float
    sample_rate_hz: int
    n_channels: int
    n_samples: int
    format: str
    told_start: str | None = None
    """The start that the file states, in ISO 8601; with a zone where the recorder gives one."""
    told_by: str | None = None
    latitude_deg: float | None = None
    longitude_deg: float | None = None
    device: str | None = None
    serial: str | None = None
    notes: tuple[Statement, ...] = ()
    """Everything that the file says beside its sound."""
    health: Health | None = None
    """Its state, once all of it is decoded."""


@dataclass(frozen=True, slots=True)
class KnownClip:
    """A clip that the tables know, and the source that a labelling of it was read from.

    `source_id` is 0 where that is not known.
    """

    clip_id: int
    sha256: str
    source_id: int


@dataclass(frozen=True, slots=True)
class Lease:
    """Which run may label what it claims, from when on, and for how many seconds."""

    run_id: str
    duration_s: float
    begins_at: datetime

    @property
    def ends_at(self) -> datetime:
        """From then on others may claim it."""
        return self.begins_at + timedelta(seconds=self.duration_s)


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to label one clip, until the lease ends and someone else takes a higher token."""

    labelling_id: int
    token: int
    clip_id: int
    source_id: int
    sha256: str


class Committed(IntEnum):
    """What became of a labelling that was to be committed; true if it is stored."""

    LOST = 0
    """Another worker holds the claim, or has finished it."""
    LABELLED = 1
    ADDED = 2
    """The clip had these labels already, which stay as they are; its embeddings were added."""


class NotClaimed(Enum):
    """Why there was nothing to claim."""

    DONE = "done"
    """The clip is labelled already (a copy, or a renamed file)."""
    BUSY = "busy"
    """Another run's claim on the clip is in force."""
    COPY = "copy"
    """This run is labelling the clip from another source, which decides for both."""
    AGAIN = "again"
    """The same run labelled the clip from the same source: its task died after that."""


@dataclass(frozen=True, slots=True)
class Remark:
    """What a person should know of a recording, or of a part of it."""

    kind: str
    detail: str
    start_s: float | None = None
    end_s: float | None = None


@dataclass(frozen=True, slots=True)
class Labelling:
    """Everything to commit for one clip; paths are relative, with forward slashes.

    `clip` None: its figures stay, since its file was not read for this labelling.
    """

    claim: Claim
    clip: Clip | None
    n_patches: int
    scores_path: str | None = None
    scores_sha256: str | None = None
    score_dtype: str | None = None
    embeddings_path: str | None = None
    embeddings_sha256: str | None = None
    note: str | None = None
    is_partial: bool = False
    remarks: tuple[Remark, ...] = ()
    class_scores: tuple[ClassScore, ...] = ()
    detections: tuple[Detection, ...] = ()


@dataclass(frozen=True, slots=True)
class Failure:
    """A source that could not be labelled, and the claim to release."""

    source_id: int
    reason: str
    detail: str = ""
    claim: Claim | None = None


@dataclass(frozen=True, slots=True)
class FailedSource:
    """A failure with the path of the file."""

    path: bytes
    failure: Failure


class RunStatus(StrEnum):
    """The state of a run."""

    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CRASHED = "crashed"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class RunCounts:
    """What a run did, in files; `audio_s` is the audio it labelled."""

    n_found: int = 0
    n_labelled: int = 0
    n_known: int = 0
    n_failed: int = 0
    audio_s: float = 0.0


@dataclass(frozen=True, slots=True)
class RunOrigin:
    """The run of Prefect's flow, and the run whose work this one does a part of."""

    flow_run_name: str | None = None
    flow_run_id: str | None = None
    parent_id: str | None = None


@dataclass(frozen=True, slots=True)
class Run:
    """One execution of a flow."""

    run_id: str
    host: str
    pid: int
    status: RunStatus
    started_at: datetime
    counts: RunCounts
    parent_id: str | None = None
    flow_run_id: str | None = None
    seen_at: datetime | None = None
    """When it last reported that it is at work."""
