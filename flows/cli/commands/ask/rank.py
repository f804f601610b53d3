"""``audioset rank`` and ``audioset similar``: what needs the stored scores, not SQL alone."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

import typer

from audioset_core.errors import UserError
from db.reports.model_coverage import score_floor
from db.score_files.comparable import vectors_of
from flows.asking import clip_reference, shown_interval
from flows.cli.shared_options import Files, Output, Sounds, Store, question_of
from flows.terminal import note, one_line, print_json, shown_path

Top = Annotated[int, typer.Option(min=1, help="At most this many rows.")]


def rank(
    *,
    sounds: Sounds,
    window: Annotated[float, typer.Option(min=0.0, help="Seconds of a window.")] = 5.0,
    stride: Annotated[
        float | None,
        typer.Option(min=0.0, help="Seconds from one window to the next. [default: the window]"),
    ] = None,
    pooling: Annotated[
        Literal["max", "mean"],
        typer.Option(help="A window's score is the best of its scores, or their mean."),
    ] = "max",
    top: Top = 100,
    min_score: Annotated[
        float | None,
        typer.Option(min=0.0, max=1.0, help="Lowest score. [default: all that is stored]"),
    ] = None,
    files: Files,
    store: Store,
    output: Output,
) -> None:
    """Rank the windows with the best scores in all recordings, with class and time.

    The ranking is exact and comes from the stored scores; recordings whose peak cannot be among the
    best are not read. The mean is taken over the logits of the patches that lie within a window. A
    window is shown with its best class.
    """
    from flows.analysis.stored_scores import RANK_COLUMNS, rank_windows

    if not sounds.under:
        raise UserError("say what to look for: --under")
    with store.database() as engine:
        least = score_floor(engine, files.model) if min_score is None else min_score
        rows, n_read = rank_windows(
            engine, store.home, question_of(engine, sounds, files, min_score=least),
            window_s=window, stride_s=stride, top=top, pooling=pooling,
        )  # fmt: skip
    output.show(
        ("place", *RANK_COLUMNS),
        ((place, *row) for place, row in enumerate(rows, 1)),
        (">", ">score", "class", "when", "clip", "file"),
        (
            (str(n), f"{score:.4f}", name, shown_interval(a, b), clip[:12], shown_path(path))
            for n, (score, _, name, a, b, clip, path) in enumerate(rows, 1)
        ),
    )
    longest = max((end_s - start_s for _, _, _, start_s, end_s, _, _ in rows), default=0.0)
    if longest > window + 1e-6:
        note(f"one score is of {longest:g} s of sound: these are the shortest windows there are")
    note(f"{n_read:,} recordings were read")


def similar(
    *,
    clip: Annotated[
        str,
        typer.Argument(
            metavar="CLIP|PATH[@SECONDS]",
            help="A clip id or a file; @12.5 compares the moment at 12.5 s with every moment.",
        ),
    ],
    top: Top = 20,
    exact: Annotated[
        bool, typer.Option("--exact", help="Read every stored file, even if there is an index.")
    ] = False,
    files: Files,
    store: Store,
    output: Output,
) -> None:
    """Find the recordings that are most like one, by the cosine of embeddings, else of scores.

    Recordings are compared by their mean over time; with @SECONDS, by the moment that is most
    similar. Embeddings are stored by `audioset label --embeddings`. Every stored file of the same
    model is read, one after the other, unless there is an index: `audioset index build` makes it.
    An index may miss a few of the nearest; with --exact and --source none is asked.
    """
    from flows.analysis.similar import SIMILAR_COLUMNS, similar_clips

    files.refuse_sun("similar recordings")
    reference, at_s = _moment(clip)
    with store.database() as engine:
        query = vectors_of(engine, clip_reference(reference), files.model)
        question = question_of(engine, files)
        answer = similar_clips(engine, store.home, query, question, at_s, top, exact)
    if answer.remark is not None:
        note(one_line(answer.remark))
    note(f"compared by {query.kind} of {query.model}, {answer.how}")
    if output.as_json:
        found = [dict(zip(SIMILAR_COLUMNS, row, strict=True)) for row in answer.rows]
        told = {"n_read": answer.n_read, "n_indexed": answer.n_indexed, "found": found}
        print_json({"compared_by": query.kind, "model": query.model, **told})
        return
    output.show(
        SIMILAR_COLUMNS,
        answer.rows,
        (">cosine", "when", "clip", "file"),
        (
            (f"{cosine:.4f}", shown_interval(a, b), clip_id[:12], shown_path(path))
            for cosine, a, b, clip_id, path in answer.rows
        ),
    )


def _moment(text: str) -> tuple[str, float | None]:
    """What stands before and after the last '@', if a number stands there."""
    if Path(text).exists():
        return text, None
    found = re.fullmatch(r"(.+)@(\d+(?:\.\d*)?)", text, re.DOTALL)
    return (found.group(1), float(found.group(2))) if found else (text, None)
