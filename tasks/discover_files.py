"""Task discover-files: what there is, what is known of it, and the run's work list."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE

from db.records import FileState, Variant
from tasks.labelling.job import engine_for, now
from tasks.labelling.start_times import time_recordings
from tasks.labelling.watched_folders import Watch
from tasks.labelling.worklist import Discovery, discover


@task(
    name="discover-files",
    task_run_name="discover files",
    cache_policy=NO_CACHE,
    persist_result=False,
)
def discover_files(
    database_url: str,
    run_id: str,
    variant: Variant,
    paths: Sequence[str],
    manifest: Path | None,
    settle_s: float | None,
    follow_symlinks: bool = False,
    is_strict: bool = False,
) -> Discovery:
    """Walk the inputs, and put what needs labelling on the run's work list.

    With a settle time the paths are watched folders: see `tasks.labelling.watched_folders`.
    """
    watch = None if settle_s is None else Watch(paths, settle_s, now())
    engine = engine_for(database_url)
    found = discover(
        engine, run_id, variant, paths, manifest,
        follow_symlinks=follow_symlinks, is_strict=is_strict, watch=watch,
    )  # fmt: skip
    time_recordings(engine)
    logger = get_run_logger()
    logger.info(
        "%d files: %d to label (about %.1f h), %d known, %d failed before",
        found.n_found, found.n_items, found.estimated_s / 3600,
        found.verdicts[FileState.DONE], found.verdicts[FileState.FAILED],
    )  # fmt: skip
    if watch is not None:
        logger.info(
            "%d still being written, %d vanished, %d back",
            found.n_waiting, found.n_missing, found.n_back,
        )  # fmt: skip
    return found
