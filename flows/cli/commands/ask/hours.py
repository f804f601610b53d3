"""``audioset hours``: how long something is heard."""

from __future__ import annotations

from dataclasses import astuple, replace
from typing import Annotated

import typer

from audioset_core.errors import UserError
from db.query.hours import Grouping, HeardFor, hours_heard
from flows.asking import ontology_of, sun_of
from flows.cli.shared_options import Files, Output, Sounds, Store, Times, question_of
from flows.cli.wall_clock import note_assumed_zone
from flows.terminal import note


def hours(
    *,
    by: Annotated[
        Grouping,
        typer.Option(
            help="A row for each branch (child of --under), class, day, phase of the sun, or file."
        ),
    ] = "second-level",
    sounds: Sounds,
    min_score: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Lowest score of an interval's best moment.")
    ] = 0.5,
    exact: Annotated[
        bool,
        typer.Option(
            "--exact",
            help="Count only the moments at --min-score or above, not the whole of an interval "
            "around them; reads the score files, and takes longer.",
        ),
    ] = False,
    times: Times,
    files: Files,
    store: Store,
    output: Output,
) -> None:
    """Count the hours in which each class or branch is heard.

    The stored intervals whose best score reaches --min-score are counted; an interval begins and
    ends where the score crosses 0.1. Where intervals of a row overlap in a clip, the time counts
    once. By class, there is a row for every class that the model can predict, even if it is never
    heard. By day, an interval counts for the day on which it begins. Copies of a clip count once.
    """
    if exact and times.between is not None:
        raise UserError("--exact counts whole recordings: leave out --between")
    if exact and min_score <= 0:
        raise UserError("--exact needs a --min-score above 0")
    if exact and by == "sun":
        raise UserError("--exact counts no phases of the sun: ask for each with --sun")
    with store.database() as engine:
        question = question_of(engine, sounds, times, files, min_score=min_score)
        if not question.under:
            roots = ontology_of(engine).roots
            question = replace(question, under=tuple(root.mid for root in roots))
        if by == "sun":
            sun_of(engine, question, always=True)  # a row counts what has none
        rows = hours_heard(engine, question, by)
        if exact:
            from flows.analysis.stored_scores import exact_hours

            rows = exact_hours(engine, store.home, question, by, rows)
        if by == "day" or question.is_timed:
            note_assumed_zone(engine)
    output.show(
        HeardFor.__match_args__,
        map(astuple, rows),
        (by.replace("-", " "), ">clips", ">minutes", ">hours"),
        ((r.what, f"{r.n_clips:,}", f"{r.hours * 60:.2f}", f"{r.hours:.4f}") for r in rows),
    )
    if not rows and not output.is_data:
        note(f"nothing is heard at {min_score:g} or above")
