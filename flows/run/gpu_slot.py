"""One run at a time on a GPU, where Prefect's server has a limit for that GPU.

Two networks on a GPU share its memory, and take turns anyway. The limit is a *global concurrency
limit* of the server, by the name below; without one nothing is waited for. A process that dies
renews its lease no more, and the server takes the slot back.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from uuid import UUID

from prefect import get_run_logger
from prefect.client.schemas.objects import ConcurrencyLeaseHolder
from prefect.concurrency.asyncio import ConcurrencySlotAcquisitionError
from prefect.concurrency.sync import concurrency
from prefect.runtime import flow_run

from audioset_core.inference.engines import uses_gpu
from audioset_core.inference.scorer import Cancelled
from db.ledger.runs import record_heartbeat
from flows.terminal import note
from tasks.labelling.job import Job, engine_for, is_stopping, now

LEASE_S = 60.0
"""The shortest that Prefect's server grants."""
_ASK_EVERY_S = 5.0


def gpu_limit() -> str:
    """The limit's name: this machine, and the GPU that torch takes, the first of those visible."""
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "").partition(",")[0].strip()
    return f"audioset-gpu-{socket.gethostname()}-{first or '0'}"


@contextmanager
def gpu_slot(job: Job) -> Iterator[None]:
    """Hold the GPU's slot around the block, if the job uses one.

    Raises:
        Cancelled: the run was stopped while it waited.
    """
    with ExitStack() as stack:
        if uses_gpu(job.options.compute):
            _take(job, stack)
        yield


def _take(job: Job, stack: ExitStack) -> None:
    slot = partial(
        concurrency,
        gpu_limit(),
        timeout_seconds=_ASK_EVERY_S,
        lease_duration=LEASE_S,
        holder=ConcurrencyLeaseHolder(type="flow_run", id=UUID(flow_run.id)),
    )
    is_told = False
    while True:
        try:
            stack.enter_context(slot())
            return
        except TimeoutError:
            if not is_told:
                note("waiting for the GPU, which another run uses")
                get_run_logger().info("waiting for a slot of %s", gpu_limit())
            is_told = True
            if is_stopping(job):
                raise Cancelled from None
            record_heartbeat(engine_for(job.database_url), job.run_id, now())
        except ConcurrencySlotAcquisitionError:
            get_run_logger().warning("the GPU's slot could not be asked for", exc_info=True)
            return
