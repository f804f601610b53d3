"""Task discover-files: what there is, what is known of it, and the run's work list."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from prefect import get_run_logger, task

from audioset_core.inputs.walk import read_inputs
from db.records import FileState
from tasks.labelling.job import Jobs, engine_for
from tasks.labelling.start_times import time_recordings
from tasks.labelling.worklist import Discovery, discover


@task(name="discover-files", task_run_name="discover files", persist_result=False)
def discover_files(
    jobs: Jobs, paths: Sequence[str], manifest: Path | None, settle_s: float | None
) -> Discovery:
    """Walk the inputs, and put what needs labelling on the run's work list.

    With a settle time the paths are watched folders: see `tasks.labelling.watched_folders`.
    """
    job, variants = jobs[0], [job.variant for job in jobs]
    engine = engine_for(job.database_url)
    inputs = read_inputs(paths, manifest, follow_symlinks=job.options.follow_symlinks)
    found = discover(
        engine, job.run_id, variants, inputs, is_strict=job.options.strict, settle_s=settle_s
    )
    time_recordings(engine)
    logger = get_run_logger()
    logger.info(
        "%d files: %d to label (about %.1f h), %d known, %d failed before",
        found.n_found, found.n_items, found.estimated_s / 3600,
        found.verdicts[FileState.DONE], found.verdicts[FileState.FAILED],
    )  # fmt: skip
    if settle_s is not None:
        logger.info(
            "%d still being written, %d vanished, %d back",
            found.n_waiting, found.n_missing, found.n_back,
        )  # fmt: skip
    return found
