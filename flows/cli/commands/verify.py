"""``audioset verify``: do tables and files agree?

Nothing here imports Prefect or torch, unless a repair has to label something again.
"""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Annotated

import typer

from flows.cli.shared_options import AsJson, Store
from flows.options import database_url
from flows.terminal import note, one_line, print_json, print_table, progress_lines
from tasks.labelling.options import LabelOptions


def verify(
    *,
    deep: Annotated[
        bool,
        typer.Option(
            "--deep", help="Read every byte: check checksums, finite values and every label."
        ),
    ] = False,
    repair: Annotated[
        bool, typer.Option("--repair", help="Repair, or label again, exactly what is damaged.")
    ] = False,
    weights: Annotated[
        Path | None, typer.Option(help="Weights for labelling again, instead of the official ones.")
    ] = None,
    store: Store,
    as_json: AsJson = False,
) -> None:
    """Check that tables and files agree. Exit code 1 if something is wrong and not repaired."""
    from tasks.store_check.check import check_store

    url = database_url(store.home, store.db)
    with store.database() as engine:
        report = check_store(
            engine, store.home.absolute(), is_deep=deep, is_repair=repair,
            progress=progress_lines("labellings"),
        )  # fmt: skip
        if report.n_reset and repair:
            from flows.run.relabelling import label_again

            note(f"{report.n_reset:,} findings are repaired by labelling again")
            home = store.home.absolute()
            label_again(engine, home, report, weights, lambda m, o: _label(m, store.home, o, url))
    if as_json:
        print_json(report.as_json())
    else:
        if report.n_found:
            print_table(("what", ">how many", "where", "why"), report.rows())
        for line in report.notes:
            note(one_line(line))
        print(report.conclusion())
        if report.n_left and not repair:
            note("to repair what can be repaired: audioset verify --repair")
    raise typer.Exit(1 if report.n_left else 0)


def _label(manifest: Path, home: Path, options: LabelOptions, url: str) -> int:
    from flows.cli.labelling import label_paths

    with redirect_stdout(sys.stderr):  # stdout is for what was found
        return label_paths([], manifest, home, options, url)
