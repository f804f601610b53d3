"""``audioset show`` and ``failures``: what is stored about one clip, and which files failed.

Nothing here imports Prefect or torch: an answer must not take longer than typing the question.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from db.reports import clip as reports
from flows.asking import clip_reference, shown_interval
from flows.cli.shared_options import AsJson, Clip, Output, Store
from flows.terminal import clock, print_json, print_table, say, shown_path
from flows.terminal import when as moment


def show(
    *,
    clip: Clip,
    top: Annotated[int, typer.Option(min=1, help="Labels to show.")] = 10,
    store: Store,
    as_json: AsJson = False,
) -> None:
    """Show what is known about a clip: files, labellings, best labels, detections with times."""
    with store.database() as engine:
        report = reports.clip_by_ref(engine, clip_reference(clip))
    if as_json:
        described = asdict(report)
        for source in described["sources"]:
            del source["path"]
        print_json(described)
        return
    facts = report.clip
    say(f"clip {facts.sha256}")
    say(
        f"{clock(facts.duration_s)}, {facts.sample_rate_hz} Hz, {facts.n_channels} channels, "
        f"{facts.format}, {facts.size_bytes:,} bytes"
    )
    if facts.told_start:
        say(f"  recorded {facts.told_start} ({facts.told_by})")
    if facts.latitude_deg is not None:
        say(f"  at {facts.latitude_deg:g}, {facts.longitude_deg:g}")
    if facts.device or facts.serial:
        serial = f", serial {facts.serial}" if facts.serial else ""
        say(f"  by {facts.device or 'a device'}{serial}")
    for source in report.sources:
        named = f"  id {source.user_id}" if source.user_id else ""
        say(f"  {source.path_text} ({source.status}){named}")
        if source.recorded_by and ";" in source.recorded_by:  # something differs, or is wrong
            start = moment(source.recorded_unix_ms, source.recorded_utc_offset_s or 0)
            say(f"    start {start}: {source.recorded_by}")
        if source.site_by:
            say(f"    site {source.site or 'not known'}: {source.site_by}")
    for labelling in report.labellings:
        beside = "beside" if labelling.is_beside else "kept"
        mark = "current" if labelling.is_current else beside
        hop_s = labelling.patch_hop_s
        when = f"{labelling.labelled_at:%Y-%m-%d %H:%M}Z" if labelling.labelled_at else "-"
        say(
            f"  {labelling.model} {labelling.model_version}, "
            f"{labelling.window_s:g} s every {hop_s:g} s: "
            f"{labelling.status}, {mark}, {labelling.n_patches} patches, {when}"
            + (f", times to {labelling.step_s:g} s" if labelling.step_s < hop_s else "")
            + (", partial" if labelling.is_partial else "")
            + (f" ({labelling.note})" if labelling.note else "")
        )
    for remark in report.remarks:
        when = shown_interval(remark.start_s, remark.end_s)
        if not when and remark.start_s is not None:
            when = clock(remark.start_s)
        say(f"  {remark.kind}{f' at {when}' if when else ''}: {remark.detail}")
    print()
    print_table(
        (">peak", ">mean", "class", "mid"),
        [(f"{x.peak:.2f}", f"{x.mean:.2f}", x.name, x.mid) for x in report.labels[:top]],
    )
    names = {label.mid for label in report.labels[:top]}
    print()
    print_table(
        ("when", "class", ">peak", ">mean"),
        [
            (shown_interval(d.start_s, d.end_s), d.name, f"{d.peak:.2f}", f"{d.mean:.2f}")
            for d in report.detections
            if d.mid in names
        ],
    )
    if facts.notes:
        print()
        said = ((n.source, n.key, n.value, n.doubt or "") for n in facts.notes)
        print_table(("said in", "what", "value", "doubt"), said)


def failures(
    *,
    limit: Annotated[int | None, typer.Option(min=1, help="At most this many.")] = None,
    store: Store,
    output: Output,
) -> None:
    """List the files that could not be labelled, and why. Exit code 1 if there are any."""
    with store.database() as engine:
        found = reports.failures(engine, limit)
    rows = [(f.path_text, f.reason or "", f.reason_detail or "", f.size_bytes) for f in found]
    if not rows and not output.is_data:
        print("no file failed")
    else:
        output.show(
            ("path", "reason", "detail", "size_bytes"),
            rows,
            ("file", "reason", "detail", ">bytes"),
            ((shown_path(path), reason, detail, f"{n:,}") for path, reason, detail, n in rows),
        )
    raise typer.Exit(1 if rows else 0)
