"""``audioset review`` and ``estimate``: judge a sample by ear, and estimate for all clips."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from audioset_core.errors import UserError
from db.errors import DatabaseUnavailableError, DatabaseUserError
from flows.asking import ontology_of
from flows.cli.shared_options import (
    Ambiguous,
    AsJson,
    Files,
    OneUnder,
    Store,
    Times,
    file_kind,
    question_of,
)
from flows.terminal import note, one_line, print_json, print_table

if TYPE_CHECKING:
    from audioset_core.evaluation.estimation import Judged
    from db.judging.review_sample import ReviewSample
    from db.judging.reviews import JudgedReview

_LEAST_FOR_A_FIT = 5
"""What `thresholds fit` needs by default."""
_N_SHOWN = 8


def review(
    *,
    under: OneUnder,
    out: Annotated[Path, typer.Option("--out", "-o", help="The page to write.")] = Path(
        "review.html"
    ),
    sample: Annotated[int, typer.Option(min=1, max=500, help="How many clips to judge.")] = 50,
    per_class: Annotated[
        int, typer.Option(min=1, help="Lowest number of clips of each class.")
    ] = 10,
    min_score: Annotated[
        float | None,
        typer.Option(min=0.0, max=0.99, help="Lowest score. [default: the lowest that is stored]"),
    ] = None,
    times: Times,
    files: Files,
    ambiguous: Ambiguous = False,
    seed: Annotated[int, typer.Option(help="Another number draws another sample.")] = 0,
    store: Store,
) -> None:
    """Write a page on which to judge a sample of clips by ear; the page saves verdicts as a CSV.

    The sample is drawn by class and by score. `audioset verdicts import` stores the CSV; then
    `thresholds fit --truth verdicts` and `estimate` use the verdicts.
    """
    from audioset_core.storage.atomic_files import write_atomically
    from db.judging.review_sample import review_sample
    from db.judging.reviews import store_review
    from flows.pages.review_page import review_page

    file_kind(out, ("html", "htm"))
    with store.database() as engine:
        node = ontology_of(engine).find(under)
        question = question_of(
            engine, times, files,
            under=(node.mid,), min_score=min_score or 0.0, with_ambiguous=ambiguous,
        )  # fmt: skip
        drawn = review_sample(engine, question, sample, per_class=per_class, seed=seed)
        least = drawn.question.min_score
        if not drawn.items:
            is_narrowed = files != Files() or question.is_timed
            more = ", with all that is asked" if is_narrowed else ""
            raise UserError(f"no clip has {node.name!r} at {least:g} or above{more}")
        page = review_page(engine, f"Review: {node.name}", drawn)
        try:
            store_review(engine, drawn, datetime.now(UTC))
        except (DatabaseUnavailableError, DatabaseUserError) as error:
            note(f"the sample was not kept, so `audioset estimate` cannot use it: {error}")
    write_atomically(out, page)
    if len(drawn.items) < sample:
        note(f"only {len(drawn.items):,} clips reach {least:g}: all of them are on the page")
    for line in _what_a_fit_can_do(drawn, per_class):
        note(line)
    print(out)


def _what_a_fit_can_do(drawn: ReviewSample, per_class: int) -> Iterator[str]:
    """Lines about which classes of the sample `thresholds fit` can fit, given enough verdicts."""
    enough = [(name, n) for name, n in drawn.n_asked if n > _LEAST_FOR_A_FIT]
    few = [(name, n) for name, n in drawn.n_asked if n <= _LEAST_FOR_A_FIT]
    if enough:
        yield (
            f"asked about: {_named(enough)}; a threshold can be fitted where at least "
            f"{_LEAST_FOR_A_FIT} are judged yes and one no"
        )
    if few:
        yield f"too few clips to fit a threshold: {_named(few)}"
    if drawn.pooled:
        n_groups = len({s.mid for s in drawn.strata}) - 1 + len(drawn.pooled)
        root = drawn.root[1]
        shown = ", ".join(drawn.pooled[:3]) + (", ..." if len(drawn.pooled) > 3 else "")
        yield (
            f"asked about as {root!r} only, so without a threshold of their own: "
            f"{len(drawn.pooled)} classes ({shown}); to ask about each, "
            f"--sample {n_groups * per_class} or a class further down"
        )


def _named(counts: list[tuple[str, int]]) -> str:
    shown = ", ".join(f"{name} ({n} clips)" for name, n in counts[:_N_SHOWN])
    return shown + (f" and {len(counts) - _N_SHOWN} more" if len(counts) > _N_SHOWN else "")


def estimate(
    *,
    under: OneUnder,
    review_id: Annotated[
        int | None,
        typer.Option("--review", help="Number of the review. [default: the newest with verdicts]"),
    ] = None,
    store: Store,
    as_json: AsJson = False,
) -> None:
    """Estimate clips and hours that truly have a sound, and the precision by threshold.

    The 95 % intervals come from a sample of `audioset review` with the same --under, whose verdicts
    were imported.
    """
    from db.judging.reviews import judged_reviews
    from tasks.evaluation.review_estimate import estimate_review, strata_of

    with store.database() as engine:
        node = ontology_of(engine).find(under)
        every = list(judged_reviews(engine, node.mid))
    found = _chosen(every, review_id, node.name)
    estimated = estimate_review(found)
    if as_json:
        print_json({"under": node.mid, "name": node.name, **estimated})
    else:
        _print(node.name, estimated)
    for line in _what_it_cannot_say(found, strata_of(found)):
        note(one_line(line))


def _print(name: str, estimated: dict[str, Any]) -> None:
    precision = estimated["precision"]
    print(
        f"{name}: {estimated['n_clips']:,} clips of score {precision[0]['min_score']:g} or above "
        f"on {estimated['drawn_at']:%Y-%m-%d}, {estimated['n_drawn']:,} drawn, "
        f"{estimated['n_judged']:,} judged (review {estimated['review']})"
    )
    totals = (
        ("clips with the sound", estimated["clips"], ",.0f"),
        ("hours of the sound", estimated["hours"], ",.3g"),
    )
    print_table(
        ("", ">estimate", ">95 %"),
        [(what, *_shown(share, style)) for what, share, style in totals if share],
    )
    print()
    print_table(
        (">score from", ">clips", ">precision", ">95 %", ">judged"),
        [
            (f"{row['min_score']:.2f}", f"{row['n_clips']:,}",
             *(_shown(row, ".2f") if "estimate" in row else ("-", "")),
             str(row.get("n_judged", 0)))
            for row in precision
        ],
    )  # fmt: skip


def _chosen(every: list[JudgedReview], review_id: int | None, name: str) -> JudgedReview:
    """The review asked for, or the newest one that was judged.

    Raises:
        UserError: there is none.
    """
    if review_id is not None:
        every = [each for each in every if each.review_id == review_id]
    judged = next((each for each in every if each.n_judged), None)
    if judged is not None:
        return judged
    which = f" {review_id}" if review_id is not None else ""
    if not every:
        raise UserError(
            f"there is no review{which} of {name!r}: audioset review --under {name!r} draws a "
            "sample to judge"
        )
    raise UserError(
        f"nothing of the review{which} of {name!r} has a verdict yet: save the page's CSV, and "
        "audioset verdicts import it"
    )


def _what_it_cannot_say(found: JudgedReview, strata: list[Judged]) -> Iterator[str]:
    least = min(s.low for s in strata)
    yield (
        f"not counted: clips whose score is below {least:g}, of which none was listened to; a clip "
        "counts by the part that was played, and its hours are those detected"
    )
    n_open = len(found.items) - found.n_judged
    if n_open:
        contradicting = f", {found.n_contradicting} of them contradictory" * bool(
            found.n_contradicting
        )
        yield f"{n_open} clips of the sample have no clear verdict{contradicting}: left out"
    empty = [s for s in strata if not s.judged]
    if empty:
        n_clips = sum(s.n_clips for s in empty)
        yield (
            f"nothing was judged in {len(empty)} of {len(strata)} strata ({n_clips:,} clips): they "
            "are taken to be like the others"
        )


def _shown(share: dict[str, Any], style: str) -> tuple[str, str]:
    value, low, high = (format(share[key], style) for key in ("estimate", "low", "high"))
    return value, f"{low}-{high}"
