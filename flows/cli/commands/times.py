"""``audioset times``: when the recordings began, and how their files tell it."""

from __future__ import annotations

import os
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated

import typer
from sqlalchemy import Engine

from audioset_core.inputs.start_times import (
    ASSUMED,
    NOT_UNDERSTOOD,
    START_FORMATS,
    compiled,
    find_zone,
)
from audioset_core.records import TimeRule
from db.catalog.start_times import (
    NOT_FOUND,
    TimesFound,
    store_rule,
    stored_rules,
    times_found,
)
from db.read_only import may_write
from flows.asking import AsJson, opened
from flows.options import DEFAULT_HOME, Database, Home
from flows.terminal import note, print_json, print_table, when


def times(
    folders: Annotated[
        list[str] | None,
        typer.Argument(help="Folders that the rule is for; none: all.", show_default=False),
    ] = None,
    timezone: Annotated[
        str | None,
        typer.Option(
            help="The zone of the recorders' clocks: Europe/Berlin, UTC, +02:00.",
            show_default=False,
        ),
    ] = None,
    pattern: Annotated[
        str | None,
        typer.Option(
            help="How names (with '/': paths) tell the start, as %Y%m%d_%H%M%S; beside the usual "
            "ways.",
            show_default=False,
        ),
    ] = None,
    home: Home = DEFAULT_HOME,
    db: Database = None,
    as_json: AsJson = False,
) -> None:
    """When recordings began: state how names tell it, and see what was found.

    Starts are read from a manifest's meta (recorded_at, recording_start, start_time, datetime,
    timestamp), else from what a WAV file tells (GUANO, AudioMoth's comment), else from names such
    as 20240518_043000, 20240518_0430, 2024-05-18T04-30-00Z, 2024-05-18-birdnet-04:30:00 and
    AudioMoth's hex. A rule is kept: files that come later follow
    it; one of '' forgets. Without a zone, times are taken as UTC.
    """
    from tasks.labelling.start_times import time_recordings

    find_zone(timezone or None)
    if pattern:
        compiled(pattern)
    with opened(home, db) as engine:
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
        [(each.found_by or "", f"{each.n_sources:,}", *map(when, _span(each))) for each in found],
    )
    for rule in rules:
        where = rule.folder or "all files"
        names = f"{rule.pattern} and the usual names" if rule.pattern else "the usual names"
        note(f"rule for {where}: {names}, {rule.timezone or ASSUMED}")
    note_assumed_zone(engine)


def note_assumed_zone(engine: Engine) -> None:
    """Say how many starts were taken as UTC because nobody stated a zone."""
    found = times_found(engine)
    n_assumed = sum(f.n_sources for f in found if (f.found_by or "").endswith(ASSUMED))
    n_unknown = sum(
        f.n_sources for f in found if f.found_by is None or f.found_by.startswith(NOT_FOUND)
    )
    n_unread = sum(f.n_sources for f in found if NOT_UNDERSTOOD in (f.found_by or ""))
    if n_assumed:
        note(f"no time zone is known for {n_assumed:,} files, so UTC: audioset times --timezone")
    if n_unknown:
        note(f"no start is known of {n_unknown:,} files: audioset times --pattern")
    if n_unread:
        note(f"the manifest's start of {n_unread:,} files is not understood; {START_FORMATS}")


def _span(found: TimesFound) -> tuple[int | None, int | None]:
    return found.first_unix_ms, found.last_unix_ms
