"""One process that serves all deployments: a schedule over watched folders, and runs on demand."""

from __future__ import annotations

import asyncio
import difflib
import os
import signal
import subprocess
import zoneinfo
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from audioset_core.errors import AudiosetError, UserError
from audioset_core.inference.engines import uses_gpu
from audioset_core.inputs.walk import read_inputs
from audioset_core.models.registry import find_bundle
from audioset_core.object_storage.addresses import read_address
from audioset_core.weights.locate import find_source
from db.alerts.rules import stored_rules
from flows.asking import open_database
from flows.options import database_url
from flows.prefect_server.metrics import served_metrics
from flows.prefect_server.settings import Served, prepare_to_serve, server_for_serve
from flows.run.preparation import prepare_run
from flows.run_options import WatchOptions
from flows.stopping import SAME_REQUEST_S, stopper
from flows.terminal import note
from tasks.labelling.options import LabelOptions
from tasks.labelling.watched_folders import usable_roots

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient
    from prefect.deployments.runner import RunnerDeployment

# Every deployment has it; the automation below looks after the runs that carry it.
TAG = "audioset"
HEARTBEAT_S = 30
VERIFY_CRON = "0 3 * * 0"
INDEX_CRON = "0 4 * * *"
# As in deployments/automations.yaml. Without it a run whose machine died stays "Running".
HEARTBEAT_AUTOMATION: dict[str, Any] = {
    "name": "audioset: no sign of life",
    "description": "A run of an audioset deployment that has sent no heartbeat for two minutes "
    "(they come every 30 s) becomes Crashed.",
    "enabled": True,
    "trigger": {
        "type": "event",
        "posture": "Proactive",
        "after": ["prefect.flow-run.heartbeat"],
        "expect": ["prefect.flow-run.*"],
        "match_related": {"prefect.resource.id": f"prefect.tag.{TAG}"},
        "for_each": ["prefect.resource.id"],
        "threshold": 1,
        "within": 120,
    },
    "actions": [
        {
            "type": "change-flow-run-state",
            "state": "CRASHED",
            "message": "no sign of life for two minutes: the process or its machine is gone",
        }
    ],
}
# As in deployments/prefect.yaml: a look two minutes after the first of several events.
ARRIVED: dict[str, Any] = {
    "name": "audioset: recordings arrived",
    "type": "event",
    "posture": "Reactive",
    "expect": ["audioset.arrived"],
    "threshold": 1,
    "within": 60,
    "schedule_after": 120,
}
_LOOK_EVERY_S = 1.0
_RUNS_END_WITHIN_S = 4.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to watch, when, and where results go."""

    roots: list[str]
    cron: str
    timezone: str
    settle_s: float
    options: LabelOptions
    home: Path
    database: str | None
    with_ui: bool = False
    port: int | None = None
    metrics_port: int | None = None


def serve_plan(plan: Plan) -> None:
    """Serve the deployments until SIGTERM, Ctrl-C or the end of the own server.

    Raises:
        UserError, DatabaseUserError: a part of the plan cannot work.
        AudiosetError: the server went away.
    """
    plan = replace(plan, roots=_checked_roots(plan.roots))
    _check_timezone(plan.timezone)
    _check_labelling(plan)
    prepare_to_serve(plan.home)
    next_time = _next_time(plan.cron, plan.timezone)
    # For the runs' processes. A database's password must not become a parameter, which Prefect
    # stores and shows.
    os.environ["AUDIOSET_HOME"] = str(plan.home.absolute())
    if plan.database:
        os.environ["AUDIOSET_DB"] = plan.database
    with (
        served_metrics(database_url(plan.home, plan.database), plan.metrics_port),
        server_for_serve(plan.home, port=plan.port, with_ui=plan.with_ui) as served,
    ):
        _ensure_alerts(plan)
        try:
            asyncio.run(_serve(plan, served, next_time))
        finally:
            stopper().watch_again()


async def deployments(plan: Plan) -> list[RunnerDeployment]:
    """The deployments, by the names that they have in deployments/prefect.yaml."""
    from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy
    from prefect.events import DeploymentEventTrigger
    from prefect.schedules import Cron
    from prefect.types.entrypoint import EntrypointType

    from flows.ingest_new import ingest_new
    from flows.label_audio import label_audio
    from flows.label_partition import label_partition
    from flows.prepare_model import prepare_model
    from flows.update_index import update_index
    from flows.verify import verify

    home = str(plan.home.absolute())
    weights = plan.options.weights and str(plan.options.weights.absolute())
    options = {**plan.options.model_dump(mode="json"), "weights": weights}
    watch = WatchOptions(settle_s=plan.settle_s).model_dump(mode="json")
    one_at_a_time = ConcurrencyLimitConfig(
        limit=1, collision_strategy=ConcurrencyLimitStrategy.CANCEL_NEW
    )
    common: dict[str, Any] = {
        "version": _own_version(),
        "tags": [TAG],
        "entrypoint_type": EntrypointType.MODULE_PATH,
    }
    return [
        await label_audio.ato_deployment(
            "ad-hoc", parameters={"home": home, "options": options}, **common
        ),
        await ingest_new.ato_deployment(
            "scheduled",
            parameters={"roots": plan.roots, "home": home, "options": options, "watch": watch},
            schedule=Cron(plan.cron, timezone=plan.timezone),
            triggers=[DeploymentEventTrigger.model_validate(ARRIVED)],
            concurrency_limit=one_at_a_time,
            **common,
        ),
        await label_partition.ato_deployment("machines", parameters={"home": home}, **common),
        await prepare_model.ato_deployment(
            "ad-hoc",
            parameters={"model": options["model"], "weights": weights},
            **common,
        ),
        await verify.ato_deployment(
            "weekly",
            parameters={"home": home},
            schedule=Cron(VERIFY_CRON, timezone=plan.timezone),
            concurrency_limit=one_at_a_time,
            **common,
        ),
        await update_index.ato_deployment(
            "nightly",
            parameters={"home": home, "only_if_there": True},
            schedule=Cron(INDEX_CRON, timezone=plan.timezone),
            concurrency_limit=one_at_a_time,
            **common,
        ),
    ]


def _own_version() -> str | None:
    """The package's; None in a checkout that is not installed."""
    try:
        return version("audioset-flows")
    except PackageNotFoundError:
        return None


