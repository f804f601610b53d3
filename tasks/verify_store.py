"""Task verify-store: do tables and files agree? On request what does not is put right."""

from __future__ import annotations

from pathlib import Path

from prefect import get_run_logger, task

from tasks.labelling.job import engine_for
from tasks.store_check.check import check_store
from tasks.store_check.report import Report


@task(name="verify-store", task_run_name="verify {home}", persist_result=False)
def verify_store(database_url: str, home: Path, deep: bool, repair: bool) -> Report:
    """Check the home's tables and files; see `tasks.store_check.check.check_store`."""
    report = check_store(engine_for(database_url), home, is_deep=deep, is_repair=repair)
    get_run_logger().info("%s", report.conclusion())
    return report
