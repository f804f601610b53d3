"""``audioset evaluate``: do the stored scores agree with what is known about the recordings?"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.cli.shared_options import AsJson, Store
from flows.cli.truth_report import Evidence, Known, default_reach, one_of, report_left_out
from flows.terminal import print_json, print_table

if TYPE_CHECKING:
    from audioset_core.evaluation.metrics import ClassMeasures, Measures
    from tasks.evaluation.score_truth import Pooling, Reach

_TITLES = {
    "mAP": ("mean_ap", "mAP"),
    "AUC": ("auc", "ROC-AUC"),
    "d_prime": ("d_prime", "d'"),
    "lwlrap": ("lwlrap", "lwlrap"),
    "zero_shot": ("zero_shot", "zero-shot accuracy"),
}


def evaluate(
    *,
    known: Known,
    score: Annotated[
        str, typer.Option(help="Score of a recording for a class: 'mean' or 'peak' of its patches.")
    ] = "mean",
    reach: Annotated[
        str,
        typer.Option(
            help="Score of a class: its own output ('class'), or the best output in its 'subtree'. "
            "[default: subtree; class for AudioSet's files]"
        ),
    ] = "",
    segment: Annotated[
        float | None,
        typer.Option(
            help="Score segments of so many seconds instead of recordings (audioset-strong)."
        ),
    ] = None,
    bootstrap: Annotated[
        int, typer.Option(min=0, help="Resamples for the confidence intervals; 0: no intervals.")
    ] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Random seed of the bootstrap.")] = 0,
    store: Store,
    as_json: AsJson = False,
) -> None:
    """Compare stored scores with a truth file: mAP, AUC, d', lwlrap, best F1, zero-shot.

    No model runs. Entries that match no recording are counted. Exit code 1 if a score file is
    damaged.
    """
    from audioset_core.evaluation.metrics import measure

    pooling: Pooling = one_of("--score", score, ("mean", "peak"))
    wanted: Reach = one_of("--reach", reach or default_reach(known.format), ("class", "subtree"))
    with store.database() as engine:
        evidence = known.scored(
            engine, store.home, pooling=pooling, reach=wanted, segment_s=segment
        )
    scored = evidence.scored
    measures = measure(
        scored.scores, scored.labels, scored.mids, scored.clips,
        is_exclusive=evidence.truth.is_exclusive, n_resamples=bootstrap, seed=seed,
    )  # fmt: skip
    settings: dict[str, Any] = {
        "truth": str(known.truth), "format": known.format, "model": evidence.model,
        "score": pooling, "reach": wanted, "segment_s": segment, "bootstrap": bootstrap,
        "seed": seed,
    }  # fmt: skip
    if as_json:
        print_json(_as_json(measures, evidence, settings))
    else:
        _print(measures, evidence)
    report_left_out(evidence)


def _print(measures: Measures, evidence: Evidence) -> None:
    nodes = evidence.ontology.nodes
    with_items = [each for each in measures.classes if each.n_positives]
    # The classes that the model finds worst come first: a reader looks for those.
    with_items.sort(key=lambda each: (each.ap is not None, each.ap or 0.0, each.mid))
    print_table(
        ("class", ">positives", ">negatives", ">AP", ">AP 95 %", ">AUC", ">d'", ">best F1", ">at"),
        [_class_row(nodes[each.mid].name, each) for each in with_items],
    )
    print()
    print_table(
        ("over all", ">value", ">95 %"),
        [
            (title, _number(getattr(measures, name)), _range(measures.intervals.get(key)))
            for key, (name, title) in _TITLES.items()
            if getattr(measures, name) is not None
        ],
    )
    print(
        f"{measures.n_items:,} items in {measures.n_clips:,} clips; means over "
        f"{measures.n_classes_in_means} of {len(evidence.scored.mids)} classes, those with "
        "positives and negatives"
    )


def _class_row(name: str, each: ClassMeasures) -> tuple[str, ...]:
    best = each.best
    return (
        name,
        f"{each.n_positives:,}",
        f"{each.n_negatives:,}",
        _number(each.ap),
        _range(each.ap_interval),
        _number(each.auc),
        _number(each.d_prime),
        _number(best.f1 if best else None),
        _number(best.threshold if best else None),
    )


def _as_json(measures: Measures, evidence: Evidence, settings: dict[str, Any]) -> dict[str, Any]:
    scored = evidence.scored
    nodes = evidence.ontology.nodes
    described = asdict(measures)
    for each in described["classes"]:
        each["name"] = nodes[each["mid"]].name
    return {
        "settings": settings,
        **described,
        "truth": {
            "n_items": scored.n_items,
            "n_unmatched": scored.n_unmatched,
            "n_ambiguous": scored.n_ambiguous,
            "n_unscored": scored.n_unscored,
            "n_beyond": scored.n_beyond,
            "examples": list(scored.examples),
            "left_out": dict(evidence.truth.left_out),
            "unpredictable": list(scored.unpredictable),
        },
        "n_recordings_not_in_truth": scored.n_not_in_truth,
        "failures": [
            dict(zip(("clip", "file", "reason"), each, strict=True)) for each in scored.failures
        ],
    }


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _range(interval: tuple[float, float] | None) -> str:
    return "" if interval is None else f"{interval[0]:.3f}-{interval[1]:.3f}"
