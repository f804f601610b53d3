"""Flow verify: do tables and files agree? On a schedule; the run fails if they do not."""

# No `from __future__ import annotations`: Prefect reads the parameters' types at run time,
# also where it loads this file by its path.

from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.runtime import flow_run
from pydantic import SecretStr

from audioset_core.errors import AudiosetError
from flows.asking import open_database
from flows.label_audio import label_audio
from flows.options import database_url, default_home
from flows.run.relabelling import label_again
from flows.run_options import stated_url
from flows.run_report.safe_markdown import as_cell, cleaned, table
from tasks.labelling.options import LabelOptions
from tasks.store_check.report import Report
from tasks.verify_store import verify_store


class StoreDamagedError(AudiosetError):
    """Tables and files disagree, and were left so."""


def _run_name() -> str:
    parameters: dict[str, Any] = flow_run.parameters
    what = [name for name in ("deep", "repair") if parameters.get(name)]
    home = str(parameters.get("home") or "")[-60:]
    return " ".join(filter(None, ["verify", home, *what]))


@flow(name="verify", flow_run_name=_run_name, persist_result=False)
def verify(
    home: Path | None = None,
    deep: bool = False,
    repair: bool = False,
    database: SecretStr | None = None,
) -> Report:
    """Check that tables and files agree, and fail if damage is found and left.

    Args:
        home: The folder of labels.db and scores/. Empty: AUDIOSET_HOME.
        deep: Read every byte: checksums, finite values, every label.
        repair: Put right, or label again, exactly what is damaged.
        database: The database's URL, or secret:NAME for one that is in a Secret block. Empty:
            AUDIOSET_DB, or SQLite in the home folder.

    Raises:
        StoreDamagedError: damage was found and is left; the report tells which.
        UserError, DatabaseUserError: a parameter is off; the message says which and why.
    """
    home = (home or default_home()).absolute()
    url = database_url(home, stated_url(database))

    def label(manifest: Path, options: LabelOptions) -> int:
        return label_audio(
            paths=[], manifest=manifest, home=home, options=options, database=SecretStr(url)
        ).n_failed

    with open_database(home, url) as engine:
        report = verify_store(url, home, deep, repair)
        try:
            if repair and report.n_reset:
                label_again(engine, home, report, None, label)
        finally:
            _leave_pages(report)
    if report.n_damage_left:
        raise StoreDamagedError(f"{report.conclusion()}; see the artifact verify-report")
    return report


def _leave_pages(report: Report) -> None:
    """The run's page and table in Prefect; an error here does not change the result."""
    try:
        create_markdown_artifact(
            _as_markdown(report),
            key="verify-report",
            description="Whether tables and files agree.",
        )
        create_table_artifact(
            [
                {
                    "what": str(finding.what),
                    "where": as_cell(finding.where),
                    "why": as_cell(finding.reason),
                    "outcome": str(finding.outcome),
                }
                for what in report.found_kinds()
                for finding in report.examples[what]
            ],
            key="verify-findings",
            description="The first findings of each kind.",
        )
    except Exception:
        get_run_logger().warning("the report could not be stored", exc_info=True)


def _as_markdown(report: Report) -> str:
    lines = ["# Tables and files", "", cleaned(report.conclusion())]
    if report.n_found:
        rows = [[cleaned(cell) for cell in row] for row in report.rows()]
        lines += ["", *table(("what", "how many", "where", "why"), rows)]
    lines += ["", *(f"- {cleaned(line)}" for line in report.notes)]
    return "\n".join(lines)
