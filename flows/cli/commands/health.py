"""``audioset health``: recordings and recorders with something wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated

import typer
from sqlalchemy import Engine

from audioset_core.errors import UserError
from audioset_core.records import TROUBLES
from db.catalog.health import MEASURES
from db.query.question import Question
from db.reports.health import HealthReport, TroubledClip, health_report
from flows.asking import levels
from flows.cli.shared_options import Output, Places, Store
from flows.terminal import note, print_json, print_table, shown_path, when

_BY_NAME = {each.kind.replace(" ", "-"): each for each in TROUBLES}
_LIMITS = ", ".join(f"{name}={each.limit:g}" for name, each in _BY_NAME.items())
_COLUMNS = ("path", "clip", "recorded_at", "device", "serial", "troubles", *MEASURES)


def health(
    *,
    paths: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[PATH]...",
            help="Files, folders or globs, as --source elsewhere. [default: all]",
        ),
    ] = None,
    threshold: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KIND=LIMIT",
            help=f"Where a trouble begins, for this answer. Repeat it. [default: {_LIMITS}]",
        ),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most this many recordings.")] = 50,
    read_files: Annotated[
        bool,
        typer.Option(
            help="First decode the recordings that were not measured: those that an earlier "
            "version labelled."
        ),
    ] = False,
    loudness: Annotated[
        bool,
        typer.Option(
            help="With --read-files, also measure the loudness (LUFS) of recordings without one, "
            "as `audioset label --loudness` does."
        ),
    ] = False,
    places: Places,
    store: Store,
    output: Output,
) -> None:
    """Show which recordings have something wrong, the worst first, and which recorders made them.

    While a recording is labelled its state is measured: clipping, dropouts, silence, a dead
    channel, DC offset and levels. The view `health` has the measures of every recording.
    """
    limits = dict(map(_limit, threshold or ()))
    if loudness and not read_files:
        raise UserError("--loudness decodes recordings: give --read-files as well")
    with store.database() as engine:
        if read_files:
            _read_files(engine, with_loudness=loudness)
        asked = Question(paths=tuple(paths or ()), **places.of_question(engine))
        found = health_report(engine, asked, limits, limit)
    if output.as_json:
        devices = [asdict(each) for each in found.devices]
        used = {each.kind: limits.get(each.kind, each.limit) for each in TROUBLES}
        rows = [dict(zip(_COLUMNS, _row(each), strict=True)) for each in found.worst]
        print_json(
            {"n_measured": found.n_measured, "n_unmeasured": found.n_unmeasured, "limits": used,
             "troubles": found.troubles, "recordings": rows, "devices": devices}
        )  # fmt: skip
        return
    output.show(
        _COLUMNS, map(_row, found.worst), ("file", "what is wrong", "levels", "began", "serial"),
        (
            (shown_path(each.path_text), ", ".join(each.troubles), levels(each.health),
             when(each.recorded_unix_ms, each.recorded_utc_offset_s or 0), each.serial or "")
            for each in found.worst
        ),
    )  # fmt: skip
    if not output.as_csv:
        _show_devices(found)
    _notes(found)


def _limit(text: str) -> tuple[str, float]:
    """A kind of trouble and where it begins."""
    name, _, number = text.partition("=")
    trouble = _BY_NAME.get(name.strip().replace(" ", "-"))
    if trouble is None:
        from difflib import get_close_matches

        near = get_close_matches(name, _BY_NAME, n=1) or list(_BY_NAME)
        raise UserError(f"unknown trouble {name!r}; did you mean {' or '.join(near)}?")
    try:
        return trouble.kind, float(number)
    except ValueError:
        raise UserError(
            f"--threshold {text!r}: give a number, such as {name}={trouble.limit:g}"
        ) from None


def _read_files(engine: Engine, *, with_loudness: bool) -> None:
    from tasks.labelling.health_again import measure_again

    n_found, n_gone = measure_again(engine, with_loudness=with_loudness)
    gone = f"; left out: {n_gone:,} that are gone or changed" if n_gone else ""
    note(f"measured {n_found:,} recordings{gone}")


def _row(each: TroubledClip) -> Sequence[object]:
    start = when(each.recorded_unix_ms, each.recorded_utc_offset_s or 0) or None
    about = (each.path_text, each.clip, start, each.device, each.serial)
    return (*about, ", ".join(each.troubles), *asdict(each.health).values())


def _show_devices(found: HealthReport) -> None:
    """A row for each recorder; a dead microphone is in every recording of a serial number."""
    if not found.n_troubled:
        print(f"nothing wrong with {found.n_measured:,} recordings" if found.n_measured else "")
        return
    print()
    print_table(
        ("device", "serial", ">recordings", ">with trouble", "which"),
        [
            (
                each.device or "unknown", each.serial or "", f"{each.n_clips:,}",
                f"{each.n_troubled:,}",
                ", ".join(f"{kind} {n:,}" for kind, n in each.troubles.items()),
            )
            for each in found.devices
        ],
    )  # fmt: skip


def _notes(found: HealthReport) -> None:
    if found.n_troubled > len(found.worst):
        note(f"{found.n_troubled - len(found.worst):,} more have something wrong: --limit")
    if found.n_unmeasured:
        note(f"{found.n_unmeasured:,} recordings were not measured: audioset health --read-files")
    if not found.n_measured + found.n_unmeasured:
        note("no labelled recording fits")
