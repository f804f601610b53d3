"""Task run-partition: one child run over a part of a run's work list, on any machine.

Prefect starts it, from a deployment whose work pool the machines' workers poll. A child that
crashed is replaced by this task's retries; what it had labelled is in the database and stays.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from datetime import timedelta
from typing import Any, cast
from uuid import UUID

import httpx
from prefect import task
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import FlowRun, State, TaskRun
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound
from prefect.states import Cancelled as CancelledState
from prefect.states import Cancelling, Crashed
from prefect.tasks import Task
from pydantic import BaseModel, ConfigDict, Field

from audioset_core.errors import AudiosetError, UserError
from audioset_core.inference.scorer import Cancelled
from db.ledger.claims import LEASE_S
from db.ledger.runs import abandon_run, child_runs
from db.records import Variant, WorkItem
from tasks.labelling.job import engine_for, now, stop_event

_POLL_S = 2.0
# How long a cancelled child may take to end; the runner that stops the parent waits 30 s.
_CANCEL_S = 20.0
# How long Prefect's server may be away, beyond the minute for which its client asks again: the
# children go on with their work meanwhile.
_AWAY_S = 600.0
# What opening a file costs, however short it is, in seconds of audio.
_PER_FILE_S = 5.0


class Partition(BaseModel):
    """A part of a run's work list: the positions from ``first`` to before ``end``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    run_id: str = Field(title="Run", description="The run whose work list this is a part of.")
    index: int = Field(title="Number", description="Counted from 1.")
    total: int = Field(title="Of", description="How many partitions there are.")
    first: int = Field(title="From", description="First position in the work list.")
    end: int | None = Field(title="To", description="Position after the last; empty: to the end.")
    n_items: int = Field(title="Files", description="How many files it holds.")
    estimated_s: float = Field(title="Audio (s)", description="About how much audio they hold.")
    variants: tuple[Variant, ...] = Field(
        title="Models",
        description="The rows of each model and its parameters; a worker must have the same.",
    )
    is_watched: bool = Field(title="Watched", description="Whether the files are still arriving.")


class PartitionError(AudiosetError):
    """A child run ended without having done its part."""

    def __init__(self, message: str, may_retry: bool) -> None:
        super().__init__(message, may_retry)
        self.may_retry = may_retry

    def __str__(self) -> str:
        return str(self.args[0])


def cut_ranges(
    items: Iterable[WorkItem], n_items: int, estimated_s: float, n_parts: int
) -> Iterator[tuple[int, int | None, int, float]]:
    """(first, end, number, seconds) of parts with about equal work; the last has no end."""
    n_parts = min(n_parts, n_items)
    share_s = (estimated_s + n_items * _PER_FILE_S) / max(1, n_parts)
    first = position = part = 0
    part_s = work_s = 0.0
    for position, item in enumerate(items, 1):
        part_s += item.estimated_s
        work_s += item.estimated_s + _PER_FILE_S
        left = n_items - position
        # No part without a file, and no files without a part.
        if part < n_parts - 1 and (work_s >= share_s * (part + 1) or left < n_parts - part):
            yield first, position, position - first, part_s
            first, part_s, part = position, 0.0, part + 1
    if position > first:
        yield first, None, position - first, part_s


def _may_retry(task: Task[..., object], task_run: TaskRun, state: State[object]) -> bool:
    del task, task_run
    return isinstance(state.data, PartitionError) and state.data.may_retry


@task(
    name="run-partition",
    task_run_name="run partition {partition.index} of {partition.total}",
    persist_result=False,
    retries=3,
    retry_delay_seconds=2,
    retry_condition_fn=_may_retry,
)
def run_partition(
    deployment: str, partition: Partition, parameters: Mapping[str, Any], database_url: str
) -> None:
    """Start a child run and wait for its end.

    Raises:
        UserError: there is no such deployment.
        PartitionError: the child run failed, crashed or was cancelled.
        Cancelled: this run must stop; the child was asked to stop.
    """
    try:
        started = run_deployment(
            deployment,
            parameters={**parameters, "partition": partition.model_dump(mode="json")},
            timeout=0,
        )
        child = cast(FlowRun, started)  # a coroutine only where it is called from one
    except ObjectNotFound:
        raise UserError(
            f"there is no deployment {deployment!r}; see deployments/README.md"
        ) from None
    state = _wait(child.id, partition.run_id, database_url)
    if state.is_completed():
        return
    _abandon(child.id, partition.run_id, database_url)
    part = f"partition {partition.index} of {partition.total}"
    message = f"{part} ended as {state.name}: {state.message or 'no reason given'}"
    raise PartitionError(message, may_retry=not state.is_cancelled())


def _wait(child_id: UUID, run_id: str, database_url: str) -> State[Any]:
    """The child's final state."""
    give_up_at, answered_at = float("inf"), time.monotonic()
    with get_client(sync_client=True) as client:
        while True:
            try:
                state = _state(client.read_flow_run(child_id))
            except httpx.HTTPError as error:
                is_over = stop_event(run_id).is_set() or time.monotonic() > answered_at + _AWAY_S
                if is_over or _is_refused(error):
                    raise
                time.sleep(_POLL_S)
                continue
            answered_at = time.monotonic()
            if state.is_final():
                return state
            if stop_event(run_id).is_set() and give_up_at == float("inf"):
                give_up_at = time.monotonic() + _CANCEL_S
                _cancel(client, child_id, state)
            if time.monotonic() > give_up_at:
                raise Cancelled
            if _is_lost(state, child_id, run_id, database_url):
                end = CancelledState if state.is_cancelling() else Crashed
                lost: State[Any] = end(message="no sign of life for half an hour")
                client.set_flow_run_state(child_id, lost, force=True)
            time.sleep(_POLL_S)


def _is_refused(error: httpx.HTTPError) -> bool:
    """Whether it is an answer about the question, rather than a server in trouble."""
    return isinstance(error, httpx.HTTPStatusError) and error.response.is_client_error


def _state(flow_run: FlowRun) -> State[Any]:
    if flow_run.state is None:
        raise PartitionError(f"the run {flow_run.name} has no state", may_retry=True)
    return flow_run.state


def _cancel(client: SyncPrefectClient, child_id: UUID, state: State[Any]) -> None:
    """Cancel the child: at once if no worker has started it, else by telling its worker."""
    is_waiting = state.is_scheduled() or state.is_pending()
    client.set_flow_run_state(child_id, CancelledState() if is_waiting else Cancelling())


def _is_lost(state: State[Any], child_id: UUID, run_id: str, database_url: str) -> bool:
    """Whether the child has been silent for so long that its leases have ended.

    If heartbeats are watched (deployments/automations.yaml), Prefect knows long before of a child
    that runs, but never of one whose worker died while the child was starting, or was to end: it
    stays Pending, or Cancelling.
    """
    if not (state.is_pending() or state.is_running() or state.is_cancelling()):
        return False
    children = child_runs(engine_for(database_url), run_id)
    seen = [run.seen_at or run.started_at for run in children if run.flow_run_id == str(child_id)]
    return max([state.timestamp, *seen]) < now() - timedelta(seconds=3 * LEASE_S)


def _abandon(child_id: UUID, run_id: str, database_url: str) -> None:
    """Release the child's claims, on whatever machine it ran."""
    engine = engine_for(database_url)
    for run in child_runs(engine, run_id):
        if run.flow_run_id == str(child_id):
            abandon_run(engine, run.run_id, now())