async def _serve(plan: Plan, served: Served, next_time: datetime) -> None:
    from prefect.client.orchestration import get_client
    from prefect.runner import Runner

    stop = asyncio.Event()
    async with get_client() as client:
        if served.process is not None:
            await _tidy(client)
        # A pause would outlive a restart.
        runner = Runner(name="audioset", pause_on_shutdown=False, heartbeat_seconds=HEARTBEAT_S)
        for deployment in await deployments(plan):
            # Set, if only to None: else a work pool of an earlier registration would stay.
            deployment.work_pool_name = deployment.work_queue_name = None
            await runner.aadd_deployment(deployment)
        await _ensure_automation(client)
        if uses_gpu(plan.options.compute):
            await _ensure_gpu_limit(client, is_own=served.process is not None)
    running = asyncio.create_task(runner.start())
    await asyncio.sleep(0)  # it first sets a handler of its own, which would not wait for runs
    _end_on_signals(stop)
    _say(plan, served, next_time)
    gone = await _until_stopped(stop, running, served.process)
    note("stopping; what is done is kept")
    try:
        async with asyncio.timeout(_RUNS_END_WITHIN_S):
            if runner.started:
                await runner.astop()
            await running
    except TimeoutError:
        pass  # what is left is killed with the server
    except Exception as error:
        gone = gone or f"Prefect's server at {served.url} does not answer any more: {error}"
    if gone:
        raise AudiosetError(gone)


def _end_on_signals(stop: asyncio.Event) -> None:
    """The first signal sets the event; a second Ctrl-C ends the process at once."""
    loop, first_s = asyncio.get_running_loop(), 0.0

    def asked(number: int) -> None:
        nonlocal first_s
        if not stop.is_set():
            first_s = loop.time()
            stop.set()
            stopper().end_in_time()
        elif number == signal.SIGINT and loop.time() - first_s > SAME_REQUEST_S:
            stopper().ask(number)

    stopper().begin_at_once()
    for number in stopper().watched:
        loop.add_signal_handler(number, asked, number)


async def _until_stopped(
    stop: asyncio.Event, running: asyncio.Task[None], server: subprocess.Popen[bytes] | None
) -> str | None:
    """Wait for a signal; returns what went wrong if there was none."""
    while not stop.is_set() and not running.done():
        if server is not None and server.poll() is not None:
            return f"Prefect's server ended by itself with code {server.returncode}"
        try:
            await asyncio.wait_for(stop.wait(), _LOOK_EVERY_S)
        except TimeoutError:
            continue
    return None


