"""``audioset query``: where a sound is heard.

Nothing here imports Prefect or torch: an answer should take less time than the question.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from audioset_core.errors import UserError
from audioset_core.ontology.graph import load_default
from db.answer_records import Hit
from db.query.find import find_clips, find_intervals
from db.query.question import Question
from flows.asking import (
    HIT_COLUMNS,
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
    shown_interval,
)
from flows.options import DEFAULT_HOME, Database, Home
from flows.terminal import clock, note, print_csv, print_json, print_table, shown_path

if TYPE_CHECKING:
    pass

"""Columns of an answer as data; the path is its text."""


def query(
    under: Under = None,
    all_of: Annotated[
        list[str] | None,
        typer.Option(
            help="Each of these must be heard in the clip, at --min-score.", show_default=False
        ),
    ] = None,
    not_under: Annotated[
        list[str] | None,
        typer.Option(help="Leave out clips with such a sound at --min-score.", show_default=False),
    ] = None,
    min_score: Annotated[float, typer.Option(min=0.0, max=1.0, help="Least score.")] = 0.5,
    min_duration: Annotated[
        float, typer.Option(min=0.0, help="The sound lasts so many seconds at a stretch.")
    ] = 0.0,
    between: Between = None,
    timezone: Timezone = None,
    source: Source = None,
    order: Annotated[
        Literal["score", "time", "duration", "path"],
        typer.Option(help="Best, earliest or longest sound first, or by path."),
    ] = "score",
    intervals: Annotated[
        bool, typer.Option("--intervals", help="Each time that it is heard, not each clip.")
    ] = False,
    ambiguous: Ambiguous = False,
    threshold_set: Annotated[
        str | None,
        typer.Option(
            help="What this set of thresholds found, NAME or NAME@VERSION, not --min-score.",
            show_default=False,
        ),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most this many rows.")] = 100,
    model: Model = None,
    home: Home = DEFAULT_HOME,
    db: Database = None,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
) -> None:
    """Clips (or intervals) with any sound under a node: score, which class, when, which file.

    With --all-of alone, the sounds shown are any of those.
    """
    ontology = load_default()
    all_mids = mids(ontology, all_of or [])
    with opened(home, db) as engine:
        question = Question(
            under=mids(ontology, under or []) or all_mids,
            all_of=all_mids,
            not_under=mids(ontology, not_under or []),
            min_score=min_score,
            min_duration_s=min_duration,
            span=asked_span(engine, between, timezone),
            paths=tuple(source or ()),
            model=model,
            order=order,
            limit=limit,
            with_ambiguous=ambiguous,
        )
        if not question.under:
            raise UserError("say what to look for: --under or --all-of")
        check_predictable(engine, ontology, (*question.under, *all_mids), model)
        if threshold_set is not None:
            from flows.cli.commands.set_queries import found_by_set

            hits = found_by_set(engine, threshold_set, question, intervals=intervals)
        else:
            find = find_intervals if intervals else find_clips
            hits = find(engine, question)
        if between is not None:
            from flows.cli.commands.times import note_assumed_zone

            note_assumed_zone(engine)
    _print_hits(hits, as_json=as_json, as_csv=as_csv)
    if as_json or as_csv:
        return
    what = "interval" if intervals else "clip"
    if not hits:
        names = " or ".join(repr(ontology.nodes[mid].name) for mid in question.under)
        least = f"by {threshold_set}" if threshold_set else f"at {min_score:g} or above"
        more = ", with all that is asked" if question != _plain(question) else ""
        note(f"no {what} has {names} {least}{more}")
    elif len(hits) == limit:
        note(f"the first {limit} {what}s; more with --limit")


def _plain(question: Question) -> Question:
    return Question(under=question.under, min_score=question.min_score, limit=question.limit,
                    order=question.order, model=question.model,
                    with_ambiguous=question.with_ambiguous)  # fmt: skip


def _print_hits(hits: Sequence[Hit], *, as_json: bool, as_csv: bool) -> None:
    if as_json:
        print_json([{k: v for k, v in asdict(hit).items() if k != "path"} for hit in hits])
    elif as_csv:
        rows = ([getattr(h, "path_text" if c == "path" else c) for c in HIT_COLUMNS] for h in hits)
        print_csv(HIT_COLUMNS, rows)
    else:
        has_times = any(hit.recorded_at for hit in hits)
        at = ("at",) if has_times else ()
        columns = (">score", "class", "when", *at, ">of", "clip", "file")
        print_table(columns, [_row(hit, has_times=has_times) for hit in hits])


def _row(hit: Hit, *, has_times: bool) -> tuple[str, ...]:
    moment = hit.heard_at or hit.recorded_at
    at = (f"{moment:%Y-%m-%d %H:%M:%S%z}" if moment else "",) if has_times else ()
    return (
        f"{hit.score:.2f}",
        hit.name,
        shown_interval(hit.start_s, hit.end_s),
        *at,
        clock(hit.duration_s),
        hit.clip[:12],
        shown_path(hit.path_text)
        + (" (missing)" if hit.is_missing else "")
        + (f" (+{hit.n_sources - 1} copies)" if hit.n_sources > 1 else ""),
    )
