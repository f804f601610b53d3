"""``audioset thresholds fit``: a set of thresholds from recordings that people have judged."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from audioset_core.ontology.graph import load_default
from db.thresholds.sets import ThresholdSet, store_set
from flows.cli.shared_options import AsJson, Store
from flows.cli.truth_report import Known, end
from flows.terminal import note, one_line, print_json, print_table


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
    from audioset_core.scores.thresholds import IntervalRules, Threshold
    from tasks.evaluation.fit_thresholds import fit_classes, fitted_set

    ontology = load_default()
    default = None
    if default_high is not None:
        default = (default_high, default_high * low_share)
    # Refuses values that are not allowed before anything is read.
    IntervalRules(Threshold(*default) if default else None, {}, min_duration, merge_gap)
    with store.opened() as engine:
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
    columns = ("class", ">high", ">low", ">F1", ">precision", ">recall", ">positives", ">negatives")
    if as_json:
        print_json({"set": stored.title, "thresholds": wanted.by_mid, "how": dict(wanted.how)})
    else:
        rows = [
            (
                ontology.nodes[each.mid].name,
                f"{wanted.by_mid[each.mid][0]:.4f}",
                f"{wanted.by_mid[each.mid][1]:.4f}",
                f"{each.best.f1:.2f}",
                f"{each.best.precision:.2f}",
                f"{each.best.recall:.2f}",
                str(each.n_positives),
                str(each.n_negatives),
            )
            for each in fitted
            if each.best is not None
        ]
        print_table(columns, rows)
        print(f"{stored.title}: {len(wanted.by_mid):,} classes; audioset thresholds apply {name}")
    left = [each for each in fitted if each.high is None]
    for reason in sorted({each.reason for each in left}):
        names = [ontology.nodes[each.mid].name for each in left if each.reason == reason]
        more = ", ..." if len(names) > 5 else ""
        note(f"not fitted: {len(names)} classes with {reason}: {', '.join(names[:5])}{more}")
    end(evidence)
