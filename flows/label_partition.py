"""Flow label-partition: a part of another run's work list, on a machine of its own."""

# No `from __future__ import annotations`: Prefect reads the parameters' types at run time,
# also where it loads this file by its path.

from functools import partial
from pathlib import Path
from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Cancelled as CancelledState
from pydantic import SecretStr

from audioset_core.errors import UserError
from audioset_core.inference.scorer import Cancelled
from db.catalog.sources import iter_items
from flows.run.live_runs import recorded_run
from flows.run.pipeline import begin_jobs, label_here
from flows.run.preparation import prepare_run
from flows.run.shard_scheduler import THREAD_RUNNER
from flows.run_options import ExecutionOptions, stated_url
from flows.run_report.prefect_artifacts import Monitor
from flows.run_report.summary import Summary
from tasks.labelling.options import LabelOptions
from tasks.run_partition import Partition


def _run_name() -> str:
    partition: Any = flow_run.parameters.get("partition")
    if isinstance(partition, Partition):
        partition = partition.model_dump()
    return f"part {partition['index']} of {partition['total']}: {partition['n_items']:,} files"


@flow(
    name="label-partition",
    flow_run_name=_run_name,
    task_runner=THREAD_RUNNER,
    persist_result=False,
)
def label_partition(
    partition: Partition,
    home: Path | None = None,
    options: LabelOptions = LabelOptions(),  # noqa: B008 (frozen)
    database: SecretStr | None = None,
) -> Summary | State[Any]:
    """Label a part of another run's work list; started by that run, not by a person.

    Args:
        partition: Which part of which run.
        home: The folder of scores/, shared by all machines. Empty: AUDIOSET_HOME.
        options: As of the run.
        database: The database's URL, or secret:NAME for one in a Secret block. Empty: AUDIOSET_DB.

    Raises:
        UserError, DatabaseUserError: a parameter is off; the message says which and why.
    """
    prepared = prepare_run(options, home, stated_url(database))
    engine = prepared.engine
    described = {
        "flow": "label-partition",
        "partition": partition.model_dump(mode="json"),
        **options.model_dump(mode="json"),
    }
    with recorded_run(
        engine, prepared.home, described, flow_run.name, flow_run.id, parent_id=partition.run_id
    ) as run:
        jobs = begin_jobs(prepared, run, is_watched=partition.is_watched)
        variants = tuple(job.variant for job in jobs)
        if variants != partition.variants:
            own = ", ".join(f"{job.weights.model} {job.weights.version}" for job in jobs)
            raise UserError(
                f"the weights of this machine ({own}) are not those of the run; give every "
                f"machine the same"
            )
        title = f"Part {partition.index} of {partition.total}"
        monitor = Monitor("label-partition", title, prepared.home)
        monitor.begin(partition.n_items, partition.estimated_s)
        is_whole = False
        try:
            items = partial(
                iter_items, engine, partition.run_id,
                first=partition.first, end=partition.end, unlabelled_by=variants,
            )  # fmt: skip
            label_here(jobs, ExecutionOptions(), run, monitor, items, partition.estimated_s)
            is_whole = True
        except Cancelled:
            return CancelledState(message="the run that this is a part of was stopped")
        finally:
            run.stop_clock()
            # The run that this is a part of sends the event, if any.
            monitor.end(run.summary, run.run_id, None, is_whole=is_whole)
        return run.summary
