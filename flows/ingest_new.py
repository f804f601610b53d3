"""Flow ingest-new: keep labelling what arrives in watched folders."""

# No `from __future__ import annotations`: Prefect reads the parameters' types at run time,
# also where it loads this file by its path.

from pathlib import Path

from prefect import flow
from pydantic import SecretStr

from flows.run.pipeline import Request, chosen_execution, run_pipeline
from flows.run.shard_scheduler import THREAD_RUNNER
from flows.run_options import AlertOptions, ExecutionOptions, WatchOptions
from flows.run_report.prefect_artifacts import run_name
from flows.run_report.summary import Summary
from tasks.labelling.options import LabelOptions


@flow(
    name="ingest-new",
    flow_run_name=lambda: run_name("ingest", "roots"),
    task_runner=THREAD_RUNNER,
    persist_result=False,
)
def ingest_new(
    roots: list[str],
    home: Path | None = None,
    options: LabelOptions = LabelOptions(),  # noqa: B008 (frozen)
    watch: WatchOptions = WatchOptions(),  # noqa: B008 (frozen)
    execution: ExecutionOptions = ExecutionOptions(),  # noqa: B008 (frozen)
    alerts: AlertOptions = AlertOptions(),  # noqa: B008 (frozen)
    database: SecretStr | None = None,
    engine: ExecutionOptions | None = None,
) -> Summary:
    """Label what is new or changed in watched folders; mark what has vanished.

    Args:
        roots: Folders to watch; absolute, since a worker runs anywhere. Or addresses of object
            storage, such as s3://bucket/folder.
        home: The folder of labels.db and scores/. Empty: AUDIOSET_HOME.
        options: Model, hop, framing, device and score type.
        watch: Which files are ready to be read.
        execution: Threads, a Dask cluster, or child runs on many machines.
        alerts: When failures become an event, and how many sounds.
        database: The database's URL, or secret:NAME for one that is in a Secret block. Empty:
            AUDIOSET_DB, or SQLite in the home folder.
        engine: The former name of execution, for deployments that have it.

    Raises:
        UserError, DatabaseUserError: a parameter is off; the message says which and why.
    """
    return run_pipeline(
        Request(
            kind="ingest-new",
            paths=roots,
            home=home,
            options=options,
            execution=chosen_execution(execution, engine),
            alerts=alerts,
            database=database,
            settle_s=watch.settle_s,
        )
    )
