"""``audioset query``: where a sound is heard.

Nothing here imports Prefect or torch: an answer must not take longer than typing the question.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Literal

import typer
from sqlalchemy import Engine

from db.answer_records import Hit
from db.query.find import find_clips, find_intervals
from db.query.question import Question
from db.query.totals import count_clips
from flows.asking import HIT_COLUMNS, shown_interval
from flows.cli.shared_options import Files, Heard, Output, Sounds, Store, Times, asked_sounds
from flows.cli.wall_clock import note_assumed_zone
from flows.terminal import clock, note, one_line, print_json, shown_path


def query(
    *,
    sounds: Sounds,
    heard: Heard,
    times: Times,
    files: Files,
    order: Annotated[
        Literal["score", "time", "duration", "path"],
        typer.Option(help="Best, earliest or longest sound first, or by path."),
    ] = "score",
    intervals: Annotated[
        bool,
        typer.Option(
            "--intervals", help="A row for each time that the sound is heard, not for each clip."
        ),
    ] = False,
    limit: Annotated[int, typer.Option(min=1, help="At most this many rows.")] = 100,
    store: Store,
    output: Output,
) -> None:
    """Find clips (or intervals) with any sound below a node: score, class, time, file.

    With --all-of and no --under, the sounds that are shown are those of --all-of.
    """
    with store.database() as engine:
        question = asked_sounds(engine, sounds, heard, times, files, order=order, limit=limit)
        looked_for = heard.missed(engine, question)
        hits = _found(engine, question, heard, intervals=intervals)
        is_counted = len(hits) == limit and not (output.is_data or intervals or heard.threshold_set)
        n_all = count_clips(engine, question) if is_counted else None
        if question.is_timed:
            note_assumed_zone(engine)
    if output.as_json:
        print_json([{k: v for k, v in asdict(hit).items() if k != "path"} for hit in hits])
    else:
        _print_hits(hits, output)
    if output.is_data:
        return
    what = "interval" if intervals else "clip"
    if hits and 0 < heard.min_duration <= (shortest := min(hit.window_s for hit in hits)):
        note(
            f"one score is of {shortest:g} s of sound, and an interval lasts as long at least: "
            f"--min-duration {heard.min_duration:g} leaves out only recordings that are shorter"
        )
    if not hits:
        narrowed = ", with all that is asked" * _is_narrowed(question)
        note(f"no {what} has {looked_for}{narrowed}")
    elif len(hits) == limit and n_all != limit:
        of_all = f" of {n_all:,}" if n_all is not None else ""
        note(f"the first {limit}{of_all} {what}s; more with --limit")


def _found(engine: Engine, question: Question, heard: Heard, *, intervals: bool) -> list[Hit]:
    """What answers the question: by its least score, or of what a set of thresholds found."""
    stored = heard.stored_set(engine, question)
    if stored is None:
        return (find_intervals if intervals else find_clips)(engine, question)
    from db.thresholds.find import find_clips_of_set, find_intervals_of_set

    return (find_intervals_of_set if intervals else find_clips_of_set)(engine, stored, question)


def _is_narrowed(question: Question) -> bool:
    """Whether more is asked than for a sound and its score."""
    asked = ("under", "min_score", "limit", "order", "model", "with_ambiguous")
    return question != Question(**{name: getattr(question, name) for name in asked})


def _print_hits(hits: Sequence[Hit], output: Output) -> None:
    has_times = any(hit.recorded_at for hit in hits)
    at = ("at",) if has_times else ()
    has_sites = any(hit.site for hit in hits)
    site = ("site",) if has_sites else ()
    output.show(
        HIT_COLUMNS,
        ([getattr(h, "path_text" if c == "path" else c) for c in HIT_COLUMNS] for h in hits),
        (">score", "class", "when", *at, ">of", *site, "clip", "file"),
        (_row(hit, has_times=has_times, has_sites=has_sites) for hit in hits),
    )


def _row(hit: Hit, *, has_times: bool, has_sites: bool) -> tuple[str, ...]:
    moment = hit.heard_at or hit.recorded_at
    at = (f"{moment:%Y-%m-%d %H:%M:%S%z}" if moment else "",) if has_times else ()
    return (
        f"{hit.score:.2f}",
        hit.name,
        shown_interval(hit.start_s, hit.end_s),
        *at,
        clock(hit.duration_s),
        *((one_line(hit.site or ""),) if has_sites else ()),
        hit.clip[:12],
        shown_path(hit.path_text)
        + (" (missing)" if hit.is_missing else "")
        + (f" (+{hit.n_sources - 1} copies)" if hit.n_sources > 1 else ""),
    )
