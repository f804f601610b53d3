"""``audioset thresholds``: sets of thresholds, and the intervals that follow from them.

Nothing here runs a model, or imports Prefect or torch.
"""

from __future__ import annotations

import time
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from audioset_core.errors import UserError
from audioset_core.ontology.graph import load_default
from db.thresholds.sets import find_set, list_sets, remove_set, store_set
from flows.asking import AsJson, opened
from flows.cli.commands.fit_thresholds import fit
from flows.cli.help import HelpGroup
from flows.options import DEFAULT_HOME, Database, Home
from flows.terminal import note, one_line, print_csv, print_json, print_table

_PLAIN_LINE_EVERY_S = 10.0

app = typer.Typer(
    cls=HelpGroup,
    help="Sets of thresholds by class, and the detections that follow from them. "
    "NAME is the newest version of a set, NAME@2 its second.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

app.command()(fit)

Name = Annotated[str, typer.Argument(help="NAME or NAME@VERSION of a set.", metavar="NAME")]


@app.command("list")
def list_(home: Home = DEFAULT_HOME, db: Database = None, as_json: AsJson = False) -> None:
    """Every version of every set, and how many clips it was applied to."""
    with opened(home, db) as engine:
        found = list_sets(engine)
    if as_json:
        print_json([asdict(each) for each in found])
        return
    print_table(
        ("set", "model", ">classes", ">clips", ">intervals", "made", "how"),
        [
            (
                f"{s.name}@{s.version}",
                s.model or "any",
                f"{s.n_classes:,}",
                f"{s.n_derived:,}",
                f"{s.n_intervals:,}",
                f"{s.made_at:%Y-%m-%d %H:%M}Z",
                str(s.how.get("by", "")),
            )
            for s in found
        ],
    )
    if not found:
        note("no sets yet: audioset thresholds fit, or import")


@app.command()
def show(
    name: Name, home: Home = DEFAULT_HOME, db: Database = None, as_json: AsJson = False
) -> None:
    """What a set says, and how it was made."""
    with opened(home, db) as engine:
        found = find_set(engine, name)
    values = found.values
    if as_json:
        described = {
            "name": found.name,
            "version": found.version,
            "made_at": found.made_at,
            "model": values.model,
            "default": asdict(values.default) if values.default else None,
            "min_duration_s": values.min_duration_s,
            "merge_gap_s": values.merge_gap_s,
            "thresholds": [
                {"mid": mid, "name": found.names[mid], **asdict(each)}
                for mid, each in values.by_mid.items()
            ],
            "how": dict(values.how),
        }
        print_json(described)
        return
    other = "not detected"
    if values.default is not None:
        other = f"begin at {values.default.high:g}, go on down to {values.default.low:g}"
    print(f"{found.title}, made {found.made_at:%Y-%m-%d %H:%M}Z for {values.model or 'any model'}")
    print(f"at least {values.min_duration_s:g} s long, gaps up to {values.merge_gap_s:g} s closed")
    print(f"classes that are not listed: {other}")
    for key, value in values.how.items():
        if not isinstance(value, dict | list):
            print(one_line(f"{key}: {value}"))
    print()
    print_table(
        ("class", "mid", ">high", ">low"),
        [
            (found.names[mid], mid, f"{each.high:g}", f"{each.low:g}")
            for mid, each in values.by_mid.items()
        ],
    )


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="CSV: mid or name, high, low; see export.")],
    name: Annotated[str, typer.Option(help="Name of the set.")],
    home: Home = DEFAULT_HOME,
    db: Database = None,
) -> None:
    """Store a CSV as the next version of a set; the same values again change nothing."""
    from audioset_core.scores.threshold_csv import read_thresholds

    how = {"by": "import", "file": one_line(str(file))}
    wanted = replace(read_thresholds(file, load_default()), how=how)
    with opened(home, db) as engine:
        stored = store_set(engine, name, wanted, datetime.now(UTC))
    print(f"{stored.title}: {len(stored.values.by_mid):,} classes")


@app.command()
def export(name: Name, home: Home = DEFAULT_HOME, db: Database = None) -> None:
    """A set as CSV on stdout, to change in a spreadsheet and import again."""
    from audioset_core.scores.threshold_csv import COLUMNS, rows_of

    with opened(home, db) as engine:
        values = find_set(engine, name).values
    print_csv(COLUMNS, rows_of(values, load_default()))


@app.command()
def apply(
    name: Name, home: Home = DEFAULT_HOME, db: Database = None, as_json: AsJson = False
) -> None:
    """Derive the set's intervals from the stored scores of clips that have none yet.

    No model runs. Stop it at any time: the same command goes on. Exit code 1 if a score file is
    missing or damaged: it is named, the rest is done.
    """
    from tasks.evaluation.derive_intervals import derive_set

    with opened(home, db) as engine:
        stored = find_set(engine, name)
        done = derive_set(engine, home.absolute(), stored, _Lines().show)
    columns = ("clip", "file", "reason")
    if as_json:
        failures = [dict(zip(columns, each, strict=True)) for each in done.failures]
        print_json({"set": stored.title, **asdict(done), "failures": failures})
    else:
        if done.failures:
            print_table(columns, done.failures)
        print(f"{stored.title}: {done.n_intervals:,} intervals in {done.n_clips:,} clips")
    if done.n_changed:
        note(f"{done.n_changed:,} clips were labelled again meanwhile: run it once more")
    if done.failures:
        note(f"{len(done.failures):,} score files cannot be used: audioset verify --repair")
    raise typer.Exit(1 if done.failures else 0)


@app.command()
def remove(
    name: Annotated[str, typer.Argument(help="NAME@VERSION.", metavar="NAME@VERSION")],
    home: Home = DEFAULT_HOME,
    db: Database = None,
) -> None:
    """Delete one version of a set, with its intervals. Scores and detections stay."""
    if "@" not in name:
        raise UserError(f"which version of {name!r}? Write NAME@VERSION, see thresholds list")
    with opened(home, db) as engine:
        print(f"removed {remove_set(engine, name)}")


class _Lines:
    """A line on stderr now and then."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def show(self, done: int, total: int) -> None:
        if time.monotonic() - self._last >= _PLAIN_LINE_EVERY_S:
            self._last = time.monotonic()
            note(f"{done / total:4.0%}  {done:,}/{total:,} clips")
