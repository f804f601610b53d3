"""The body of every labelling run: convert-weights -> load-ontology -> discover-files -> shards."""

# No `from __future__ import annotations`: part of the flows, see label_audio.

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from prefect import get_run_logger
from prefect.runtime import flow_run
from pydantic import SecretStr
from sqlalchemy import Engine

from audioset_core.audio.sandbox import decoder_pool
from audioset_core.errors import UserError
from audioset_core.object_storage.addresses import read_address
from db.catalog.sources import iter_items
from db.catalog.vanished_files import count_moved
from db.errors import DatabaseError
from db.ledger.labels_by_branch import clips_by_branch
from db.ledger.runs import note_progress, summary_before
from db.records import WorkItem
from flows.run.alerts import LOOK_EVERY_S, ask_new, tell_waiting
from flows.run.combining import follow_up
from flows.run.gpu_slot import gpu_slot
from flows.run.live_runs import LiveRun, recorded_run
from flows.run.partitions import label_partitions
from flows.run.preparation import Prepared, prepare_run
from flows.run.retrying import retried_without_database
from flows.run.shard_scheduler import label_shards, shard_runner
from flows.run_options import AlertOptions, ExecutionOptions, stated_url
from flows.run_report.drift import drift
from flows.run_report.prefect_artifacts import Monitor, not_fatal
from flows.run_report.progress import lasting_server, listeners
from flows.run_report.summary import Summary
from tasks.convert_weights import convert_weights
from tasks.discover_files import discover_files
from tasks.labelling.job import Jobs, begin_to_load, engine_for, now
from tasks.labelling.options import LabelOptions
from tasks.labelling.start_times import time_recordings
from tasks.labelling.watched_folders import mark_moved_away, usable_roots
from tasks.load_ontology import load_ontology


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a flow was asked to do. With ``settle_s`` the paths are watched folders."""

    kind: str
    paths: list[str]
    manifest: Path | None = None
    home: Path | None
    options: LabelOptions
    execution: ExecutionOptions
    alerts: AlertOptions
    database: SecretStr | None
    settle_s: float | None = None


@retried_without_database()
def run_pipeline(request: Request) -> Summary:
    """Label what is not labelled yet.

    Raises:
        UserError, DatabaseUserError: a parameter is off; the message says which and why.
    """
    for path in request.paths:
        read_address(path)  # one that holds a secret is refused before anything is stored
    prepared = prepare_run(request.options, request.home, stated_url(request.database))
    engine, is_watched = prepared.engine, request.settle_s is not None
    paths, problems = usable_roots(request.paths) if is_watched else (request.paths, [])
    described = _described(request)
    with recorded_run(engine, prepared.home, described, flow_run.name, flow_run.id) as run:
        jobs = begin_jobs(prepared, run, is_watched=is_watched)
        found = discover_files(jobs, paths, request.manifest, request.settle_s)
        run.summary = Summary.of(found, [job.weights.named for job in jobs])
        run.summary.problems = problems + found.problems
        title = f"Labelled with {run.summary.model}"
        monitor = Monitor(request.kind, title, prepared.home)
        monitor.begin(found.n_items, found.estimated_s, found.n_found)
        for each in listeners():
            each.begin(found)
        look = _alerts_now_and_then(engine, run, request.alerts)
        is_whole = False
        try:
            if request.execution.partitions and found.n_items:
                label_partitions(
                    jobs, found, request.execution, request.database, run.summary, monitor, look
                )
            elif found.n_items:
                items = partial(iter_items, engine, run.run_id)
                label_here(jobs, request.execution, run, monitor, items, found.estimated_s, look)
            _follow_up(jobs, run)
            is_whole = True
        finally:
            run.stop_clock()
            _look_back(engine, run, found.roots, described)
            if is_whole:  # what a stopped run has labelled is asked for by the next
                sound_alerts(engine, run, request.alerts, is_end=True)
            monitor.end(run.summary, run.run_id, request.alerts, is_whole=is_whole)
        return run.summary


def chosen_execution(
    execution: ExecutionOptions, former: ExecutionOptions | None
) -> ExecutionOptions:
    """The execution options, which may come under their former name ``engine``.

    Raises:
        UserError: both names are used, and differ.
    """
    if former is None:
        return execution
    if execution not in (ExecutionOptions(), former):
        raise UserError("the parameters 'execution' and 'engine' differ; give 'execution' alone")
    get_run_logger().warning("the parameter 'engine' is now called 'execution'; rename it")
    return former


def begin_jobs(prepared: Prepared, run: LiveRun, *, is_watched: bool) -> Jobs:
    """Run the first two tasks for every model; returns what all later ones need to know."""
    jobs = []
    for model in prepared.models:
        weights = convert_weights(model.bundle.name, prepared.options.weights)
        variant = load_ontology(prepared.database_url, weights, model.parameters)
        jobs.append(prepared.job(run.run_id, model, weights, variant, is_watched=is_watched))
    return tuple(jobs)


def label_here(
    jobs: Jobs,
    execution: ExecutionOptions,
    run: LiveRun,
    monitor: Monitor,
    items: Callable[[], Iterator[WorkItem]],
    estimated_s: float,
    look: Callable[[], None] = lambda: None,
) -> None:
    """Label the work list, which `items` begins to read, with tasks of this run.

    `look` is called after each shard.
    """
    engine = engine_for(jobs[0].database_url)
    with gpu_slot(jobs[0]):
        if execution.task_runner == "threads":
            for job in jobs:
                begin_to_load(job.weights, job.options.compute)
        with (
            shard_runner(jobs, execution, estimated_s) as runner,
            closing(label_shards(jobs, runner, items)) as receipts,
        ):
            for receipt in receipts:
                run.summary.add(receipt)
                monitor.advance(receipt)
                for each in listeners():
                    each.advance(receipt)
                note_progress(engine, run.run_id, run.summary.counts, now())
                look()
    decoder_pool().close()  # a process that waits for the next run keeps none


def _alerts_now_and_then(engine: Engine, run: LiveRun, alerts: AlertOptions) -> Callable[[], None]:
    """`sound_alerts`, which does nothing where it was called less than a minute ago."""
    looked_at = time.monotonic()

    def look() -> None:
        nonlocal looked_at
        if time.monotonic() - looked_at > LOOK_EVERY_S:
            sound_alerts(engine, run, alerts)
            looked_at = time.monotonic()

    return look


def sound_alerts(
    engine: Engine, run: LiveRun, alerts: AlertOptions, *, is_end: bool = False
) -> None:
    """Ask the rules for alerts about what is new, and tell what they find."""
    summary = run.summary
    with not_fatal("the rules for alerts could not be asked; the next run asks them"):
        asked = ask_new(engine)
        for rule, counts in asked.found.items():
            if not lasting_server.get() and (n_waiting := counts.pop("waiting", 0)):
                counts["unsent"] = n_waiting
            summary.alerts.setdefault(rule, Counter()).update(counts)
        summary.alert_problems |= asked.problems
    if not lasting_server.get():
        return  # what waits is told by a run whose server is there to send it on
    with not_fatal("alerts could not be told; the next run tells them"):
        told = tell_waiting(engine, run.started_at, alerts.most_sounds, is_end=is_end)
        summary.alert_problems |= told


def _follow_up(jobs: Jobs, run: LiveRun) -> None:
    """Have taught models score what is new, where embeddings of their base are stored."""
    bases = [f"{j.weights.model}@{j.weights.version}" for j in jobs if j.has_embeddings]
    if bases:
        engine = engine_for(jobs[0].database_url)
        found = follow_up(engine, jobs[0].home, bases)
        run.summary.taught, run.summary.taught_problems = found


def _look_back(
    engine: Engine, run: LiveRun, roots: list[str], described: Mapping[str, Any]
) -> None:
    """Add what is known once the labels are stored, also by a run that was stopped."""
    summary = run.summary
    with suppress(DatabaseError):  # if it cannot be reached, the run ends with that error
        time_recordings(engine)  # of files that tell their start themselves
        if summary.n_labelled:
            summary.labels = clips_by_branch(engine, run.run_id)
            before = summary_before(engine, run.started_at, described)
            summary.drift = drift(summary.labels, summary.n_labelled, before)
        summary.n_missing += mark_moved_away(engine, roots, run.run_id, now())
        if summary.n_missing:
            summary.n_moved = count_moved(engine, run.started_at)


def _described(request: Request) -> Mapping[str, Any]:
    """The parameters for the run's row: everything but the database's URL."""
    return {
        "flow": request.kind,
        "paths": request.paths,
        "manifest": str(request.manifest) if request.manifest else None,
        "settle_s": request.settle_s,
        **request.options.model_dump(mode="json"),
        "execution": request.execution.model_dump(mode="json"),
    }
