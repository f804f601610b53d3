"""``audioset serve``: label new recordings on a schedule, for as long as it runs."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.cli.label_options import with_label_options
from flows.options import DEFAULT_HOME, Database, Home
from tasks.labelling.options import LabelOptions


@with_label_options("model", "weights", "follow_symlinks")
def serve(
    root: Annotated[
        list[str] | None,
        typer.Option(help="Folder to watch, or s3://bucket/folder; several times."),
    ] = None,
    cron: Annotated[
        str, typer.Option(help="When to look for new files: minute hour day month weekday.")
    ] = "0 * * * *",
    timezone: Annotated[
        str, typer.Option(help="Time zone of --cron, such as Europe/Berlin.")
    ] = "UTC",
    settle: Annotated[
        float, typer.Option(help="Seconds without a change after which a file is read.")
    ] = 60.0,
    *,
    options: LabelOptions,
    with_server: Annotated[
        bool, typer.Option("--with-server", help="Also serve Prefect's web page, on port 4200.")
    ] = False,
    port: Annotated[
        int | None,
        typer.Option(
            min=1, max=65_535, help="Port of Prefect's own server. [default: 4200, or any free]"
        ),
    ] = None,
    metrics: Annotated[
        int | None,
        typer.Option(min=1, max=65_535, help="Port on loopback for Prometheus to scrape."),
    ] = None,
    home: Home = DEFAULT_HOME,
    db: Database = None,
) -> None:
    """Watch folders and label new recordings on a schedule, until it is stopped.

    Runs are reported to the Prefect server of PREFECT_API_URL; if none is set, one is started.
    """
    from flows.prefect_server.serve import Plan, serve_plan

    serve_plan(
        Plan(
            roots=root or [],
            cron=cron,
            timezone=timezone,
            settle_s=settle,
            options=options,
            home=home,
            database=db,
            with_ui=with_server,
            port=port,
            metrics_port=metrics,
        )
    )