async def _tidy(client: PrefectClient) -> None:
    """End what a killed `serve` left on its own server, where nothing can be running now."""
    from prefect.client.schemas.filters import (
        FlowRunFilter,
        FlowRunFilterExpectedStartTime,
        FlowRunFilterState,
        FlowRunFilterStateType,
    )
    from prefect.client.schemas.objects import StateType
    from prefect.states import Crashed

    def in_states(*types: StateType, **more: Any) -> FlowRunFilter:
        kind = FlowRunFilterStateType(any_=list(types))
        return FlowRunFilter(state=FlowRunFilterState(type=kind), **more)

    alive = in_states(StateType.RUNNING, StateType.PENDING, StateType.CANCELLING)
    for run in await client.read_flow_runs(flow_run_filter=alive):
        await client.set_flow_run_state(
            run.id, Crashed(message="audioset serve was killed"), force=True
        )
    # The next run makes up for all that were missed.
    missed = in_states(
        StateType.SCHEDULED,
        expected_start_time=FlowRunFilterExpectedStartTime(before_=datetime.now(UTC)),
    )
    for run in await client.read_flow_runs(flow_run_filter=missed):
        if run.auto_scheduled:
            await client.delete_flow_run(run.id)


async def _ensure_automation(client: PrefectClient) -> None:
    from prefect.events.schemas.automations import AutomationCore

    automation = AutomationCore.model_validate(HEARTBEAT_AUTOMATION)
    if not await client.read_automations_by_name(automation.name):
        await client.create_automation(automation)


def _ensure_alerts(plan: Plan) -> None:
    """Have the server send on what the rules for alerts find; what lacks a block is said."""
    with open_database(plan.home, plan.database) as engine:
        if not (rules := stored_rules(engine)):
            return
        from flows.run_report.sound_events import ensure_automations

        for rule, wrong in ensure_automations(rules).items():
            note(f"alert {rule}: {wrong}")


async def _ensure_gpu_limit(client: PrefectClient, *, is_own: bool) -> None:
    """One run at a time on this machine's GPU, if nobody has set another number.

    The slots of a killed `serve` are free again: its own server keeps leases in memory.
    """
    from prefect.client.schemas.actions import (
        GlobalConcurrencyLimitCreate,
        GlobalConcurrencyLimitUpdate,
    )
    from prefect.exceptions import ObjectAlreadyExists

    from flows.run.gpu_slot import gpu_limit

    name = gpu_limit()
    try:
        await client.create_global_concurrency_limit(
            GlobalConcurrencyLimitCreate(name=name, limit=1)
        )
    except ObjectAlreadyExists:
        if is_own:
            free = GlobalConcurrencyLimitUpdate(active_slots=0)
            await client.update_global_concurrency_limit(name, free)


def _say(plan: Plan, served: Served, next_time: datetime) -> None:
    for root in plan.roots:
        note(f"watching {root}")
    note(f"at {plan.cron!r} ({plan.timezone}), next {next_time:%Y-%m-%d %H:%M %Z}")
    if served.ui_url:
        note(f"Prefect: {served.ui_url}")
    else:
        note(f"Prefect's API: {served.url}")
    if plan.metrics_port is not None:
        note(f"metrics: http://127.0.0.1:{plan.metrics_port}/metrics")
    note("stop with Ctrl-C")


def _checked_roots(roots: list[str]) -> list[str]:
    if not roots:
        raise UserError("nothing to watch: give a folder with --root DIR")
    places: list[str] = []
    for root in roots:
        if read_address(root) is None and not Path(root).expanduser().is_dir():
            read_inputs([root])  # whose error names a similar folder, if there is one
            raise UserError(f"--root {root}: not a folder")
        places += usable_roots([root])[0]
    return list(dict.fromkeys(places))


def _check_timezone(name: str) -> None:
    known = zoneinfo.available_timezones()
    if name not in known:
        by_lower = {zone.lower(): zone for zone in known}
        nearest = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.5)
        hint = f"; did you mean {by_lower[nearest[0]]}?" if nearest else ", such as Europe/Berlin"
        raise UserError(f"--timezone {name!r}: unknown time zone{hint}")


def _check_labelling(plan: Plan) -> None:
    """Report now what every run would fail for."""
    if not 0 <= plan.settle_s <= 86_400:
        raise UserError(f"--settle {plan.settle_s:g}: give a number of seconds from 0 to 86400")
    for name in plan.options.models:
        find_source(find_bundle(name), plan.options.weights)
    prepare_run(plan.options, plan.home, plan.database).engine.dispose()


def _next_time(cron: str, timezone: str) -> datetime:
    """When the schedule fires next.

    Raises:
        UserError: not a schedule, or one that never fires.
    """
    # The client's schedules are not computed: one that never fires would be taken.
    from prefect.server.schemas.schedules import CronSchedule

    try:
        dates = asyncio.run(CronSchedule(cron=cron, timezone=timezone).get_dates(1))
    except ValueError:
        dates = []
    if not dates:
        raise UserError(
            f"--cron {cron!r} never fires: write minute, hour, day, month and weekday, such as "
            f"'0 * * * *' (every hour) or '30 2 * * 1-5'"
        )
    return dates[0]
