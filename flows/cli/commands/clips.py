"""``audioset clips``: the sounds themselves, as files that are exactly what was recorded."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from flows.cli.command import command_group
from flows.cli.export_job import OutFolder
from flows.cli.shared_options import Files, Heard, Sounds, Store, Times, asked_sounds
from flows.terminal import note


def export(
    *,
    out: OutFolder,
    sounds: Sounds,
    heard: Heard,
    times: Times,
    files: Files,
    padding: Annotated[
        float, typer.Option(min=0.0, help="Seconds before and after each sound.")
    ] = 1.0,
    at_most: Annotated[int, typer.Option(min=1, help="At most so many of each class.")] = 100,
    order: Annotated[
        Literal["score", "random"], typer.Option(help="Which of a class: the best, or any.")
    ] = "score",
    seed: Annotated[
        int, typer.Option(help="Another number takes others, with --order random or equal scores.")
    ] = 0,
    sound_format: Annotated[
        Literal["flac", "wav"],
        typer.Option("--format", help="FLAC where it holds the samples exactly, else WAV."),
    ] = "flac",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Write files again that are there.")
    ] = False,
    store: Store,
) -> None:
    """Write sounds as files, each with a second before and after it, and a table of them.

    A folder for each class; samples, rate and channels are those of the recording. clips.csv tells
    where each file is from, failures.csv what could not be read: the exit code is then 1.
    """
    from db.query.find import find_sounds
    from db.thresholds.find import find_sounds_of_set
    from flows.cli.clips_job import Wanted, export_clips, refuse_clips, scanned_folder
    from flows.cli.wall_clock import note_assumed_zone

    refuse_clips(out, padding)
    with store.database() as engine:
        question = asked_sounds(engine, sounds, heard, times, files, limit=None)
        stored = heard.stored_set(engine, question)
        if stored is None:
            found = find_sounds(engine, question, at_most, order, seed)
        else:
            found = find_sounds_of_set(engine, stored, question, at_most, order, seed)
        if question.span is not None:
            note_assumed_zone(engine)
        if not found:
            note(f"no recording has {heard.missed(engine, question)}, with all that is asked")
            return
        if folder := scanned_folder(engine, out):
            note(
                f"{out} is inside {folder}, which was labelled: the next label run there labels "
                "these files too, unless a folder's name in between begins with a dot"
            )
        wanted = Wanted(out, padding, sound_format, overwrite, question)
        counts = export_clips(engine, wanted, found)
    n_classes = len({sound.mid for sound in found})
    print(f"{counts['written']:,} files of {n_classes:,} classes: {out}")
    if counts["there"]:
        note(f"{counts['there']:,} files were there already")
    full = sorted({s.name for s in found if counts[s.mid] >= at_most})
    if full:
        note(f"at most {at_most:,} of each class: --at-most for more of {_few(full)}")
    if counts["failed"]:
        note(f"not written: {counts['failed']:,} sounds, see {out / 'failures.csv'}")
        raise typer.Exit(1)


def _few(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


app = command_group("Write the sounds themselves as files.", {"export": export})
