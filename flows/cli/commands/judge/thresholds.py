"""``audioset thresholds``: sets of thresholds, and the intervals that follow from them.

Nothing here runs a model, or imports Prefect or torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from audioset_core.errors import UserError
from audioset_core.records import Node, Threshold, ThresholdSet
from db.thresholds.sets import find_set, list_sets, remove_set, store_set
from flows.asking import ontology_of
from flows.cli.command import command_group
from flows.cli.shared_options import AsJson, Store
from flows.cli.truth_report import Known, report_left_out
from flows.terminal import note, one_line, print_csv, print_json, print_table, progress_lines

if TYPE_CHECKING:
    from tasks.evaluation.fit_thresholds import FittedClass

_N_SHOWN = 5

Name = Annotated[str, typer.Argument(help="NAME or NAME@VERSION of a set.", metavar="NAME")]


def fit(
    *,
    known: Known,
    name: Annotated[str, typer.Option(help="Name of the set.")],
    min_positives: Annotated[
        int, typer.Option(min=1, help="Fewest positives of a class that is fitted.")
    ] = 5,
    low_share: Annotated[
        float,
        typer.Option(
            min=0.01, max=1.0, help="The low threshold of a class, as a share of its high one."
        ),
    ] = 0.5,
    min_duration: Annotated[
        float, typer.Option(min=0.0, help="Shortest interval that is kept, in seconds.")
    ] = 0.0,
    merge_gap: Annotated[
        float,
        typer.Option(
            min=0.0, help="Longest gap between two intervals that are joined, in seconds."
        ),
    ] = 0.5,
    default_high: Annotated[
        float | None,
        typer.Option(help="High threshold of all other classes. [default: not detected]"),
    ] = None,
    store: Store,
    as_json: AsJson = False,
) -> None:
    """Find each class's threshold of best F1, and store them as the next version of a set.

    The truth is a file, a review (verdicts yes, no, unsure) or imported verdicts. No model runs.
    """
    from audioset_core.scores.thresholds import IntervalRules
    from tasks.evaluation.fit_thresholds import fit_classes, fitted_set

    default = None
    if default_high is not None:
        default = Threshold(default_high, default_high * low_share)
    # Refuses values that are not allowed before anything is read.
    IntervalRules(default, {}, min_duration, merge_gap)
    with store.database() as engine:
        evidence = known.scored(engine, store.home, pooling="peak", reach="class")
        fitted = fit_classes(evidence.scored, min_positives=min_positives)
        how: dict[str, Any] = {
            "by": "fit",
            "truth": one_line(str(known.truth)),
            "truth_sha256": evidence.digest,
            "format": known.format,
            "items": len(evidence.scored.items),
            "measure": "highest F1 on peaks",
        }
        base = ThresholdSet(evidence.model, default, {}, min_duration, merge_gap)
        wanted = fitted_set(fitted, base, low_share=low_share, how=how)
        stored = store_set(engine, name, wanted, datetime.now(UTC))
        nodes = ontology_of(engine).nodes
    if as_json:
        pairs = {mid: (each.high, each.low) for mid, each in wanted.by_mid.items()}
        print_json({"set": stored.title, "thresholds": pairs, "how": dict(wanted.how)})
    else:
        _print_fitted(fitted, wanted, nodes)
        print(f"{stored.title}: {len(wanted.by_mid):,} classes; audioset thresholds apply {name}")
    for line in _not_fitted(fitted, nodes):
        note(line)
    report_left_out(evidence)


def _print_fitted(
    fitted: Sequence[FittedClass], wanted: ThresholdSet, nodes: Mapping[str, Node]
) -> None:
    rows = [
        (nodes[each.mid].name, f"{wanted.by_mid[each.mid].high:.4f}",
         f"{wanted.by_mid[each.mid].low:.4f}",
         f"{each.best.f1:.2f}", f"{each.best.precision:.2f}", f"{each.best.recall:.2f}",
         str(each.n_positives), str(each.n_negatives))
        for each in fitted
        if each.best is not None
    ]  # fmt: skip
    columns = ("class", ">high", ">low", ">F1", ">precision", ">recall", ">positives", ">negatives")
    print_table(columns, rows)


def _not_fitted(fitted: Sequence[FittedClass], nodes: Mapping[str, Node]) -> Iterator[str]:
    """A line for each reason why classes have no threshold."""
    left = [each for each in fitted if each.high is None]
    for reason in sorted({each.reason for each in left}):
        names = [nodes[each.mid].name for each in left if each.reason == reason]
        more = ", ..." if len(names) > _N_SHOWN else ""
        yield f"not fitted: {len(names)} classes with {reason}: {', '.join(names[:_N_SHOWN])}{more}"


def list_(*, store: Store, as_json: AsJson = False) -> None:
    """List every version of every set, and how many clips it was applied to."""
    with store.database() as engine:
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


def show(*, name: Name, store: Store, as_json: AsJson = False) -> None:
    """Show the thresholds of a set, and how the set was made."""
    with store.database() as engine:
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
        other = f"begin at {values.default.high:g}, continue down to {values.default.low:g}"
    print(f"{found.title}, made {found.made_at:%Y-%m-%d %H:%M}Z for {values.model or 'any model'}")
    print(f"at least {values.min_duration_s:g} s long, gaps up to {values.merge_gap_s:g} s joined")
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


def import_(
    *,
    file: Annotated[Path, typer.Argument(help="CSV: mid or name, high, low; see export.")],
    name: Annotated[str, typer.Option(help="Name of the set.")],
    store: Store,
) -> None:
    """Store a CSV as the next version of a set; the same values again change nothing."""
    from audioset_core.scores.threshold_csv import read_thresholds

    how = {"by": "import", "file": one_line(str(file))}
    with store.database() as engine:
        wanted = replace(read_thresholds(file, ontology_of(engine)), how=how)
        stored = store_set(engine, name, wanted, datetime.now(UTC))
    print(f"{stored.title}: {len(stored.values.by_mid):,} classes")


def export(*, name: Name, store: Store) -> None:
    """Write a set as CSV to stdout, to change in a spreadsheet and import again."""
    from audioset_core.scores.threshold_csv import COLUMNS, rows_of

    with store.database() as engine:
        values = find_set(engine, name).values
        ontology = ontology_of(engine)
    print_csv(COLUMNS, rows_of(values, ontology))


def apply(*, name: Name, store: Store, as_json: AsJson = False) -> None:
    """Derive the set's intervals from the stored scores of clips that have none yet.

    No model runs. It may be stopped at any time: the same command continues. Exit code 1 if a score
    file is missing or damaged: the file is named, and the others are done.
    """
    from tasks.evaluation.derive_intervals import derive_set

    with store.database() as engine:
        stored = find_set(engine, name)
        done = derive_set(engine, store.home.absolute(), stored, progress_lines("clips"))
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


def remove(
    *,
    name: Annotated[str, typer.Argument(help="NAME@VERSION.", metavar="NAME@VERSION")],
    store: Store,
) -> None:
    """Delete one version of a set, with its intervals. Scores and detections stay."""
    if "@" not in name:
        raise UserError(f"which version of {name!r}? Write NAME@VERSION, see thresholds list")
    with store.database() as engine:
        print(f"removed {remove_set(engine, name)}")


app = command_group(
    "Sets of thresholds by class, and the detections that follow from them. "
    "NAME is the newest version of a set, NAME@2 is version 2.",
    {
        "fit": fit,
        "list": list_,
        "show": show,
        "import": import_,
        "export": export,
        "apply": apply,
        "remove": remove,
    },
)
