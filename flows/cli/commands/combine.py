"""``audioset combine``: a labelling of every clip that several models have labelled.

Nothing here decodes a recording or runs a model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from sqlalchemy import Engine

from flows.asking import ontology_of
from flows.cli.combining import combine_shown
from flows.cli.shared_options import AsJson, Store
from flows.cli.truth_report import (
    TRUTH_HELP,
    TRUTH_METAVAR,
    Format,
    default_reach,
    known_truth,
    left_out,
)
from flows.terminal import note, one_line, print_json, print_table

if TYPE_CHECKING:
    from audioset_core.evaluation.calibration import Platt
    from audioset_core.evaluation.truth_files import TruthFormat
    from tasks.combining.recipe import Part

_PLAIN = (
    "logits are averaged as the models give them; to calibrate them first: --truth FILE, or "
    "--truth verdicts"
)
_FAILURE = ("clip", "file", "reason")


def combine(
    *,
    models: Annotated[
        list[str], typer.Argument(metavar="MODEL...", help="Two or more: NAME or NAME@VERSION.")
    ],
    name: Annotated[str, typer.Option(help="Name of the combined model, such as both.")],
    truth: Annotated[
        Path | None,
        typer.Option(
            metavar=TRUTH_METAVAR,
            help=f"{TRUTH_HELP} Each model's logits are calibrated with it. [default: as when "
            "these models were combined under this name before, else no calibration]",
        ),
    ] = None,
    format: Format = "csv",
    store: Store,
    as_json: AsJson = False,
) -> None:
    """Make one model of several: the mean of their calibrated logits, from stored scores.

    Only clips that all of the models have labelled and that have no such labelling yet are
    combined: run it again as the collection grows, or after it was stopped. Exit code 1 if a score
    file is missing or damaged: the file is named, and the others are combined.
    """
    from db.score_files.combinable import count_labelled
    from tasks.combining.recipe import find_parts, plan

    with store.database() as engine:
        parts = find_parts(engine, models, name)
        found = _calibration(engine, store, name, list(parts.values()), truth, format)
        plans = plan(engine, name, list(parts), found.lines, found.described)
        done = combine_shown(engine, store.home.absolute(), plans)
        n_any, n_each = count_labelled(engine, list(parts))
        _, in_all = count_labelled(engine, [each.whole.model_id for each in plans])
    failures = [each for one in done for each in one.failures]
    if as_json:
        print_json(
            {
                "combined": [
                    {
                        "model": each.recipe.title,
                        "n_clips": one.n_clips,
                        "n_clips_in_all": n,
                        "parts": [asdict(part) for part in each.recipe.parts],
                        "calibration": each.recipe.calibration,
                    }
                    for each, one, n in zip(plans, done, in_all, strict=True)
                ],
                "n_busy": sum(one.n_busy for one in done),
                "failures": [dict(zip(_FAILURE, each, strict=True)) for each in failures],
            }
        )
    else:
        if failures:
            print_table(_FAILURE, failures)
        for each, one, n in zip(plans, done, in_all, strict=True):
            _print_parts(each.recipe.parts)
            print(f"{each.recipe.title}: {one.n_clips:,} clips combined, {n:,} in all")
    for line in found.notes:
        note(one_line(line))
    for title, n in zip(parts.values(), n_each, strict=True):
        if n < n_any:
            note(f"left out: {n_any - n:,} clips that {title} has not labelled")
    if n_busy := sum(one.n_busy for one in done):
        note(f"left out: {n_busy:,} clips that another run is combining")
    if failures:
        note(f"{len(failures):,} clips cannot be combined: audioset verify --repair")
    raise typer.Exit(1 if failures or found.has_failures else 0)


@dataclass(frozen=True, slots=True)
class _Calibration:
    """The line of each part, what is stored and what is said about it."""

    lines: Sequence[Platt]
    described: Mapping[str, Any] | None
    notes: Sequence[str] = ()
    has_failures: bool = False


def _calibration(
    engine: Engine,
    store: Store,
    name: str,
    titles: Sequence[str],
    truth: Path | None,
    kind: TruthFormat,
) -> _Calibration:
    """From the truth; without one, as these models were calibrated for this name before."""
    from audioset_core.evaluation.calibration import Platt
    from db.integrity.audit import stored_variants
    from tasks.combining.calibrate import calibrate
    from tasks.combining.recipe import known_calibration
    from tasks.evaluation.score_truth import score_truth

    if truth is None:
        before = known_calibration(stored_variants(engine), name, titles)
        if before is None or before.calibration is None:
            return _Calibration([Platt()] * len(titles), None, [_PLAIN])
        lines = [Platt(part.scale, part.shift) for part in before.parts]
        return _Calibration(lines, before.calibration, [f"calibrated as {before.title}"])
    content, digest = known_truth(engine, truth, kind)
    reach, ontology = default_reach(kind), ontology_of(engine)
    lines, notes, has_failures = [], dict[str, None](), False
    for title in titles:
        scored = score_truth(
            engine, store.home.absolute(), content, ontology,
            model=title, pooling="peak", reach=reach,
        )  # fmt: skip
        lines.append(calibrate(title, scored))
        notes |= dict.fromkeys(left_out(content, scored, ontology))
        has_failures |= bool(scored.failures)
    described = {
        "truth_sha256": digest,
        "reach": reach,
        "n_present": [line.n_present for line in lines],
        "n_absent": [line.n_absent for line in lines],
    }
    return _Calibration(lines, described, list(notes), has_failures)


def _print_parts(parts: Sequence[Part]) -> None:
    print_table(
        ("part", ">hop_s", ">window_s", ">scale", ">shift"),
        [
            (
                part.title,
                f"{part.patch_hop_s:g}",
                f"{part.window_s:g}",
                f"{part.scale:.3f}",
                f"{part.shift:+.3f}",
            )
            for part in parts
        ],
    )
