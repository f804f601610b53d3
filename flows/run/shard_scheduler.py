"""How a run's shards are carried out: on threads of this process, or on a Dask cluster.

On threads a shard is three tasks, each started by the flow with what the one before it gave, so
that decoding, inference and writing of neighbouring shards overlap. (Handed a future, Prefect would
ask its server about it: 30 ms a task run, and a thread that waits.) It is one task on Dask, where
patches would have to travel, and in runs of hours of audio: Prefect keeps 24 kB of every task run.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any

from prefect.futures import PrefectFuture
from prefect.task_runners import ThreadPoolTaskRunner

from audioset_core.inference.engines import takes_waveforms
from db.records import WorkItem
from flows.run_options import ExecutionOptions
from tasks.chunk_and_featurize import chunk_and_featurize
from tasks.infer import infer
from tasks.label_shard import PART_S, label_shard
from tasks.labelling.job import Jobs, stop_run
from tasks.labelling.shards import (
    MIN_SHARD_S,
    SHARDS_IN_FLIGHT,
    Receipt,
    Shard,
    cut_shards,
    shard_length_s,
    whole_shards,
)
from tasks.persist import persist

LONG_RUN_S, LONG_SHARD_S = 4 * 3600.0, 6 * 3600.0
THREAD_RUNNER: Any = ThreadPoolTaskRunner(max_workers=SHARDS_IN_FLIGHT)
"""The task runner of every flow that labels."""

Step = Callable[[Jobs, Shard, Any, Any], PrefectFuture[Any]]
"""Starts a task of a shard, with what the step before gave, and this step of the part before."""
Submit = Callable[[Jobs, Shard], PrefectFuture[Receipt]]

# Of a long clip's parts, one after the other is read and scored; they are stored as they come.
_CHAIN: tuple[Step, ...] = (
    lambda jobs, shard, _, before: chunk_and_featurize.submit(jobs, shard, before),
    lambda jobs, shard, features, before: infer.submit(jobs, shard, features, before),
    lambda jobs, shard, scores, _: persist.submit(jobs, shard, scores),
)
_N_IN_ORDER = 2


@dataclass(frozen=True, slots=True)
class ShardRunner:
    """How the work list is cut, which tasks a shard is, and how many shards run at once."""

    steps: tuple[Step, ...]
    in_flight: int
    shard_s: float
    """Audio of a shard."""

    def shards(self, items: Iterator[WorkItem], total: int) -> Iterator[Shard]:
        """The work list, cut.

        One task reads its shard part by part, a clip to its end, so that memory does not grow.
        """
        shards = cut_shards(items, self.shard_s, total)
        if self.steps is _CHAIN:
            yield from shards
            return
        for shard in whole_shards(shards):
            shard.budget_s = PART_S
            yield shard


@contextmanager
def shard_runner(
    jobs: Jobs, execution: ExecutionOptions, estimated_s: float
) -> Iterator[ShardRunner]:
    """The runner that the options ask for, for about so much audio.

    Raises:
        UserError: Dask is not installed, or does not answer.
    """
    if execution.task_runner == "dask":
        from flows.run.dask_cluster import dask_cluster

        with dask_cluster(execution) as (submit, n_tasks):
            # Twice what the cluster can do at once: no worker waits for the next shard.
            in_flight = 2 * n_tasks + 1
            shard_s = _single_task_shard_s(estimated_s, in_flight)
            yield ShardRunner((_single(submit),), in_flight, shard_s)
    elif estimated_s > LONG_RUN_S:
        shard_s = _single_task_shard_s(estimated_s, SHARDS_IN_FLIGHT)
        yield ShardRunner((_single(label_shard.submit),), SHARDS_IN_FLIGHT, shard_s)
    else:
        # A GPU takes waveforms: an hour is 635 MB at 44.1 kHz, and 92 MB as log-mel frames.
        is_heavy = any(takes_waveforms(job.frontend, job.options.compute) for job in jobs)
        shard_s = MIN_SHARD_S if is_heavy else shard_length_s(estimated_s)
        yield ShardRunner(_CHAIN, SHARDS_IN_FLIGHT, shard_s)


def _single_task_shard_s(estimated_s: float, in_flight: int) -> float:
    """How much audio a shard of one task should hold: a third of the share of each in flight.

    The last shard has only one thread to read it, so it should be short.
    """
    return shard_length_s(estimated_s, 3 * in_flight, LONG_SHARD_S)


def label_shards(
    jobs: Jobs, runner: ShardRunner, items: Callable[[], Iterator[WorkItem]]
) -> Generator[Receipt, None, None]:
    """Carry out the work list, a bounded window of shards at a time.

    However it ends, no task of the run is running afterwards.
    """
    total = sum(1 for _ in runner.shards(items(), 0))
    window: list[_InFlight] = []
    ended: SimpleQueue[_InFlight] = SimpleQueue()

    def submit(shard: Shard, before: _InFlight | None) -> _InFlight:
        window.append(_InFlight(jobs, shard, runner.steps, before, ended))
        window[-1].go_on()
        return window[-1]

    def collect() -> Receipt:
        """The receipt of the shard that ends first; shards that wait for one another go on."""
        while True:
            done = ended.get()
            done.n_done += 1
            for shard in window:
                shard.go_on()
            if done.n_done == len(runner.steps):
                break
        receipt = done.receipt()
        window.remove(done)
        if done.shard.is_last_part and receipt.continues:  # more than the headers announced
            submit(done.shard.next_part(), done)
        return receipt

    try:
        previous: _InFlight | None = None
        for shard in runner.shards(items(), total):
            previous = submit(shard, previous if shard.part else None)
            while len(window) >= runner.in_flight:
                yield collect()
        while window:
            yield collect()
    except BaseException:
        # A shard that went on would claim clips for a run that has ended.
        stop_run(jobs[0])
        for in_flight in window:
            in_flight.wait()
        raise


class _InFlight:
    """A shard, and its tasks as far as they were started: one at a time."""

    def __init__(
        self,
        jobs: Jobs,
        shard: Shard,
        steps: tuple[Step, ...],
        before: _InFlight | None,
        ended: SimpleQueue[_InFlight],
    ) -> None:
        self.shard, self.n_done = shard, 0
        self._jobs, self._steps, self._before, self._ended = jobs, steps, before, ended
        self._tasks: list[PrefectFuture[Any]] = []

    def go_on(self) -> None:
        """Start the next task if its input is ready; a task's error is raised here."""
        step = len(self._tasks)
        if step > self.n_done or step == len(self._steps):
            return
        if self._before is not None and step == _N_IN_ORDER:
            self._before = None  # and with it all that was kept of earlier parts
        if self._before is not None and self._before.n_done <= step:
            return
        given = self._tasks[-1].result() if self._tasks else None
        earlier = self._before.given(step) if self._before is not None else None
        task = self._steps[step](self._jobs, self.shard, given, earlier)
        self._tasks.append(task)
        task.add_done_callback(lambda _: self._ended.put(self))

    def given(self, step: int) -> Any:
        """What a task that has ended gave."""
        return self._tasks[step].result()

    def receipt(self) -> Receipt:
        """What the last task gave."""
        receipt: Receipt = self.given(-1)
        return receipt

    def wait(self) -> None:
        """Wait until none of its tasks runs."""
        for task in self._tasks:
            task.wait()


def _single(submit: Submit) -> Step:
    return lambda jobs, shard, _given, _before: submit(jobs, shard)
