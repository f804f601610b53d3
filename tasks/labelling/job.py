"""What every task of a labelling run needs to know, and the resources behind it.

A `Job` is plain data, so that it reaches any thread, process or machine; engines and networks
are opened where they are used, once per process.
"""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, Literal

from sqlalchemy import Engine
from threadpoolctl import threadpool_limits

from audioset_core.audio.decoders import DecodeOptions
from audioset_core.audio.ffmpeg import Track
from audioset_core.features.config import FrontendConfig
from audioset_core.inference.engines import Device, EngineName, Precision
from audioset_core.inference.scorer import Scorer
from audioset_core.models.registry import ModelBundle, find_bundle
from audioset_core.weights.locate import ReadyWeights
from db.engine import open_engine
from db.errors import DatabaseError
from db.ledger.runs import ask_to_stop, is_to_stop
from db.records import Parameters, Variant

ScoreDtype = Literal["float16", "float32"]

LEASE_S = 600.0
"""How long a claim holds after its run's last sign of life. A shard takes 10 to 30 s."""

_ASK_EVERY_S = 2.0

# What goes into SQL: scores below this stay in the .npy files only.
SCORE_FLOOR = 0.1
DETECTION_THRESHOLD = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One run's settings. ``shard_s`` is the audio that a shard may hold.

    ``is_watched``: a file that changed since discovery is still being written, and is left alone.
    """

    run_id: str
    home: Path
    database_url: str = field(repr=False)
    weights: ReadyWeights
    frontend: FrontendConfig
    parameters: Parameters
    variant: Variant
    device: Device
    engine: EngineName = "auto"
    precision: Precision = "float32"
    score_dtype: ScoreDtype
    embeddings: bool
    shard_s: float
    is_watched: bool = False
    decoding: DecodeOptions = field(default_factory=DecodeOptions)

    @property
    def bundle(self) -> ModelBundle:
        """The model's bundle."""
        return find_bundle(self.weights.model, has_scores=self.weights.has_scores)


def labelling_parameters(
    frontend: FrontendConfig,
    *,
    framing: str,
    score_dtype: ScoreDtype,
    precision: Precision = "float32",
    embeddings: bool = False,
    track: Track = "default",
) -> Parameters:
    """The settings that make one labelling differ from another of the same model."""
    extra: dict[str, Any] = {
        "framing": framing,
        "score_dtype": score_dtype,
        "pads_tail": frontend.pads_tail,
        "log_offset": frontend.log_offset,
        "resampler": "soxr HQ",
    }
    if precision != "float32":
        extra["precision"] = precision
    if embeddings:
        extra["embeddings"] = True
    if track != "default":
        extra["track"] = track
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


def scorer_for(
    weights: ReadyWeights, device: Device, engine: EngineName, precision: Precision
) -> Scorer:
    """This process's network on the device."""
    with _loading:  # two would be twice the memory, and twice as many threads as cores
        return _scorer_for(weights, device, engine, precision)


_loading = threading.Lock()


@lru_cache(maxsize=2)
def _scorer_for(
    weights: ReadyWeights, device: Device, engine: EngineName, precision: Precision
) -> Scorer:
    return Scorer(
        find_bundle(weights.model), weights, device=device, engine=engine, precision=precision
    )


def begin_to_load(
    weights: ReadyWeights, device: Device, engine: EngineName, precision: Precision
) -> None:
    """Load the network in a thread of its own: the first recordings are read meanwhile.

    What goes wrong is told to whoever asks for the network.
    """

    def load() -> None:
        with suppress(Exception):
            scorer_for(weights, device, engine, precision)

    threading.Thread(target=load, name="load-network").start()


@cache
def one_blas_thread() -> None:
    """Have numpy's BLAS leave the cores alone: tasks and lanes fill them already.

    Its threads wait for each other by spinning, which doubled what log-mel costs. For the whole
    process, for good.
    """
    threadpool_limits(1, user_api="blas")


@cache
def stop_event(run_id: str) -> threading.Event:
    """Set when the run is cancelled; looked at between batches and files."""
    del run_id  # the cache's key
    return threading.Event()


def stop_run(job: Job) -> None:
    """Have the run's tasks end, in this process and, through the database, in every other."""
    stop_event(job.run_id).set()
    with suppress(DatabaseError):
        ask_to_stop(engine_for(job.database_url), job.run_id, now())


def is_stopping(job: Job) -> bool:
    """Whether the run is to end, by this process's event or by word in the database.

    The database is asked every few seconds: the run may have been cancelled on another machine.
    """
    event = stop_event(job.run_id)
    if not event.is_set() and _is_time_to_ask(job.run_id):
        # A database that is away for a moment says nothing; persist deals with it.
        with suppress(DatabaseError):
            if is_to_stop(engine_for(job.database_url), job.run_id):
                event.set()
    return event.is_set()


def _is_time_to_ask(run_id: str) -> bool:
    asked = _last_asked(run_id)
    if time.monotonic() - asked[0] < _ASK_EVERY_S:
        return False
    asked[0] = time.monotonic()
    return True


@cache
def _last_asked(run_id: str) -> list[float]:
    del run_id  # the cache's key
    return [time.monotonic()]


def now() -> datetime:
    """The time, in UTC."""
    return datetime.now(UTC)
