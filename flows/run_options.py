"""Parameters of the flows; Prefect's form shows their titles and what is said below each.

How to label is in `tasks.labelling.options`.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from audioset_core.errors import UserError

IN_BLOCK = "secret:"
"""In place of a database's URL, before the name of a Secret block that holds the URL."""


class _Options(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class WatchOptions(_Options):
    """Which files of a watched folder are ready."""

    settle_s: float = Field(60.0, ge=0, le=86_400, title="Settle time (s)")
    """A new or changed file waits for the next run until nothing has touched it for this long: it
    may still be being written."""


class ExecutionOptions(_Options):
    """Where the tasks of a run are carried out."""

    task_runner: Literal["threads", "dask"] = Field("threads", title="Task runner")
    """'threads' in the flow's own process; 'dask' on a Dask cluster (pip install
    'audioset-flows[dask]')."""
    dask_address: str | None = Field(None, title="Dask scheduler")
    """Address of a running scheduler, such as tcp://host:8786. Empty: a cluster of processes on
    this machine, for the length of the run."""
    dask_workers: int = Field(2, ge=1, le=256, title="Dask processes")
    """Processes of the cluster on this machine; not used with an address."""
    partitions: int = Field(0, ge=0, le=1_000)
    """Many machines: cut the open work into so many child runs of the deployment below, each taken
    up by one of its work pool's workers. 0: this run does all the work."""
    partition_deployment: str = Field(
        "label-partition/machines", title="Deployment of the partitions"
    )
    """FLOW/DEPLOYMENT whose workers label the partitions."""


class AlertOptions(_Options):
    """Which events a run sends for automations to act on."""

    failed_files: int = Field(10, ge=1, title="Failed files, at least")
    """No event below so many failures in one run."""
    failed_share: float = Field(0.05, ge=0, le=1, title="Failed share, at least")
    """No event below this share of the files that the run opened."""
    most_sounds: int = Field(20, ge=0, le=1_000, title="Sounds of a rule, at most")
    """So many events audioset.sound-heard of each rule for alerts; one more event counts the
    rest."""


def stated_url(database: SecretStr | None) -> str | None:
    """The URL of a flow's parameter `database`; of ``secret:NAME`` what that Secret block holds.

    Raises:
        UserError: the server has no such block.
    """
    stated = database.get_secret_value() if database else None
    if stated is None or not stated.startswith(IN_BLOCK):
        return stated
    from prefect.blocks.system import Secret

    name = stated.removeprefix(IN_BLOCK)
    try:
        return str(Secret.load(name).get())  # type: ignore[union-attr]  # no coroutine in a flow
    except ValueError:
        raise UserError(
            f"the server has no Secret block {name!r}; save one that holds the database's URL"
        ) from None
