"""``audioset review`` and ``estimate``: judge a sample by ear, and estimate for all clips."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from audioset_core.errors import UserError
from audioset_core.ontology.graph import load_default
from db.errors import DatabaseUnavailableError, DatabaseUserError
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
    from audioset_core.evaluation.estimation import Judged, Share
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
    node = load_default().find(under)
    with store.opened() as engine:
        question = question_of(
            engine, times, files,
            under=(node.mid,), min_score=min_score or 0.0, with_ambiguous=ambiguous,
        )  # fmt: skip
        drawn = review_sample(engine, question, sample, per_class=per_class, seed=seed)
        least = drawn.question.min_score
        if not drawn.items:
            is_narrowed = files != Files() or question.span is not None
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

    node = load_default().find(under)
    with store.opened() as engine:
        every = list(judged_reviews(engine, node.mid))
    found = _chosen(every, review_id, node.name)
    strata = _strata(found)
    if as_json:
        print_json({"under": node.mid, "name": node.name, **_as_json(found, strata)})
    else:
        _print(node.name, found, strata)
    for line in _what_it_cannot_say(found, strata):
        note(one_line(line))


def _as_json(found: JudgedReview, strata: list[Judged]) -> dict[str, Any]:
    from audioset_core.evaluation.estimation import by_clip, true_share

    n_clips, heard_h = _totals(strata)
    clips, hours = true_share(by_clip(strata)), true_share(strata)
    return {
        "review": found.review_id, "drawn_at": found.drawn_at, "question": found.question,
        "n_clips": n_clips, "n_drawn": len(found.items), "n_judged": found.n_judged,
        "detected_hours": heard_h, "clips": clips and _scaled(clips, n_clips),
        "hours": hours and _scaled(hours, heard_h),
        "precision": [
            {"min_score": low, "n_clips": n, **(_scaled(share, 1) if share else {})}
            for low, n, share in _by_threshold(strata)
        ],
    }  # fmt: skip


def _print(name: str, found: JudgedReview, strata: list[Judged]) -> None:
    from audioset_core.evaluation.estimation import by_clip, true_share

    n_clips, heard_h = _totals(strata)
    print(
        f"{name}: {n_clips:,} clips of score {min(s.low for s in strata):g} or above on "
        f"{found.drawn_at:%Y-%m-%d}, {len(found.items):,} drawn, {found.n_judged:,} judged "
        f"(review {found.review_id})"
    )
    totals = (
        ("clips with the sound", true_share(by_clip(strata)), n_clips, ",.0f"),
        ("hours of the sound", true_share(strata), heard_h, ",.3g"),
    )
    print_table(
        ("", ">estimate", ">95 %"),
        [(what, *_shown(share, by, style)) for what, share, by, style in totals if share],
    )
    print()
    print_table(
        (">score from", ">clips", ">precision", ">95 %", ">judged"),
        [
            (f"{low:.2f}", f"{n:,}", *(_shown(share, 1, ".2f") if share else ("-", "")),
             str(share.n_judged if share else 0))
            for low, n, share in _by_threshold(strata)
        ],
    )  # fmt: skip


def _totals(strata: list[Judged]) -> tuple[int, float]:
    """Clips, and hours detected in them."""
    return sum(s.n_clips for s in strata), sum(s.size_s for s in strata) / 3600


def _by_threshold(strata: list[Judged]) -> Iterator[tuple[float, int, Share | None]]:
    """(score, clips that reach it, the share of them that truly hold the sound)."""
    from audioset_core.evaluation.estimation import by_clip, true_share

    for low in sorted({s.low for s in strata}):
        above = by_clip([s for s in strata if s.low >= low])
        yield low, sum(s.n_clips for s in above), true_share(above)


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


def _strata(found: JudgedReview) -> list[Judged]:
    from audioset_core.evaluation.estimation import Judged

    judged: list[list[tuple[bool, float]]] = [[] for _ in found.strata]
    for item in found.items:
        if item.is_true is not None:
            judged[item.stratum].append((item.is_true, item.heard_s))
    return [
        Judged(s.low, s.n_clips, s.heard_s, s.heard_s2, tuple(own))
        for s, own in zip(found.strata, judged, strict=True)
    ]


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


def _scaled(share: Share, by: float) -> dict[str, Any]:
    return {
        "estimate": share.value * by, "low": share.low * by, "high": share.high * by,
        "n_judged": share.n_judged,
    }  # fmt: skip


def _shown(share: Share, by: float, style: str) -> tuple[str, str]:
    low, high = format(share.low * by, style), format(share.high * by, style)
    return format(share.value * by, style), f"{low}-{high}"
