"""What a run shows in Prefect while it works and when it has ended.

Its name, a progress bar, a page, a table of failures, and an event where many files failed. The
labels do not depend on any of it: a server that is away for a moment costs a picture, not a run.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast
from uuid import UUID

from prefect import get_run_logger
from prefect.artifacts import (
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.client.orchestration import get_client
from prefect.events import emit_event
from prefect.runtime import flow_run

from flows.addresses import app_address
from flows.run_options import AlertOptions
from flows.run_report.safe_markdown import as_cell
from flows.run_report.summary import Summary
from flows.terminal import one_line
from tasks.labelling.job import now
from tasks.labelling.shards import Receipt

FAILURES_EVENT = "audioset.failures"
_UPDATE_EVERY_S = 1.0


class Monitor:
    """The Prefect side of one run. ``kind`` is the flow's name, the first part of every key."""

    def __init__(self, kind: str, title: str, home: Path) -> None:
        self._kind, self._title, self._home = kind, title, home
        self._artifact: UUID | None = None
        self._total_s = self._done_s = 0.0
        self._n_clips = self._n_failed = self._to_label = 0
        self._began = self._updated = time.monotonic()

    def begin(self, n_items: int, estimated_s: float, n_found: int | None = None) -> None:
        """The work list is known: so many files of those found, about so much audio."""
        self._total_s, self._to_label = estimated_s, n_items
        if n_found is not None:
            with (
                not_fatal("the run could not be renamed"),
                get_client(sync_client=True) as client,
            ):
                name = f"{flow_run.name}: {n_items:,} of {n_found:,} files"
                client.update_flow_run(UUID(flow_run.id), name=name)
        with not_fatal("the progress could not be shown"):
            made = create_progress_artifact(
                0.0 if n_items else 100.0,
                key=f"{self._kind}-progress",
                description=f"{n_items:,} files to label",
            )
            self._artifact = cast(UUID, made)  # a coroutine only where it is called from one

    def advance(self, receipt: Receipt) -> None:
        """A shard is in the database."""
        self._n_clips += receipt.counts.n_labelled
        self._n_failed += len(receipt.failures)
        self._done_s += receipt.estimated_s
        if self.is_due(_UPDATE_EVERY_S):
            self._show()

    def part(self, n_labelled: int, n_failed: int, done_s: float) -> None:
        """Progress, as summed over the runs that do parts of the work."""
        self._n_clips, self._n_failed, self._done_s = n_labelled, n_failed, done_s
        self._show()

    def is_due(self, every_s: float) -> bool:
        """Whether the progress was last shown so long ago."""
        return time.monotonic() - self._updated >= every_s

    def end(
        self, summary: Summary, run_id: str, alerts: AlertOptions | None, *, is_whole: bool
    ) -> None:
        """Store the run's page, also of a run that fails: how far it came is worth knowing."""
        if is_whole:
            self._done_s = self._total_s
        self._show()
        with not_fatal("the summary page could not be stored"):
            create_markdown_artifact(
                summary.as_markdown(self._title, app_address(self._home)),
                key=f"{self._kind}-summary",
                description="What the run labelled, knew already, and could not read.",
            )
        if summary.shown_failures:
            with not_fatal("the table of failures could not be stored"):
                _leave_failures(summary, self._kind)
        if alerts is not None and is_alarming(summary, alerts):
            with not_fatal("the event could not be sent"):
                _send_failures(summary, run_id)

    def _show(self) -> None:
        self._updated = time.monotonic()
        if self._artifact is None or not self._total_s:
            return
        share = min(1.0, self._done_s / self._total_s)
        speed = self._done_s / max(1e-3, self._updated - self._began)
        text = (
            f"{self._n_clips:,} of {self._to_label:,} files labelled, {self._n_failed:,} failed; "
            f"{self._done_s / 3600:,.1f} of about {self._total_s / 3600:,.1f} h, "
            f"{speed:,.0f} x real time"
        )
        with not_fatal("the progress could not be shown"):
            update_progress_artifact(self._artifact, round(100 * share, 1), text)


def run_name(verb: str, parameter: str) -> str:
    """A run's name until its files are counted: ``ingest 2026-11-25 14:00 UTC /data/incoming``."""
    paths = [str(path) for path in flow_run.parameters.get(parameter) or []]
    what = paths[0] if paths else str(flow_run.parameters.get("manifest") or "")
    more = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
    return f"{verb} {now():%Y-%m-%d %H:%M} UTC {one_line(what[-60:])}{more}"


def is_alarming(summary: Summary, alerts: AlertOptions) -> bool:
    """Whether enough files failed to send the event."""
    return summary.n_failed >= max(alerts.failed_files, alerts.failed_share * _opened(summary))


def _leave_failures(summary: Summary, kind: str) -> None:
    more = ", the first of them" if summary.n_failed > len(summary.shown_failures) else ""
    create_table_artifact(
        [
            {"file": as_cell(path), "reason": as_cell(reason), "detail": as_cell(detail)}
            for path, reason, detail in summary.shown_failures
        ],
        key=f"{kind}-failures",
        description=f"{summary.n_failed:,} files failed{more}",
    )


def _send_failures(summary: Summary, run_id: str) -> None:
    of_flow_run = {
        "prefect.resource.id": f"prefect.flow-run.{flow_run.id}",
        "prefect.resource.role": "flow-run",
    }
    emit_event(
        FAILURES_EVENT,
        resource={
            "prefect.resource.id": f"audioset.run.{run_id}",
            "prefect.resource.name": str(flow_run.name),
        },
        related=[of_flow_run],
        payload={
            "failed": summary.n_failed,
            "opened": _opened(summary),
            "by_reason": dict(summary.failures),
            "first": [one_line(path) for path, _, _ in summary.shown_failures[:10]],
        },
    )


def _opened(summary: Summary) -> int:
    return summary.n_labelled + summary.n_copies + summary.n_failed


@contextmanager
def not_fatal(what: str) -> Iterator[None]:
    """Log an error inside the block as a warning: `what` did not happen."""
    try:
        yield
    except Exception:
        get_run_logger().warning(what, exc_info=True)
