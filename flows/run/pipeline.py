"""The body of every labelling run: convert-weights -> load-ontology -> discover-files -> shards."""

# No `from __future__ import annotations`: part of the flows, see label_audio.

from collections.abc import Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefect import get_run_logger
from prefect.runtime import flow_run
from pydantic import SecretStr
from sqlalchemy import Engine

from audioset_core.audio.decoders import DecodeOptions
from audioset_core.audio.sandbox import decoder_pool
from audioset_core.errors import UserError
from audioset_core.features.config import FrontendConfig
from audioset_core.inference.engines import takes_waveforms
from audioset_core.weights.locate import ReadyWeights
from db.catalog.sources import iter_items
from db.catalog.vanished_files import count_moved
from db.errors import DatabaseError
from db.ledger.labels_by_branch import clips_by_branch
from db.ledger.runs import note_progress, summary_before
from db.migrate import ensure_schema
from db.records import Parameters, Variant
from flows.options import database_url, default_home
from flows.run.lifecycle import LiveRun, recorded_run
from flows.run.partitions import label_partitions
from flows.run.settings import labelling_settings
from flows.run.shard_scheduler import label_shards, shard_runner
from flows.run_options import AlertOptions, ExecutionOptions, LabelOptions
from flows.run_report.drift import drift
from flows.run_report.prefect_artifacts import Monitor
from flows.run_report.progress import listener
from flows.run_report.summary import Summary
from tasks.convert_weights import convert_weights
from tasks.discover_files import discover_files
from tasks.labelling.job import Job, begin_to_load, engine_for, now
from tasks.labelling.shards import MIN_SHARD_S, shard_length_s
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


def run_pipeline(request: Request) -> Summary:
    """Label what is not labelled yet.

    Raises:
        UserError, DatabaseUserError: a parameter is off; the message says which and why.
    """
    home, url, engine = open_home(request.home, request.database)
    paths, problems = request.paths, list[str]()
    if request.settle_s is not None:
        paths, problems = usable_roots(request.paths)
    frontend, parameters = labelling_settings(request.options)
    described = _described(request)
    with recorded_run(engine, home, described, flow_run.name, flow_run.id) as run:
        weights = convert_weights(request.options.model, request.options.weights)
        variant = load_ontology(url, weights, parameters)
        found = discover_files(
            url, run.run_id, variant, paths, request.manifest, request.settle_s,
            request.options.follow_symlinks, request.options.strict,
        )  # fmt: skip
        run.summary = Summary.of(found, weights.named)
        run.summary.problems = problems + found.problems
        monitor = Monitor(request.kind, f"Labelled with {weights.named}")
        monitor.begin(found.n_items, found.estimated_s, found.n_found)
        listener().begin(found)
        job = labelling_job(
            run.run_id, home, url, request.options, weights, frontend, parameters, variant,
            estimated_s=found.estimated_s, is_watched=request.settle_s is not None,
        )  # fmt: skip
        is_whole = False
        try:
            if request.execution.partitions and found.n_items:
                label_partitions(
                    job, found, request.execution, request.options, request.database, run.summary,
                    monitor,
                )  # fmt: skip
            elif found.n_items:
                label_here(job, request.execution, run, monitor, estimated_s=found.estimated_s)
            is_whole = True
        finally:
            run.stop_clock()
            _look_back(engine, run, found.roots, described)
            monitor.end(run.summary, run.run_id, request.alerts, is_whole=is_whole)
        return run.summary


def chosen_execution(
    execution: ExecutionOptions, former: ExecutionOptions | None
) -> ExecutionOptions:
    """What a flow was asked for, also under the parameter's former name ``engine``.

    Raises:
        UserError: both names are used, and differ.
    """
    if former is None:
        return execution
    if execution not in (ExecutionOptions(), former):
        raise UserError("the parameters 'execution' and 'engine' differ; give 'execution' alone")
    get_run_logger().warning("the parameter 'engine' is now called 'execution'; rename it")
    return former


def open_home(home: Path | None, database: SecretStr | None) -> tuple[Path, str, Engine]:
    """The home folder, its database's URL and the engine on it, with this version's tables."""
    home = (home or default_home()).absolute()
    home.mkdir(parents=True, exist_ok=True)
    url = database_url(home, database.get_secret_value() if database else None)
    engine = engine_for(url)
    ensure_schema(engine)
    return home, url, engine


def labelling_job(
    run_id: str,
    home: Path,
    url: str,
    options: LabelOptions,
    weights: ReadyWeights,
    frontend: FrontendConfig,
    parameters: Parameters,
    variant: Variant,
    *,
    estimated_s: float,
    is_watched: bool,
) -> Job:
    """What the tasks of the run need to know."""
    # A GPU takes waveforms: an hour is 635 MB at 44.1 kHz, and 92 MB as log-mel frames.
    is_heavy = takes_waveforms(frontend, options.device, options.engine)
    return Job(
        run_id=run_id,
        home=home,
        database_url=url,
        weights=weights,
        frontend=frontend,
        parameters=parameters,
        variant=variant,
        device=options.device,
        engine=options.engine,
        precision=options.precision,
        score_dtype=options.score_dtype,
        # Without a classifier head there is nothing else to store.
        embeddings=options.embeddings or not weights.has_scores,
        shard_s=MIN_SHARD_S if is_heavy else shard_length_s(estimated_s),
        is_watched=is_watched,
        decoding=DecodeOptions(options.track, options.strict),
    )


def label_here(
    job: Job,
    options: ExecutionOptions,
    run: LiveRun,
    monitor: Monitor,
    *,
    estimated_s: float,
    **part: Any,
) -> None:
    """Carry out the work list, or a ``part`` of it (see `iter_items`), with this run's tasks."""
    engine = engine_for(job.database_url)
    of_run = part.pop("of_run", job.run_id)
    if options.task_runner == "threads":
        begin_to_load(job.weights, job.device, job.engine, job.precision)
    with (
        shard_runner(options, estimated_s) as runner,
        closing(label_shards(job, runner, lambda: iter_items(engine, of_run, **part))) as receipts,
    ):
        for receipt in receipts:
            run.summary.add(receipt)
            monitor.advance(receipt)
            listener().advance(receipt)
            note_progress(engine, job.run_id, run.summary.counts, now())
    decoder_pool().close()  # a process that waits for the next run keeps none


def _look_back(
    engine: Engine, run: LiveRun, roots: list[str], described: Mapping[str, Any]
) -> None:
    """What can be said once the labels are there; also of a run that was stopped."""
    summary = run.summary
    with suppress(DatabaseError):  # if it is away, that is why the run ends, and what it says
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
