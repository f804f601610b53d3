"""A Dask cluster as the task runner of a run: an existing one, or one on this machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from prefect.futures import PrefectFuture

from audioset_core.errors import UserError
from audioset_core.system import n_cores
from flows.run_options import ExecutionOptions
from tasks.label_shard import label_shard
from tasks.labelling.job import Jobs
from tasks.labelling.shards import Receipt, Shard

_CONNECT_S = 30


@contextmanager
def dask_cluster(
    options: ExecutionOptions,
) -> Iterator[tuple[Callable[[Jobs, Shard], PrefectFuture[Receipt]], int]]:
    """A function that hands a shard to the cluster, and how many it carries out at once.

    Raises:
        UserError: Dask is not installed, or there is no scheduler at the address.
    """
    try:
        from prefect_dask.task_runners import DaskTaskRunner
    except ImportError as error:
        raise UserError(
            "the task runner 'dask' needs the extra: pip install 'audioset-flows[dask]'"
        ) from error
    runner: Any = DaskTaskRunner(**_settings(options))
    try:
        runner.__enter__()
        n_tasks = sum(runner.client.nthreads().values())
    except OSError as error:
        raise UserError(f"no Dask scheduler answers at {options.dask_address}: {error}") from error
    try:
        yield (
            lambda jobs, shard: runner.submit(label_shard, {"jobs": jobs, "shard": shard}),
            max(1, n_tasks),
        )
    finally:
        runner.__exit__(None, None, None)


def _settings(options: ExecutionOptions) -> dict[str, Any]:
    if options.dask_address:
        client = {"timeout": _CONNECT_S}
        return {"address": options.dask_address, "client_kwargs": client}
    cores = n_cores()
    threads = max(1, cores // options.dask_workers)
    return {
        "cluster_kwargs": {
            "n_workers": options.dask_workers,
            # A process each: decoding one file beside the network of another is the job of shards
            # in several processes here.
            "threads_per_worker": 1,
            "processes": True,
            "dashboard_address": None,
            "env": {"OMP_NUM_THREADS": str(threads)},
        }
    }
