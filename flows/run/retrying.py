"""A deployment's run that fails because its database is away is tried again later, by Prefect.

What is labelled stays, so that a later try goes on where the one before it stopped. Retries are
asked for when that error comes, and not in the flows' decorators: Prefect would repeat a person's
mistake too, and a person at the command line would wait.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

from prefect import get_run_logger
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRunPolicy
from prefect.runtime import deployment, flow_run

from db.errors import DatabaseUnavailableError

RETRIES = FlowRunPolicy(retries=3, retry_delay=120)
"""Each try has waited half a minute for the database itself."""


@contextmanager
def retried_without_database() -> Iterator[None]:
    """Have Prefect repeat the flow if the block finds the database away."""
    try:
        yield
    except DatabaseUnavailableError:
        if deployment.id is not None:
            try:
                with get_client(sync_client=True) as client:
                    client.update_flow_run(UUID(flow_run.id), empirical_policy=RETRIES)
            except Exception:
                get_run_logger().warning("the run cannot be tried again", exc_info=True)
        raise
