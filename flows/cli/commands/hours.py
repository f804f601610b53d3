"""``audioset hours``: how long something is heard."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Literal

import typer

from audioset_core.errors import UserError
from audioset_core.ontology.graph import load_default
from db.query.hours import hours_heard
from db.query.question import Question
from flows.asking import (
    Ambiguous,
    AsCsv,
    AsJson,
    Between,
    Model,
    Source,
    Timezone,
    Under,
    asked_span,
    check_predictable,
    mids,
    opened,
)
from flows.options import DEFAULT_HOME, Database, Home
from flows.terminal import note, print_csv, print_json, print_table


def hours(
    by: Annotated[
        Literal["second-level", "class", "day", "source"],
        typer.Option(help="A row for each branch (child of --under), class, day or file."),
    ] = "second-level",
    under: Under = None,
    min_score: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Least score of an interval's best moment.")
    ] = 0.5,
    exact: Annotated[
        bool,
        typer.Option(
            "--exact",
            help="Count only the moments at --min-score or above, not the whole of an interval "
            "around them; reads the score files, and takes longer.",
        ),
    ] = False,
    between: Between = None,
    timezone: Timezone = None,
    source: Source = None,
    ambiguous: Ambiguous = False,
    model: Model = None,
    home: Home = DEFAULT_HOME,
    db: Database = None,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
) -> None:
    """Hours in which a class or branch is heard.

    Counted are the stored intervals whose best score reaches --min-score; their edges are where the
    score falls below 0.1. Where intervals of a row overlap in a clip, the time counts once. By
    class, a row for every class that the model can predict, also where it is never heard. By day,
    an interval counts for the day on which it begins. A clip counts once however many copies.
    """
    ontology = load_default()
    asked = mids(ontology, under or []) or tuple(root.mid for root in ontology.roots)
    if exact and between is not None:
        raise UserError("--exact counts whole recordings: leave out --between")
    if exact and min_score <= 0:
        raise UserError("--exact needs a --min-score above 0")
    with opened(home, db) as engine:
        if under:
            check_predictable(engine, ontology, asked, model)
        question = Question(
            under=asked,
            min_score=min_score,
            span=asked_span(engine, between, timezone),
            paths=tuple(source or ()),
            model=model,
            with_ambiguous=ambiguous,
        )
        rows = hours_heard(engine, question, by)
        if exact:
            from flows.analysis.stored_scores import exact_hours

            rows = exact_hours(engine, home, question, by, rows)
        if by == "day" or between is not None:
            from flows.cli.commands.times import note_assumed_zone

            note_assumed_zone(engine)
    if as_json:
        print_json([asdict(row) for row in rows])
    elif as_csv:
        print_csv(("what", "mid", "n_clips", "hours"),
                  ((r.what, r.mid, r.n_clips, r.hours) for r in rows))  # fmt: skip
    else:
        columns = (by.replace("-", " "), ">clips", ">minutes", ">hours")
        print_table(
            columns,
            [(r.what, f"{r.n_clips:,}", f"{r.hours * 60:.2f}", f"{r.hours:.4f}") for r in rows],
        )
        if not rows:
            note(f"nothing is heard at {min_score:g} or above")
