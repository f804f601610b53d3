"""Task update-index: add what is new to the indexes of stored vectors."""

from __future__ import annotations

from pathlib import Path

from prefect import get_run_logger, task

from tasks.indexing.update import Updated, update_indexes
from tasks.labelling.job import engine_for


@task(name="update-index", task_run_name="index {home}", persist_result=False)
def update_index(
    database_url: str, home: Path, model: str | None, with_moments: bool
) -> list[Updated]:
    """Bring the home's indexes up to date; see `tasks.indexing.update.update_indexes`."""
    done = update_indexes(engine_for(database_url), home, model, with_moments=with_moments)
    logger = get_run_logger()
    for each in done:
        if each.remark is not None:
            logger.warning("%s", each.remark)
        for file, reason in each.failures:
            logger.warning("left out: %s: %s", file, reason)
        logger.info("%s", each.conclusion())
    return done
