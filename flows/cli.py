"""The commands of ``audioset``; `flows.program` runs them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

import typer

from audioset_core.proxies import settle_proxies
from flows import (
    commands_ask,
    commands_demo,
    commands_evaluate,
    commands_export,
    commands_hours,
    commands_look,
    commands_model,
    commands_ontology,
    commands_pages,
    commands_query,
    commands_rank,
    commands_review,
    commands_serve,
    commands_sql,
    commands_thresholds,
    commands_times,
    commands_verdicts,
    commands_verify,
)
from flows.options import DEFAULT_HOME, Database, FollowSymlinks, Home, database_url
from flows.program import main

__all__ = ["app", "main"]

app = typer.Typer(
    name="audioset",
    help="Label large collections of recordings with AudioSet classes, and ask what is in them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def _before_any_command() -> None:
    settle_proxies(os.environ)


@app.command()
def label(
    paths: Annotated[
        list[str] | None, typer.Argument(help="Files, folders and globs.", show_default=False)
    ] = None,
    manifest: Annotated[
        Path | None,
        typer.Option(help="CSV or JSONL: path, optional id and meta.", show_default=False),
    ] = None,
    model: Annotated[str, typer.Option(help="Which model labels.")] = "yamnet",
    weights: Annotated[
        Path | None,
        typer.Option(help="Weights file instead of the official ones.", show_default=False),
    ] = None,
    patch_hop: Annotated[
        float | None,
        typer.Option(help="Seconds between scores. [default: the model's, 0.48]"),
    ] = None,
    framing: Annotated[
        Literal["reference", "pad", "seed"],
        typer.Option(help="'pad' drops no audio; 'seed' repeats the older port's chunks."),
    ] = "reference",
    device: Annotated[
        Literal["auto", "cpu", "cuda"], typer.Option(help="Where the network runs.")
    ] = "auto",
    engine: Annotated[
        Literal["auto", "torch", "openvino"],
        typer.Option(help="What computes the network; auto takes the fastest on the device."),
    ] = "auto",
    precision: Annotated[
        Literal["float32", "bf16"],
        typer.Option(help="bf16 is faster where the hardware has it; scores move by up to 0.1."),
    ] = "float32",
    score_dtype: Annotated[
        Literal["float16", "float32"], typer.Option(help="How results are stored.")
    ] = "float16",
    embeddings: Annotated[
        bool, typer.Option("--embeddings", help="Store the embeddings of every patch as well.")
    ] = False,
    track: Annotated[
        str,
        typer.Option(help="Audio track: 'default' as FFmpeg chooses, a number, or 'all' mixed."),
    ] = "default",
    strict: Annotated[
        bool,
        typer.Option("--strict", help="Refuse recordings of which something is missing."),
    ] = False,
    follow_symlinks: FollowSymlinks = False,
    home: Home = DEFAULT_HOME,
    db: Database = None,
) -> None:
    """Label recordings. What is labelled already costs nothing; run it again at any time."""
    from flows.labelling import label_paths
    from flows.options import LabelOptions, chosen_track

    options = LabelOptions(
        model=model,
        weights=weights,
        patch_hop_s=patch_hop,
        framing=framing,
        device=device,
        engine=engine,
        precision=precision,
        score_dtype=score_dtype,
        embeddings=embeddings,
        track=chosen_track(track),
        strict=strict,
        follow_symlinks=follow_symlinks,
    )
    raise typer.Exit(label_paths(paths or [], manifest, home, options, database_url(home, db)))


app.command()(commands_serve.serve)
app.command()(commands_demo.demo)
app.command()(commands_model.convert)
app.add_typer(commands_model.app, name="models")
app.command()(commands_model.diff)
app.add_typer(commands_ontology.app, name="ontology")
app.command()(commands_query.query)
app.command()(commands_hours.hours)
app.command()(commands_rank.rank)
app.command()(commands_rank.similar)
app.command()(commands_ask.show)
app.command()(commands_sql.sql)
app.command()(commands_sql.browse)
app.command()(commands_ask.failures)
app.add_typer(commands_export.app, name="export")
app.command()(commands_times.times)
app.command()(commands_look.plot)
app.command()(commands_look.curve)
app.command()(commands_pages.report)
app.command()(commands_review.review)
app.add_typer(commands_verdicts.app, name="verdicts")
app.command()(commands_review.estimate)
app.command()(commands_verify.verify)
app.command()(commands_evaluate.evaluate)
app.add_typer(commands_thresholds.app, name="thresholds")
