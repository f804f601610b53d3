"""``audioset demo``: a tour of one minute, on computed sounds whose class is known."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from flows.options import Database, Home, database_url
from flows.terminal import note, print_table, shown_path
from tasks.labelling.options import LabelOptions


def demo(
    folder: Annotated[
        Path | None, typer.Argument(help="Recordings to label instead of the computed ones.")
    ] = None,
    home: Home = Path("demo-data"),
    db: Database = None,
) -> None:
    """Label a small set of computed sounds (or your own) and print what was found."""
    from audioset_core.demo_sounds import write_demo
    from audioset_core.inputs.walk import PassedOver, find_recordings, read_inputs
    from flows.cli.labelling import label_paths

    expected: dict[str, tuple[str, ...]] = {}
    if folder is None:
        folder = home / "audio"
        note(f"making sounds in {folder}")
        expected = {sound.file_name: sound.expected for sound in write_demo(folder)}
    options = LabelOptions(model=chosen_model())
    code = label_paths([str(folder)], None, home, options, database_url(home, db))
    recordings = find_recordings(read_inputs([str(folder)]), PassedOver())
    print("\nWhat was heard (mean score over the clip):\n")
    _print_heard([os.fsdecode(found.path) for found in recordings], expected, home, db)
    raise typer.Exit(code)


def chosen_model() -> str:
    """YAMNet where its weights are here or can be fetched, else the model in the package."""
    from audioset_core.errors import WeightsError
    from audioset_core.models.registry import POCKET, YAMNET
    from flows.cli.labelling import ready_weights

    try:
        return ready_weights(YAMNET, None).model
    except WeightsError as error:
        why, _, _ = str(error).partition(" Three ways out")
        note(f"{why} The demo uses {POCKET.name} instead: smaller, less accurate, no download.")
        return POCKET.name


def _print_heard(
    paths: list[str], expected: dict[str, tuple[str, ...]], home: Path, db: str | None
) -> None:
    from db.errors import DatabaseUserError
    from db.reports.clip import clip_by_ref
    from flows.asking import open_database

    rows = []
    with open_database(home, db) as engine:
        for path in paths:
            try:
                labels = clip_by_ref(engine, os.fsencode(path)).labels
            except DatabaseUserError:
                continue  # it failed, and was counted as such
            best = sorted(labels, key=lambda label: -label.mean)[:3]
            known = expected.get(Path(path).name, ())
            hit = "yes" if {label.name for label in best} & set(known) else "no"
            heard = ", ".join(f"{label.name} {label.mean:.2f}" for label in best)
            rows.append((shown_path(path), heard, *((" or ".join(known), hit) if expected else ())))
    columns = ("file", "best three", *(("made as", "among them") if expected else ()))
    print_table(columns, rows)
