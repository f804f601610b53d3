"""``audioset label``: label recordings, once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from flows.options import DEFAULT_HOME, Database, FollowSymlinks, Home, chosen_track, database_url


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
    from flows.cli.labelling import label_paths
    from flows.run_options import LabelOptions

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
