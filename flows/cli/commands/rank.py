"""``audioset rank`` and ``audioset similar``: what needs the stored tensors, not SQL alone."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

import typer

from audioset_core.errors import UserError
from audioset_core.ontology.graph import load_default
from db.query.question import Question
from db.reports.model_coverage import score_floor
from db.score_files import comparable as stored
from flows.asking import (
    Ambiguous,
    AsCsv,
    AsJson,
    Model,
    Source,
    Under,
    check_predictable,
    clip_reference,
    mids,
    opened,
    shown_interval,
)
from flows.options import DEFAULT_HOME, Database, Home
from flows.terminal import note, print_csv, print_json, print_table, shown_path

Top = Annotated[int, typer.Option(min=1, help="At most this many.")]


def rank(
    under: Under = None,
    window: Annotated[float, typer.Option(min=0.0, help="Seconds of a window.")] = 5.0,
    stride: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            help="Seconds from one window to the next. [default: the window]",
            show_default=False,
        ),
    ] = None,
    pooling: Annotated[
        Literal["max", "mean"], typer.Option(help="Of a window's scores: the best, or their mean.")
    ] = "max",
    top: Top = 100,
    min_score: Annotated[
        float | None,
        typer.Option(
            min=0.0, max=1.0, help="Least score. [default: all that is stored]", show_default=False
        ),
    ] = None,
    source: Source = None,
    ambiguous: Ambiguous = False,
    model: Model = None,
    home: Home = DEFAULT_HOME,
    db: Database = None,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
) -> None:
    """The best windows of all recordings in one ranking, with class and interval.

    Exact, from the stored scores; recordings whose peak cannot be among the best are not read. The
    mean is of logits over the scores that lie within a window. A window's class is its best.
    """
    from flows.analysis.stored_scores import rank_windows, window_times

    ontology = load_default()
    asked = mids(ontology, under or [])
    if not asked:
        raise UserError("say what to look for: --under")
    with opened(home, db) as engine:
        check_predictable(engine, ontology, asked, model)
        floor = score_floor(engine, model)
        question = Question(
            under=asked,
            min_score=floor if min_score is None else min_score,
            paths=tuple(source or ()),
            model=model,
            with_ambiguous=ambiguous,
        )
        ranking = rank_windows(
            engine, home, question,
            window_s=window, stride_s=window if stride is None else stride, top=top, mode=pooling,
        )  # fmt: skip
    rows = []
    for place, found in enumerate(ranking.windows, 1):
        file = found.of
        mid, name = file.classes[found.category_index]
        times = window_times(found)
        rows.append((place, found.score, mid, name, *times, file.clip, file.path_text))
    columns = ("place", "score", "mid", "name", "start_s", "end_s", "clip", "path")
    if as_json:
        print_json([dict(zip(columns, row, strict=True)) for row in rows])
    elif as_csv:
        print_csv(columns, rows)
    else:
        print_table(
            (">", ">score", "class", "when", "clip", "file"),
            [
                (str(p), f"{score:.4f}", name, shown_interval(a, b), clip[:12], shown_path(path))
                for p, score, _, name, a, b, clip, path in rows
            ],
        )
    note(f"{ranking.n_read:,} recordings read for it")


def similar(
    clip: Annotated[
        str,
        typer.Argument(
            metavar="CLIP|PATH[@SECONDS]",
            help="A clip id or a file; with @12.5 the moment there, compared with every moment.",
        ),
    ],
    top: Top = 20,
    source: Source = None,
    model: Model = None,
    home: Home = DEFAULT_HOME,
    db: Database = None,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
) -> None:
    """Recordings most like one, by the cosine of stored embeddings, else of scores.

    A recording stands for the mean over its length; with @SECONDS, each for its most similar
    moment. Exact: every stored file of the same model is read, one after the other. Embeddings are
    there if they were labelled with --embeddings.
    """
    from flows.analysis.stored_scores import moment_times, similar_clips

    reference, at_s = _moment(clip)
    with opened(home, db) as engine:
        query = stored.vectors_of(engine, clip_reference(reference), model)
        question = Question(paths=tuple(source or ()))
        found, n_compared = similar_clips(engine, home, query, question, at_s, top)
        described = stored.describe(engine, [n.clip for n in found], question.paths)
    note(f"compared by {query.kind} of {query.model}, with {n_compared:,} other recordings")
    rows = []
    for neighbour in found:
        file = described[neighbour.clip]
        times = moment_times(neighbour, query, file.duration_s)
        rows.append((neighbour.cosine, *times, neighbour.clip, file.path_text))
    columns = ("cosine", "start_s", "end_s", "clip", "path")
    if as_json:
        by = {"compared_by": query.kind, "model": query.model}
        print_json(by | {"found": [dict(zip(columns, row, strict=True)) for row in rows]})
    elif as_csv:
        print_csv(columns, rows)
    else:
        print_table(
            (">cosine", "when", "clip", "file"),
            [
                (f"{cosine:.4f}", shown_interval(a, b), clip_id[:12], shown_path(path))
                for cosine, a, b, clip_id, path in rows
            ],
        )


def _moment(text: str) -> tuple[str, float | None]:
    """Apart what stands before and after the last '@', if a number stands there."""
    if Path(text).exists():
        return text, None
    found = re.fullmatch(r"(.+)@(\d+(?:\.\d*)?)", text, re.DOTALL)
    return (found.group(1), float(found.group(2))) if found else (text, None)
