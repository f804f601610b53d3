"""``audioset times``: when the recordings began, and how that is read from their files."""

from __future__ import annotations

import os
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated

import typer
from sqlalchemy import Engine

from audioset_core.inputs.start_times import ASSUMED, DIFFERS, IMPLAUSIBLE, compiled, find_zone
from audioset_core.records import TimeRule
from db.catalog.start_times import sources_in_doubt, store_rule, stored_rules, times_found
from db.read_only import may_write
from flows.cli.shared_options import AsJson, Store
from flows.cli.wall_clock import note_assumed_zone
from flows.terminal import note, print_json, print_table, shown_path, when

_EXAMPLES = 5


def times(
    *,
    folders: Annotated[
        list[str] | None, typer.Argument(help="Folders that the rule is for. [default: all]")
    ] = None,
    timezone: Annotated[
        str | None,
        typer.Option(help="Time zone of the recorders' clocks: Europe/Berlin, UTC, +02:00."),
    ] = None,
    pattern: Annotated[
        str | None,
        typer.Option(
            help="Where a file name (with '/': a path) has the start time, such as %Y%m%d_%H%M%S. "
            "The usual forms are known anyway."
        ),
    ] = None,
    read_files: Annotated[
        bool,
        typer.Option(
            help="First read what files say beside the sound, of clips without any notes: those "
            "that an earlier version labelled. Only headers and tags are read."
        ),
    ] = False,
    store: Store,
    as_json: AsJson = False,
) -> None:
    """Show when recordings began, and state how to read it from file names.

    Start times are read from a manifest's meta (recorded_at, recording_start, start_time, datetime,
    timestamp), else from what the recorder wrote into the file (GUANO, AudioMoth's comment,
    Wildlife Acoustics, bext, iXML), else from names such as 20240518_043000, 20240518_0430,
    2024-05-18T04-30-00Z, 2024-05-18-birdnet-04:30:00 and
    AudioMoth's hex, else from tags and the container's creation time. Where two of them differ by
    more than a minute, it is said which. A rule is stored and also holds for
    files that come later; '' removes it. Without a time zone, times are taken as UTC.
    """
    from tasks.labelling.start_times import time_recordings

    find_zone(timezone or None)
    if pattern:
        compiled(pattern)
    with store.database() as engine:
        if read_files:
            from tasks.labelling.notes_again import read_notes_again

            n_found, n_changed = read_notes_again(engine)
            note(f"notes found in {n_found:,} files" + _left_out(n_changed))
        if timezone is not None or pattern is not None:
            for folder in folders or [""]:
                absolute = os.path.abspath(folder) if folder else ""  # noqa: PTH100
                store_rule(engine, TimeRule(absolute, pattern, timezone), datetime.now(UTC))
            time_recordings(engine, again=True)
        elif may_write(engine):
            time_recordings(engine)
        found, rules = times_found(engine), stored_rules(engine)
    if as_json:
        print_json({"rules": list(map(asdict, rules)), "found": list(map(asdict, found))})
        return
    print_table(
        ("start told by", ">files", "earliest (UTC)", "latest (UTC)"),
        [
            (f.found_by or "", f"{f.n_sources:,}", when(f.first_unix_ms), when(f.last_unix_ms))
            for f in found
        ],
    )
    for rule in rules:
        where = rule.folder or "all files"
        names = f"{rule.pattern} and the usual names" if rule.pattern else "the usual names"
        note(f"rule for {where}: {names}, {rule.timezone or ASSUMED}")
    note_assumed_zone(engine)
    _note_doubts(engine)


def _note_doubts(engine: Engine) -> None:
    """Print of some files what each source says, where two differ or one cannot be right."""
    n_files, some = sources_in_doubt(engine, (DIFFERS, IMPLAUSIBLE), _EXAMPLES)
    if n_files:
        note(f"{n_files:,} files have sources that differ or are not plausible: audioset show FILE")
    for source in some:
        unix_ms, offset_s, found_by, *_ = source.stored
        said = "".join(f"; {by}: {start}" for by, start in source.told if start)
        start = when(unix_ms, offset_s or 0)
        note(f"  {shown_path(source.path_text)}: {start} by {found_by}{said}")


def _left_out(n_changed: int) -> str:
    return f"; left out: {n_changed:,} that are gone or changed" if n_changed else ""
