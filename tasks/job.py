"""What every task of a labelling run needs to know, and the resources behind it.

A `Job` is plain data, so that it reaches any thread, process or machine; engines and networks
are opened where they are used, once per process.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, Literal

from sqlalchemy import Engine

from audioset_core.bundle import ModelBundle, find_bundle
from audioset_core.frontend import FrontendConfig
from audioset_core.inference import Device, Scorer
from audioset_core.weights import ReadyWeights
from db.engine import open_engine
from db.records import Parameters, Variant

ScoreDtype = Literal["float16", "float32"]

LEASE_S = 600.0
"""How long a claim holds after its run's last sign of life. A shard takes 10 to 30 s."""

# What goes into SQL: scores below this stay in the .npy files only.
SCORE_FLOOR = 0.1
DETECTION_THRESHOLD = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One run's settings. ``shard_s`` is the audio that a shard may hold."""

    run_id: str
    home: Path
    database_url: str = field(repr=False)
    weights: ReadyWeights
    frontend: FrontendConfig
    parameters: Parameters
    variant: Variant
    device: Device
    score_dtype: ScoreDtype
    embeddings: bool
    shard_s: float

    @property
    def bundle(self) -> ModelBundle:
        """The model's bundle."""
        return find_bundle(self.weights.model, has_scores=self.weights.has_scores)


def labelling_parameters(
    frontend: FrontendConfig, *, framing: str, score_dtype: ScoreDtype, embeddings: bool = False
) -> Parameters:
    """The settings that make one labelling differ from another of the same model."""
    extra: dict[str, Any] = {
        "framing": framing,
        "score_dtype": score_dtype,
        "pads_tail": frontend.pads_tail,
        "log_offset": frontend.log_offset,
        "resampler": "soxr HQ",
    }
    if embeddings:
        extra["embeddings"] = True
    return Parameters(
        patch_hop_s=frontend.patch_hop_s,
        score_floor=SCORE_FLOOR,
        detection_threshold=DETECTION_THRESHOLD,
        extra=extra,
    )


@cache
def engine_for(database_url: str) -> Engine:
    """This process's engine on the database."""
    return open_engine(database_url)


@lru_cache(maxsize=2)
def scorer_for(weights: ReadyWeights, device: Device) -> Scorer:
    """This process's network on the device."""
    return Scorer(find_bundle(weights.model), weights, device=device)


@cache
def stop_event(run_id: str) -> threading.Event:
    """Set when the run is cancelled; looked at between batches and files."""
    del run_id  # the cache's key
    return threading.Event()


def now() -> datetime:
    """The time, in UTC."""
    return datetime.now(UTC)


def lease_end() -> datetime:
    """Until when a claim renewed now holds."""
    return now() + timedelta(seconds=LEASE_S)
