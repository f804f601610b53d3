"""How a run's shards are carried out: on threads of this process, or on a Dask cluster.

On threads a shard is three tasks chained through futures, so that decoding, inference and writing
of neighbouring shards overlap. It is one task on Dask, where patches would have to travel, and in
runs of days of audio, where Prefect would keep 20 kB of three task runs for every hour of it.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from queue import SimpleQueue
from typing import Protocol, TypeVar, cast

from prefect.futures import PrefectFuture

from db.records import WorkItem
from flows.options import EngineOptions
from tasks.chunk_and_featurize import chunk_and_featurize
from tasks.infer import infer
from tasks.job import Job, stop_run
from tasks.label_shard import label_shard
from tasks.persist import persist
from tasks.shards import (
    SHARDS_IN_FLIGHT,
    Receipt,
    Shard,
    ShardFeatures,
    ShardScores,
    cut_shards,
    whole_shards,
)

R = TypeVar("R")

LONG_RUN_S, LONG_SHARD_S = 24 * 3600.0, 6 * 3600.0
THREADS = 3 * SHARDS_IN_FLIGHT + 3
"""Three per shard, as a task that waits for another holds its thread; and the first tasks."""


class InFlight(Protocol):
    """A shard that has been handed to the runner."""

    shard: Shard

    def result(self) -> Receipt:
        """Wait for the shard; of a broken chain, the first task's error is raised."""

    def wait(self) -> None:
        """Wait until nothing of it is at work."""

    def when_done(self, call: Callable[[InFlight], None]) -> None:
        """Have it told, from whatever thread, when the shard has ended, well or badly."""


class ShardRunner(Protocol):
    """Hands shards to a task runner."""

    in_flight: int

    def shards(self, job: Job, items: Iterator[WorkItem], total: int) -> Iterator[Shard]:
        """The work list, cut."""

    def submit(self, job: Job, shard: Shard, before: InFlight | None) -> InFlight:
        """Start a shard; ``before`` is the part before it of the same clip."""


@contextmanager
def shard_runner(options: EngineOptions, estimated_s: float) -> Iterator[ShardRunner]:
    """The runner that the options ask for, for about so much audio.

    Raises:
        UserError: Dask is not installed, or does not answer.
    """
    if options.task_runner == "dask":
        from flows.dask_runner import dask_cluster

        with dask_cluster(options) as (submit, n_tasks):
            # Twice what the cluster can do at once: no worker waits for the next shard.
            yield _WholeShards(submit, 2 * n_tasks + 1, is_long=estimated_s > n_tasks * LONG_RUN_S)
    elif estimated_s > LONG_RUN_S:
        yield _WholeShards(label_shard.submit, SHARDS_IN_FLIGHT, is_long=True)
    else:
        yield _Chains()


def label_shards(
    job: Job, runner: ShardRunner, items: Callable[[], Iterator[WorkItem]]
) -> Generator[Receipt, None, None]:
    """Carry out the work list, a bounded window of shards at a time.

    However it ends, no task of the run is at work afterwards.
    """
    total = sum(1 for _ in runner.shards(job, items(), 0))
    window: set[InFlight] = set()
    ended: SimpleQueue[InFlight] = SimpleQueue()

    def submit(shard: Shard, before: InFlight | None) -> InFlight:
        in_flight = runner.submit(job, shard, before)
        window.add(in_flight)
        in_flight.when_done(ended.put)
        return in_flight

    def collect() -> Receipt:
        """Of whichever ends first: while one waits its turn, the next must be on its way."""
        done = ended.get()
        receipt = done.result()
        window.remove(done)
        if done.shard.is_last_part and receipt.continues:  # more than the headers announced
            submit(done.shard.next_part(), done)
        return receipt

    try:
        previous: InFlight | None = None
        for shard in runner.shards(job, items(), total):
            previous = submit(shard, previous if shard.part else None)
            while len(window) >= runner.in_flight:
                yield collect()
        while window:
            yield collect()
    except BaseException:
        # A shard that works on would claim clips behind the back of a run that has ended.
        stop_run(job)
        for in_flight in window:
            in_flight.wait()
        raise


class _Chains:
    in_flight = SHARDS_IN_FLIGHT

    def shards(self, job: Job, items: Iterator[WorkItem], total: int) -> Iterator[Shard]:
        return cut_shards(items, job.shard_s, total)

    def submit(self, job: Job, shard: Shard, before: InFlight | None) -> InFlight:
        earlier = before if isinstance(before, _Chain) else None
        features = chunk_and_featurize.submit(
            job, shard, later(earlier.features) if earlier else None
        )
        scores = infer.submit(
            job, shard, later(features), later(earlier.scores) if earlier else None
        )
        return _Chain(shard, features, scores, persist.submit(job, shard, later(scores)))


class _Chain:
    def __init__(
        self,
        shard: Shard,
        features: PrefectFuture[ShardFeatures],
        scores: PrefectFuture[ShardScores],
        receipt: PrefectFuture[Receipt],
    ) -> None:
        self.shard, self.features, self.scores, self.receipt = shard, features, scores, receipt

    def result(self) -> Receipt:
        self.features.wait()
        self.scores.wait()
        for future in (self.features, self.scores):
            if not future.state.is_completed():
                future.result()
        return self.receipt.result()

    def wait(self) -> None:
        self.receipt.wait()

    def when_done(self, call: Callable[[InFlight], None]) -> None:
        self.receipt.add_done_callback(lambda _: call(self))


Submit = Callable[[Job, Shard], PrefectFuture[Receipt]]


class _WholeShards:
    """A task per shard, which reads it part by part: memory does not grow with the shard."""

    def __init__(self, submit: Submit, in_flight: int, *, is_long: bool) -> None:
        self._submit, self.in_flight, self._is_long = submit, in_flight, is_long

    def shards(self, job: Job, items: Iterator[WorkItem], total: int) -> Iterator[Shard]:
        shard_s = LONG_SHARD_S if self._is_long else job.shard_s
        for shard in whole_shards(cut_shards(items, shard_s, total)):
            shard.budget_s = min(shard.budget_s, job.shard_s)
            yield shard

    def submit(self, job: Job, shard: Shard, before: InFlight | None) -> InFlight:
        del before  # a shard is never cut here
        return _Single(shard, self._submit(job, shard))


class _Single:
    def __init__(self, shard: Shard, receipt: PrefectFuture[Receipt]) -> None:
        self.shard, self._receipt = shard, receipt

    def result(self) -> Receipt:
        return self._receipt.result()

    def wait(self) -> None:
        self._receipt.wait()

    def when_done(self, call: Callable[[InFlight], None]) -> None:
        self._receipt.add_done_callback(lambda _: call(self))


def later(future: PrefectFuture[R]) -> R:
    """A future as an argument: Prefect waits for it and hands its result to the task."""
    return cast(R, future)
