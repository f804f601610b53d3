"""``audioset serve``: label new recordings on a schedule, for as long as it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.options import DEFAULT_HOME, Database, FollowSymlinks, Home


def serve(
    root: Annotated[
        list[str] | None, typer.Option(help="Folder to watch; may be given several times.")
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
    model: Annotated[str, typer.Option(help="Which model labels.")] = "yamnet",
    weights: Annotated[
        Path | None, typer.Option(help="Weights file instead of the official ones.")
    ] = None,
    follow_symlinks: FollowSymlinks = False,
    with_server: Annotated[
        bool, typer.Option("--with-server", help="Also serve Prefect's web page, on port 4200.")
    ] = False,
    port: Annotated[
        int | None,
        typer.Option(
            min=1, max=65_535, help="Port of Prefect's own server. [default: 4200, or any free]"
        ),
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
            model=model,
            weights=weights,
            follow_symlinks=follow_symlinks,
            home=home,
            database=db,
            with_ui=with_server,
            port=port,
        )
    )
