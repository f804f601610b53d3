"""``audioset thresholds fit``: a set of thresholds from recordings that people have judged."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from audioset_core.ontology.graph import load_default
from audioset_core.records import Threshold, ThresholdSet
from db.thresholds.sets import store_set
from flows.asking import AsJson, opened
from flows.cli.truth_report import Format, TruthFile, describe_left_out, known_truth, model_named
from flows.options import DEFAULT_HOME, Database, Home
from flows.terminal import note, one_line, print_json, print_table


def fit(
    truth: TruthFile,
    name: Annotated[str, typer.Option(help="Name of the set.")],
    format: Format = "csv",
    model: Annotated[
        str | None, typer.Option(help="NAME or NAME@VERSION.", show_default=False)
    ] = None,
    min_positives: Annotated[
        int, typer.Option(min=1, help="Classes with fewer positives are not fitted.")
    ] = 5,
    low_share: Annotated[
        float,
        typer.Option(min=0.01, max=1.0, help="A class goes on down to this share of its high."),
    ] = 0.5,
    min_duration: Annotated[
        float, typer.Option(min=0.0, help="Shorter intervals are left out, in seconds.")
    ] = 0.0,
    merge_gap: Annotated[
        float, typer.Option(min=0.0, help="Silences up to this are closed, in seconds.")
    ] = 0.5,
    default_high: Annotated[
        float | None,
        typer.Option(help="For all other classes. [default: not detected]", show_default=False),
    ] = None,
    home: Home = DEFAULT_HOME,
    db: Database = None,
    as_json: AsJson = False,
) -> None:
    """Find each class's threshold of best F1, and store them as the next version of a set.

    From a truth file or a review (verdict yes, no, unsure). No model runs.
    """
    from audioset_core.scores.thresholds import IntervalRules
    from tasks.evaluation.fit_thresholds import fit_classes, fitted_set
    from tasks.evaluation.score_truth import score_truth

    ontology = load_default()
    default = None
    if default_high is not None:
        default = Threshold(default_high, default_high * low_share)
    rules = IntervalRules(default, {}, min_duration, merge_gap)
    with opened(home, db) as engine:
        known, digest = known_truth(engine, truth, format, ontology)
        used = model_named(engine, model)
        scored = score_truth(
            engine, home.absolute(), known, ontology, model=used, pooling="peak", reach="class"
        )
        fitted = fit_classes(scored, min_positives=min_positives)
        how: dict[str, Any] = {
            "by": "fit",
            "truth": one_line(str(truth)),
            "truth_sha256": digest,
            "format": format,
            "items": len(scored.items),
            "measure": "highest F1 on peaks",
        }
        base = ThresholdSet(used, default, {}, rules.min_duration_s, rules.merge_gap_s)
        wanted = fitted_set(fitted, base, low_share=low_share, how=how)
        stored = store_set(engine, name, wanted, datetime.now(UTC))
    columns = ("class", ">high", ">low", ">F1", ">precision", ">recall", ">positives", ">negatives")
    if as_json:
        pairs = {mid: (each.high, each.low) for mid, each in wanted.by_mid.items()}
        print_json({"set": stored.title, "thresholds": pairs, "how": dict(wanted.how)})
    else:
        rows = [
            (
                ontology.nodes[each.mid].name,
                f"{wanted.by_mid[each.mid].high:.4f}",
                f"{wanted.by_mid[each.mid].low:.4f}",
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
    for line in describe_left_out(known, scored):
        note(one_line(line))
    raise typer.Exit(1 if scored.failures else 0)
