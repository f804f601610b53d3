"""``audioset label``: look first, start Prefect only if there is work, report the result."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from audioset_core.audio.sandbox import decoder_pool
from audioset_core.errors import UserError
from audioset_core.inputs.walk import Inputs, folders_without_recordings, read_inputs
from audioset_core.models.registry import ModelBundle
from audioset_core.weights import locate as weights_files
from audioset_core.weights.locate import ReadyWeights
from db.catalog.model_registry import find_variant
from db.engine import shown_url
from flows.options import DEFAULT_HOME, check_name
from flows.prefect_server.settings import server_for_command
from flows.run.preparation import Prepared, prepare_run
from flows.run_report.progress import listening
from flows.run_report.summary import Summary
from flows.stopping import stopper
from flows.terminal import LabelProgress, note, one_line, print_table
from tasks.labelling.job import begin_to_load
from tasks.labelling.options import LabelOptions
from tasks.labelling.shards import SHARDS_IN_FLIGHT
from tasks.labelling.start_times import time_recordings
from tasks.labelling.worklist import look_for_work


def label_paths(
    paths: list[str], manifest: Path | None, home: Path, options: LabelOptions, url: str
) -> int:
    """Label and report; returns the exit code.

    Raises:
        UserError, DatabaseUserError: an input is off.
    """
    inputs = read_inputs(paths, manifest, follow_symlinks=options.follow_symlinks)
    barren = folders_without_recordings(inputs)
    is_all = len(barren) == len(inputs.named_folders) and inputs.are_folders_named
    if barren and is_all:
        raise UserError("; ".join(barren))
    prepared = prepare_run(options, home, url)
    ready = [ready_weights(model.bundle, options.weights) for model in prepared.models]
    summary = _nothing_to_do(inputs, ready, prepared)
    if summary is None:
        for path in paths:
            check_name("recordings", path)
        summary = _run_flow(paths, manifest, ready, prepared)
    _report(summary, home, url, has_scores=any(weights.has_scores for weights in ready))
    for weights in ready:
        if not weights.has_scores:
            note(
                f"these {weights.model} weights have no classifier head: embeddings are stored, "
                f"there are no scores and no labels"
            )
    for folder in barren:
        note(one_line(folder))
    if barren:
        return 2
    return 1 if summary.n_failed or summary.n_failed_before else 0


def ready_weights(bundle: ModelBundle, given: Path | None) -> ReadyWeights:
    """The weights, fetched and converted if need be; says what is downloaded.

    Raises:
        WeightsError: as `audioset_core.weights.locate.prepare`.
    """
    ready = weights_files.peek(bundle, given)
    if ready is not None:
        return ready
    if weights_files.find_source(bundle, given) is None and bundle.official is not None:
        size = bundle.official.size_bytes / 1e6
        note(f"downloading {bundle.official.url}" + (f" ({size:.1f} MB)" if size else ""))
    return weights_files.prepare(bundle, given, progress=_download_line())


def _download_line() -> Callable[[int, int], None]:
    """Says how far a download is, at every tenth, or every 10 MB where the size is unknown."""
    shown = -1

    def progress(done: int, total: int) -> None:
        nonlocal shown
        step = 10 * done // total if total else done // 10_000_000
        if step > shown:
            shown = step
            of_all = f" of {total / 1e6:.1f}" if total else ""
            percent = f"{100 * done // total:3d} %  " if total else ""
            note(f"{percent}{done / 1e6:.1f}{of_all} MB")

    return progress


def _nothing_to_do(inputs: Inputs, ready: list[ReadyWeights], prepared: Prepared) -> Summary | None:
    """A summary if everything at the paths is labelled; None if a run is needed."""
    engine, is_strict = prepared.engine, prepared.options.strict
    try:
        known = [
            find_variant(engine, weights.model, weights.version, model.parameters)
            for weights, model in zip(ready, prepared.models, strict=True)
        ]
        variants = [variant for variant in known if variant is not None]
        if len(variants) < len(known):
            return None
        found = look_for_work(engine, variants, inputs, is_strict=is_strict)
        if found is None:
            return None
        time_recordings(engine)
        return Summary.of(found, [weights.named for weights in ready])
    finally:
        engine.dispose()


def _run_flow(
    paths: list[str], manifest: Path | None, ready: list[ReadyWeights], prepared: Prepared
) -> Summary:
    def begin_to_get_ready() -> None:
        for weights in ready:
            begin_to_load(weights, prepared.options.compute)
        stopper().on_leave(decoder_pool().kill)
        are_files = manifest is None and all(Path(path).is_file() for path in paths)
        decoder_pool().start_workers(
            min(SHARDS_IN_FLIGHT, len(paths)) if are_files else SHARDS_IN_FLIGHT
        )

    with LabelProgress() as progress:
        progress.say("starting Prefect")
        with server_for_command(prepared.home, begin_to_get_ready), listening(progress):
            from pydantic import SecretStr

            from flows.label_audio import label_audio

            return label_audio(
                paths=paths,
                manifest=manifest,
                home=prepared.home,
                options=prepared.options,
                database=SecretStr(prepared.database_url),
            )


def _report(summary: Summary, home: Path, url: str, *, has_scores: bool) -> None:
    print_table(("", ""), summary.rows())
    for path, reason, detail in summary.shown_failures[:5]:
        note(one_line(f"  {path}: {reason}" + (f" ({detail})" if detail else "")))
    for path, kind, detail in summary.shown_remarks[:5]:
        note(one_line(f"  {path}: {kind} ({detail})"))
    for unlistable in summary.passed_over.unlistable:
        note(one_line(f"  not listed: {unlistable}"))
    shown_home = "" if home == DEFAULT_HOME else f" --home {home}"
    if summary.n_failed or summary.n_failed_before:
        print(f"\nWhat failed and why:  {_program()} failures{shown_home}")
    if summary.alerts:
        print(f"\nAlerts:  {_program()} alerts list --raised{shown_home}")
    if summary.n_labelled:
        print(f"\nLabels: {shown_url(url)}\nResults: {home.absolute()}")
    if summary.n_labelled and has_scores:
        print("Next:")
        for command in (f'query --under "Animal" --min-score 0.3{shown_home}', "ontology tree"):
            print(f"  {_program()} {command}")
    sys.stdout.flush()


def _program() -> str:
    """How this command line is called from here: by its name, or by its path."""
    return "audioset" if shutil.which("audioset") else os.path.relpath(sys.argv[0])
