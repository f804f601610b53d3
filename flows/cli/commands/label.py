"""``audioset label``: label recordings, once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from audioset_core.models.registry import BUNDLES, find_bundle
from flows.cli.label_options import with_label_options
from flows.cli.shared_options import Store
from flows.options import DEFAULT_HOME, Database, Home, database_url
from tasks.labelling.options import LabelOptions


@with_label_options()
def label(
    paths: Annotated[
        list[str] | None, typer.Argument(help="Files, folders, globs; s3://...", show_default=False)
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
    """Label recordings. What is labelled already costs nothing; run it again at any time.

    A taught model scores stored embeddings: of all recordings, or of those at the paths.
    """
    if any(name not in BUNDLES for name in options.models):
        from flows.cli.taught import label_taught

        code = label_taught(paths or [], manifest, Store(home, db), options)
        if code is not None:
            raise typer.Exit(code)
        for name in options.models:
            find_bundle(name)  # before anything is said of paths, of which a taught one needs none
    from flows.cli.labelling import label_paths

    raise typer.Exit(label_paths(paths or [], manifest, home, options, database_url(home, db)))
