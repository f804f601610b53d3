"""What every task of a labelling run needs to know, and the resources behind it.

A `Job` is plain data, so that it reaches any thread, process or machine; engines and networks
are opened where they are used, once per process.
"""

from __future__ import annotations

import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from sqlalchemy import Engine
from threadpoolctl import threadpool_limits

from audioset_core.features.config import FrontendConfig
from audioset_core.inference.interface import FAST_RECIPE, ComputeOptions
from audioset_core.inference.scorer import Scorer
from audioset_core.models.registry import ModelBundle, find_bundle
from audioset_core.weights.locate import ReadyWeights
from db.engine import open_engine
from db.errors import DatabaseError
from db.ledger.runs import ask_to_stop, is_to_stop
from db.records import Parameters, Variant
from tasks.labelling.options import MOST_MODELS, RESULT_OPTIONS, LabelOptions

_ASK_EVERY_S = 2.0

# What goes into SQL: scores below this stay in the .npy files only.
SCORE_FLOOR = 0.1
DETECTION_THRESHOLD = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What every task of one run needs to know of one model that labels.

    The jobs of a run differ in weights, front end, parameters and variant alone.
    """

    run_id: str
    home: Path
    database_url: str = field(repr=False)
    options: LabelOptions
    weights: ReadyWeights
    frontend: FrontendConfig
    parameters: Parameters
    variant: Variant
    is_watched: bool = False
    """A file that changed since discovery is still being written, and is left alone."""

    @property
    def bundle(self) -> ModelBundle:
        """The model's bundle."""
        return find_bundle(self.weights.model, has_scores=self.weights.has_scores)

    @property
    def has_embeddings(self) -> bool:
        """Whether embeddings are stored; without a classifier head there is nothing else."""
        return self.options.embeddings or not self.weights.has_scores


Jobs = tuple[Job, ...]
"""What a run does with every file: a job for each model, in the order in which they were named."""


def labelling_settings(options: LabelOptions, model: str) -> tuple[FrontendConfig, Parameters]:
    """The front end, and what makes one labelling differ from another of the same model.

    Raises:
        UserError: no such model, or a hop, framing or precision that it does not have.
    """
    frontend = find_bundle(model).framed(patch_hop_s=options.patch_hop_s, framing=options.framing)
    extra: dict[str, Any] = {
        "framing": options.framing,
        "score_dtype": options.score_dtype,
        "pads_tail": frontend.pads_tail,
        "log_offset": frontend.log_offset,
        "resampler": "soxr HQ",
    }
    if options.precision == "fast":
        find_bundle(model).check_fast()
        extra["fast_recipe"] = FAST_RECIPE
    chosen = options.model_dump(include=set(RESULT_OPTIONS), exclude_defaults=True)
    return frontend, Parameters(
        patch_hop_s=frontend.step_hop_s,
        steps_per_row=frontend.steps_per_row,
        score_floor=SCORE_FLOOR,
        detection_threshold=DETECTION_THRESHOLD,
        extra=extra | chosen,
    )


@cache
def engine_for(database_url: str) -> Engine:
    """This process's engine on the database."""
    return open_engine(database_url)


def scorer_for(weights: ReadyWeights, compute: ComputeOptions) -> Scorer:
    """This process's network with these weights."""
    with _loading:  # two would be twice the memory, and twice as many threads as cores
        return _scorer_for(weights, compute)


_loading = threading.Lock()


@lru_cache(maxsize=MOST_MODELS)
def _scorer_for(weights: ReadyWeights, compute: ComputeOptions) -> Scorer:
    return Scorer(find_bundle(weights.model), weights, compute)


def begin_to_load(weights: ReadyWeights, compute: ComputeOptions) -> None:
    """Load the network in a thread of its own, while the first recordings are read.

    `scorer_for` raises what goes wrong.
    """

    def load() -> None:
        with suppress(Exception):
            scorer_for(weights, compute)

    threading.Thread(target=load, name="load-network").start()


@cache
def share_cores() -> None:
    """Set up this process for tasks and lanes that fill the cores together.

    BLAS gets one thread: several wait for each other by spinning, which doubled the time of
    log-mel. Python passes the interpreter on after 1 ms instead of 5, since lanes wait for it
    between two batches.
    """
    threadpool_limits(1, user_api="blas")
    sys.setswitchinterval(0.001)


class StopEvent(threading.Event):
    """Set when the run is to end; checked between batches and files."""

    def __init__(self) -> None:
        super().__init__()
        self.asked_s = time.monotonic()
        """When the database was last asked, on the monotonic clock."""


@cache
def stop_event(run_id: str) -> StopEvent:
    """This process's event for the run."""
    del run_id  # the cache's key
    return StopEvent()


def stop_run(job: Job) -> None:
    """Have the run's tasks end, in this process and, through the database, in every other."""
    stop_event(job.run_id).set()
    with suppress(DatabaseError):
        ask_to_stop(engine_for(job.database_url), job.run_id, now())


def is_stopping(job: Job) -> bool:
    """Whether the run is to end, by this process's event or by a request in the database.

    The database is asked every few seconds: the run may have been cancelled on another machine.
    """
    event = stop_event(job.run_id)
    if not event.is_set() and time.monotonic() - event.asked_s >= _ASK_EVERY_S:
        event.asked_s = time.monotonic()
        # A database that cannot be reached tells nothing; persist deals with that.
        with suppress(DatabaseError):
            if is_to_stop(engine_for(job.database_url), job.run_id):
                event.set()
    return event.is_set()


def now() -> datetime:
    """The time, in UTC."""
    return datetime.now(UTC)
