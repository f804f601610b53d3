"""``audioset label``: label recordings, once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.cli.label_options import with_label_options
from flows.options import DEFAULT_HOME, Database, Home, database_url
from tasks.labelling.options import LabelOptions


@with_label_options()
def label(
    paths: Annotated[
        list[str] | None, typer.Argument(help="Files, folders and globs.", show_default=False)
    ] = None,
    manifest: Annotated[
        Path | None,
        typer.Option(help="CSV or JSONL: path, optional id and meta.", show_default=False),
    ] = None,
    *,
    options: LabelOptions,
    home: Home = DEFAULT_HOME,
    db: Database = None,
) -> None:
    """Label recordings. What is labelled already costs nothing; run it again at any time."""
    from flows.cli.labelling import label_paths

    raise typer.Exit(label_paths(paths or [], manifest, home, options, database_url(home, db)))
