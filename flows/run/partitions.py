"""Many machines: a run's open work in parts, each a child run that any worker may start."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from prefect.futures import PrefectConcurrentFuture
from prefect.task_runners import ThreadPoolTaskRunner
from pydantic import SecretStr

from audioset_core.errors import UserError
from db.catalog.sources import iter_items
from db.engine import has_password
from db.errors import DatabaseError
from db.ledger.runs import child_runs, record_heartbeat, summary_of
from flows.run_options import IN_BLOCK, ExecutionOptions
from flows.run_report.prefect_artifacts import Monitor
from flows.run_report.summary import Summary
from tasks.labelling.job import Job, Jobs, engine_for, now, stop_run
from tasks.labelling.worklist import Discovery
from tasks.run_partition import Partition, cut_ranges, run_partition

_LOOK_EVERY_S = 5.0


def label_partitions(
    jobs: Jobs,
    found: Discovery,
    execution: ExecutionOptions,
    database: SecretStr | None,
    summary: Summary,
    monitor: Monitor,
    look: Callable[[], None],
) -> None:
    """Have the work list carried out by child runs, and count in what they did.

    Meanwhile `look` is called every second.

    Raises:
        UserError: the database's URL would hand a password to Prefect.
        PartitionError: a part was not done, however often it was tried; the others were.
    """
    stated = database.get_secret_value() if database else ""
    if stated and not stated.startswith(IN_BLOCK) and has_password(stated):
        raise UserError(
            "the database's URL holds a password, which Prefect would store and show with the "
            "partitions' parameters: give every machine AUDIOSET_DB in its environment instead, "
            "or the name of a Secret block: secret:NAME"
        )
    job = jobs[0]
    engine = engine_for(job.database_url)
    partitions = _cut(jobs, found, execution.partitions)
    parameters = {"home": str(job.home), "options": job.options.model_dump(mode="json")}
    if stated:  # else the workers' own environment names it
        parameters["database"] = stated
    common = {
        "deployment": execution.partition_deployment,
        "parameters": parameters,
        "database_url": job.database_url,
    }
    runner: Any = ThreadPoolTaskRunner(max_workers=len(partitions))  # a thread waits for each
    futures: list[PrefectConcurrentFuture[None]] = []
    with runner:
        try:
            for partition in partitions:
                futures.append(runner.submit(run_partition, {**common, "partition": partition}))
            while not all(future.wrapped_future.done() for future in futures):
                time.sleep(1)
                _show(job, monitor)
                look()
        except BaseException:
            stop_run(job)
            for future in futures:
                future.wait()
            raise
        finally:
            for child in child_runs(engine, job.run_id):
                summary.add_part(child.counts, summary_of(engine, child.run_id) or {})
    for future in futures:
        future.result()


def _cut(jobs: Jobs, found: Discovery, n_parts: int) -> list[Partition]:
    job = jobs[0]
    items = iter_items(engine_for(job.database_url), job.run_id)
    ranges = list(cut_ranges(items, found.n_items, found.estimated_s, n_parts))
    return [
        Partition(
            run_id=job.run_id,
            index=index,
            total=len(ranges),
            first=first,
            end=end,
            n_items=n_items,
            estimated_s=estimated_s,
            variants=tuple(each.variant for each in jobs),
            is_watched=job.is_watched,
        )
        for index, (first, end, n_items, estimated_s) in enumerate(ranges, 1)
    ]


def _show(job: Job, monitor: Monitor) -> None:
    """Show the progress of the child runs, and store that this run is alive."""
    if not monitor.is_due(_LOOK_EVERY_S):
        return
    engine = engine_for(job.database_url)
    with suppress(DatabaseError):  # not reachable for a moment; the children retry what matters
        record_heartbeat(engine, job.run_id, now())
        counts = [run.counts for run in child_runs(engine, job.run_id)]
        monitor.part(
            n_labelled=sum(c.n_labelled for c in counts),
            n_failed=sum(c.n_failed for c in counts),
            done_s=sum(c.audio_s for c in counts),
        )
