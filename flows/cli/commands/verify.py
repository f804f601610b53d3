"""``audioset verify``: do tables and files agree?

Nothing here imports Prefect or torch, unless a repair has to label something again.
"""

from __future__ import annotations

import sys
import time
from contextlib import redirect_stdout
from pathlib import Path
from typing import Annotated

import typer

from flows.asking import AsJson, opened
from flows.options import DEFAULT_HOME, Database, Home, database_url
from flows.terminal import note, one_line, print_json, print_table
from tasks.labelling.options import LabelOptions

_PLAIN_LINE_EVERY_S = 10.0


def verify(
    deep: Annotated[
        bool,
        typer.Option("--deep", help="Read every byte: checksums, finite values, every label."),
    ] = False,
    repair: Annotated[
        bool,
        typer.Option("--repair", help="Put right, or label again, exactly what is damaged."),
    ] = False,
    weights: Annotated[
        Path | None,
        typer.Option(
            help="Weights to label again with, if not the official ones.", show_default=False
        ),
    ] = None,
    home: Home = DEFAULT_HOME,
    db: Database = None,
    as_json: AsJson = False,
) -> None:
    """Check that tables and files agree. Exit code 1 if something is wrong and left."""
    from tasks.store_check.check import check_store

    url = database_url(home, db)
    with opened(home, url) as engine:
        report = check_store(
            engine, home.absolute(), is_deep=deep, is_repair=repair, progress=_Lines().show
        )
        if report.n_reset and repair:
            from flows.run.relabelling import label_again

            note(f"{report.n_reset:,} findings are put right by labelling again")
            label_again(engine, report, weights, lambda m, o: _label(m, home, o, url))
    if as_json:
        print_json(report.as_json())
    else:
        if report.n_found:
            print_table(("what", ">how many", "where", "why"), report.rows())
        for line in report.notes:
            note(one_line(line))
        print(report.conclusion())
        if report.n_left and not repair:
            note("put right what can be: audioset verify --repair")
    raise typer.Exit(1 if report.n_left else 0)


def _label(manifest: Path, home: Path, options: LabelOptions, url: str) -> int:
    from flows.cli.labelling import label_paths

    with redirect_stdout(sys.stderr):  # stdout is for what was found
        return label_paths([], manifest, home, options, url)


class _Lines:
    """A line on stderr now and then: a deep look at a large collection takes hours."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def show(self, done: int, total: int) -> None:
        if time.monotonic() - self._last >= _PLAIN_LINE_EVERY_S:
            self._last = time.monotonic()
            note(f"{done / total:4.0%}  {done:,}/{total:,} labellings")
