"""``audioset sites``: where recordings were made, and which belong there."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import astuple, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from sqlalchemy import Engine

from audioset_core.errors import UserError
from audioset_core.inputs.site_changes import (
    StatedSite,
    clean_name,
    read_sites,
    stated_place,
    stated_rules,
    with_stated,
)
from audioset_core.inputs.sites import (
    DIFFERS,
    FOLDER,
    NEAR_KM,
    UNKNOWN,
    check_sites,
    find_site,
    name_key,
    serial_key,
    stated_name,
)
from audioset_core.records import Site, SiteRule
from db.catalog.sites import (
    RecordedAt,
    change_sites,
    count_placed_nowhere,
    found_by,
    metas_found_by,
    recorded_at_sites,
    stored_sites,
)
from db.types import path_text
from flows.asking import open_database
from flows.cli.command import command_group
from flows.cli.shared_options import Output, Store
from flows.options import make_home
from flows.terminal import note, one_line

Name = Annotated[str, typer.Argument(help="The name of the site.")]
Latitude = Annotated[str | None, typer.Option("--lat", help="Latitude: 52.5, or 52°30'N.")]
Longitude = Annotated[str | None, typer.Option("--lon", help="Longitude: 13.4, or 13°24'E.")]
Timezone = Annotated[
    str | None,
    typer.Option(help="Time zone of starts without one: Europe/Berlin. '' for none."),
]
Notes = Annotated[str | None, typer.Option(help="Anything else to know of the site.")]

_SHOWN = 3


def add(
    *,
    name: Annotated[str | None, typer.Argument(help="The name of the site.")] = None,
    lat: Latitude = None,
    lon: Longitude = None,
    timezone: Timezone = None,
    folder: Annotated[
        list[str] | None, typer.Option(help="Files below this folder belong there. Repeatable.")
    ] = None,
    serial: Annotated[
        list[str] | None,
        typer.Option(help="Recordings of the recorder with this serial number. Repeatable."),
    ] = None,
    first_day: Annotated[
        str | None, typer.Option("--from", metavar="DAY", help="Only what was recorded from then.")
    ] = None,
    last_day: Annotated[
        str | None, typer.Option("--until", metavar="DAY", help="Only until then, this day too.")
    ] = None,
    notes: Notes = None,
    manifest: Annotated[
        Path | None,
        typer.Option(
            help="A table (CSV) of sites instead: name, lat, lon, and if wanted folder, serial, "
            "from, until, timezone, notes."
        ),
    ] = None,
    store: Store,
) -> None:
    """Add a site, or folders and recorders to one that is there.

    A recording belongs to the site that its manifest names (column site), else to that of the
    deepest folder, else to that of its recorder on that day, else to the nearest one within 1 km of
    the place that its file states. A recorder that moves has a row, or a call, for each stay.
    """
    given = (lat, lon, timezone, folder, serial, first_day, last_day, notes)
    if (manifest is None) == (name is None) or (manifest is not None and any(given)):
        raise UserError("name one site with its options, or give a table with --manifest")
    remarks: list[str] = []
    if manifest is not None:
        stated, remarks = read_sites(manifest)
        if not stated:
            raise UserError(f"{manifest} has no site, only the names of columns")
    else:
        rules = stated_rules(folder or (), serial or (), first_day, last_day)
        at = stated_place(lat, lon)
        stated = [
            StatedSite(
                name=clean_name(name or ""),
                at=at,
                timezone=timezone or None,
                notes=notes or None,
                rules=rules,
            )
        ]

    def added(sites: Sequence[Site]) -> Sequence[Site]:
        for each in stated:
            sites = with_stated(sites, replace(each, rules=tuple(map(_absolute, each.rules))))
        check_sites(sites)
        return sites

    if not store.is_there:
        added([])  # a mistake makes no home
    make_home(store.home)
    with open_database(store.home, store.db, create=True) as engine:
        _change(engine, added, {name_key(each.name) for each in stated})
    for remark in remarks:
        note(remark)


def list_(*, store: Store, output: Output) -> None:
    """List the sites: place, what belongs there, and what was recorded on which days."""
    with store.database() as engine:
        sites, recorded = stored_sites(engine), recorded_at_sites(engine)
        if not output.is_data:
            _note_left(engine, sites, recorded)
    rows = [
        (
            s.name,
            s.latitude_deg,
            s.longitude_deg,
            s.timezone,
            s.notes,
            _rules(s),
            *astuple(recorded.get(s.id, RecordedAt())),
        )
        for s in sites
    ]
    output.show(
        ("name", "latitude_deg", "longitude_deg", "timezone", "notes", "rules", "n_clips", "hours",
         "first_day", "last_day"),
        rows,
        ("site", ">latitude", ">longitude", "time zone", "belongs there", ">recordings", ">hours",
         "first day", "last day"),
        (
            (one_line(name), f"{lat:.5f}", f"{lon:.5f}", zone or "", one_line(rules), f"{n:,}",
             f"{hours:.2f}", first or "", last or "")
            for name, lat, lon, zone, _, rules, n, hours, first, last in rows
        ),
    )  # fmt: skip
    if not sites:
        note("no sites yet: audioset sites add NAME --lat --lon")


def change(
    *,
    name: Name,
    rename: Annotated[str | None, typer.Option(help="Its new name.")] = None,
    lat: Latitude = None,
    lon: Longitude = None,
    timezone: Timezone = None,
    notes: Notes = None,
    drop: Annotated[
        list[str] | None,
        typer.Option(metavar="FOLDER|SERIAL", help="What no longer belongs there. Repeatable."),
    ] = None,
    store: Store,
) -> None:
    """Move or rename a site, state its time zone or notes anew, or drop folders and recorders."""
    at = stated_place(lat, lon)
    if not (rename or at or drop) and timezone is None and notes is None:
        raise UserError(
            "say what to change: --rename, --lat and --lon, --timezone, --notes, --drop"
        )

    def changed(sites: Sequence[Site]) -> Sequence[Site]:
        site = find_site(sites, name)
        latitude_deg, longitude_deg = at or (site.latitude_deg, site.longitude_deg)
        new = Site(
            clean_name(rename) if rename else site.name, latitude_deg, longitude_deg,
            site.timezone if timezone is None else timezone or None,
            site.notes if notes is None else notes or None,
            _without(site, drop or []), site.id,
        )  # fmt: skip
        others = [each for each in sites if each is not site]
        if any(name_key(each.name) == name_key(new.name) for each in others):
            raise UserError(f"there is a site {new.name!r} already")
        check_sites([*others, new])
        return [*others, new]

    with store.database() as engine:
        _change(engine, changed, {name_key(rename or name)})


def remove(*, name: Name, store: Store) -> None:
    """Remove a site. Its recordings stay, and belong to another site or to none."""
    with store.database() as engine:
        site = find_site(stored_sites(engine), name)
        _change(engine, lambda sites: [each for each in sites if each.id != site.id], set())
        print(f"{site.name}: removed")


def _change(
    engine: Engine, change: Callable[[Sequence[Site]], Sequence[Site]], keys: set[str]
) -> None:
    """Change the sites, find the site of every file again, and print what belongs to those."""
    from tasks.labelling.start_times import time_recordings

    is_new = change_sites(engine, change, datetime.now(UTC))
    time_recordings(engine, again=True)  # also if nothing changed: an earlier call may have ended
    sites, recorded = stored_sites(engine), recorded_at_sites(engine)
    for site in sites:
        if name_key(site.name) in keys:
            its = recorded.get(site.id, RecordedAt())
            days = f", {its.first_day} to {its.last_day}" if its.first_day else ""
            plural = "s" * (its.n_clips != 1)
            state = "" if is_new else "is like that already: "
            print(f"{site.name}: {state}{its.n_clips:,} recording{plural}, {its.hours:.2f} h{days}")
    _note_left(engine, sites, recorded)


def _note_left(
    engine: Engine, sites: Sequence[Site], recorded: dict[int | None, RecordedAt]
) -> None:
    """Print which files belong to no site although something is said, and where two disagree."""
    by = found_by(engine)
    if n_unknown := by.get((None, UNKNOWN), 0):
        named = Counter(stated_name(meta) for meta in metas_found_by(engine, UNKNOWN, 1_000))
        names = ", ".join(repr(name) for name, _ in named.most_common(_SHOWN))
        note(f"{n_unknown:,} files name an unknown site in their manifest ({names}): "
             "audioset sites add")  # fmt: skip
    names_of = {site.id: site.name for site in sites}
    for (site_id, how), n in sorted(by.items(), key=lambda item: -item[1])[:50]:
        if site_id in names_of and DIFFERS in (how or ""):
            note(f"{names_of[site_id]}: {n:,} files by {how}: audioset show FILE")
    if sites and (n_placed := count_placed_nowhere(engine)):
        note(f"{n_placed:,} recordings state a place that is farther than {NEAR_KM:g} km from "
             "every site, and belong to none")  # fmt: skip
    if sites and None in recorded:
        note(f"{recorded[None].n_clips:,} recordings belong to no site")


def _absolute(rule: SiteRule) -> SiteRule:
    """The rule with its folder as paths are stored."""
    if rule.kind != FOLDER:
        return rule
    folder = os.path.abspath(os.fsencode(Path(rule.value).expanduser()))  # noqa: PTH100 (bytes)
    return replace(rule, value=path_text(folder))


def _without(site: Site, dropped: Sequence[str]) -> tuple[SiteRule, ...]:
    """The site's rules without those of these folders and serial numbers.

    Raises:
        UserError: nothing of the kind belongs to the site.
    """
    left = site.rules
    for value in dropped:
        gone = {_absolute(SiteRule(FOLDER, value)).value, value, serial_key(value)}
        n_before = len(left)
        left = tuple(r for r in left if r.value not in gone and serial_key(r.value) not in gone)
        if len(left) == n_before:
            raise UserError(
                f"{value!r} does not belong to {site.name}; {_rules(site) or 'nothing does'}"
            )
    return left


def _rules(site: Site) -> str:
    return "; ".join(f"{rule.kind} {rule.value}{_days(rule)}" for rule in site.rules)


def _days(rule: SiteRule) -> str:
    if not (rule.first_day or rule.last_day):
        return ""
    return f" {rule.first_day or ''}..{rule.last_day or ''}"


app = command_group(
    "Where recordings were made.",
    {"add": add, "list": list_, "change": change, "remove": remove},
)
