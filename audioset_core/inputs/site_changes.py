"""What a person states of sites, by options or in a table, and the sites that follow.

A table has a row for each site, or several where recorders came and went: name, latitude and
longitude, and a folder, a serial number, the first and the last day, a time zone, notes.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from audioset_core.errors import UserError
from audioset_core.inputs.coordinates import day, place
from audioset_core.inputs.delimited import open_table
from audioset_core.inputs.sites import FOLDER, SERIAL, name_key
from audioset_core.inputs.written_paths import meant_path
from audioset_core.records import Site, SiteRule

_HEADINGS = {
    "name": ("name", "site", "site_name", "site_id", "station", "location_name", "location_id"),
    "latitude": ("lat", "latitude", "latitude_deg", "decimal_latitude", "decimallatitude"),
    "longitude": ("lon", "lng", "long", "longitude", "longitude_deg", "decimal_longitude",
                  "decimallongitude"),
    "folder": ("folder", "directory", "path"),
    "serial": ("serial", "serial_number", "serial_no", "device_id", "recorder", "recorder_id"),
    "first_day": ("from", "first_day", "start", "start_date", "deployment_start", "deployed"),
    "last_day": ("until", "to", "last_day", "end", "end_date", "deployment_end", "retrieved"),
    "timezone": ("timezone", "time_zone", "tz"),
    "notes": ("notes", "note", "comment", "comments"),
}  # fmt: skip
_MOST_CHARACTERS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class StatedSite:
    """What is stated of a site; None, or no rule, where nothing is."""

    name: str
    at: tuple[float, float] | None = None
    timezone: str | None = None
    notes: str | None = None
    rules: tuple[SiteRule, ...] = ()


def clean_name(text: str) -> str:
    """A site's name on one line, without blanks around.

    Raises:
        UserError: nothing is left, or it is too long.
    """
    name = " ".join(text.split())
    if not name or len(name) > _MOST_CHARACTERS:
        raise UserError(f"the name of a site has 1 to {_MOST_CHARACTERS} characters, not {text!r}")
    return name


def stated_place(latitude: str | None, longitude: str | None) -> tuple[float, float] | None:
    """(latitude, longitude) in degrees, or None where neither is stated.

    Raises:
        UserError: only one is stated, or one is wrong.
    """
    if not latitude and not longitude:
        return None
    if not latitude or not longitude:
        raise UserError("a place needs both latitude and longitude")
    return place(latitude, longitude)


def stated_rules(
    folders: Sequence[str], serials: Sequence[str], first: str | None, last: str | None
) -> tuple[SiteRule, ...]:
    """A rule for each folder and recorder, with the days.

    Raises:
        UserError: a day is none, or belongs to no folder and no recorder.
    """
    days = (day(first) if first else None, day(last) if last else None)
    stated = [(FOLDER, each) for each in folders] + [(SERIAL, each.strip()) for each in serials]
    if any(days) and not stated:
        raise UserError("days belong to a folder or a serial number: state one of them too")
    return tuple(SiteRule(kind, value, *days) for kind, value in stated)


def read_sites(table: Path) -> tuple[list[StatedSite], list[str]]:
    """The sites that a table states, and remarks on what is not used of the table.

    Folders are relative to the table's own.

    Raises:
        UserError: the file cannot be read, or a line is not usable.
    """
    try:
        return _read(table)
    except OSError as error:
        raise UserError(f"cannot read {table}: {error.strerror}") from error
    except (UnicodeError, csv.Error) as error:
        raise UserError(
            f"{table} is not readable text (UTF-8 or UTF-16; of Excel's formats, 'CSV UTF-8' is): "
            f"{error}"
        ) from error


def with_stated(sites: Sequence[Site], stated: StatedSite) -> list[Site]:
    """The sites with one more, or with what is added to one that is there.

    Raises:
        UserError: a new site has no place, or one that is there has another than is stated.
    """
    known = next((s for s in sites if name_key(s.name) == name_key(stated.name)), None)
    if known is None:
        if stated.at is None:
            raise UserError(f"the new site {stated.name!r} needs a latitude and a longitude")
        return [*sites, Site(stated.name, *stated.at, stated.timezone, stated.notes, stated.rules)]
    its_place = (known.latitude_deg, known.longitude_deg)
    for what, now, wanted in (
        ("at", its_place, stated.at),
        ("in the time zone", known.timezone, stated.timezone),
        ("noted as", known.notes, stated.notes),
    ):
        if wanted is not None and now is not None and wanted != now:
            here = f"{now[0]:g}, {now[1]:g}" if isinstance(now, tuple) else repr(now)
            raise UserError(
                f"there is a site {known.name!r} already, {what} {here}: choose another name, or "
                f"audioset sites change"
            )
    changed = replace(
        known,
        timezone=known.timezone or stated.timezone, notes=known.notes or stated.notes,
        rules=tuple(dict.fromkeys((*known.rules, *stated.rules))),
    )  # fmt: skip
    return [changed if site is known else site for site in sites]


def _read(table: Path) -> tuple[list[StatedSite], list[str]]:
    base = os.fsencode(table.parent.absolute())
    known = {heading: field for field, names in _HEADINGS.items() for heading in names}
    with open_table(table, known.keys()) as opened:
        at = {known[h]: n for n, h in reversed(list(enumerate(opened.headings))) if h in known}
        if "name" not in at:
            raise UserError(
                f"{table.name}: the first line must name a column 'name'; {opened.described}"
            )
        found, n_idle = [], 0
        for line, cells in opened.rows:
            try:
                given = {field: cells[n].strip() for field, n in at.items()}
                found.append(_stated({k: x for k, x in given.items() if x}, base))
                has_days = given.get("first_day") or given.get("last_day")
                n_idle += bool(has_days and not found[-1].rules)
            except UserError as error:
                raise UserError(f"{table.name}, line {line}: {error}") from None
        unread = [repr(c) for n, c in enumerate(opened.columns) if c and n not in at.values()]
    remarks = [f"{table.name}: columns that are not read: {', '.join(unread)}"] if unread else []
    if n_idle:
        remarks.append(
            f"{table.name}: {n_idle:,} lines have days without folder and serial number, and these "
            "days say nothing"
        )
    # A site's place may stand in any of its rows.
    return sorted(found, key=lambda each: each.at is None), remarks


def _stated(given: dict[str, str], base: bytes) -> StatedSite:
    folder = given.get("folder")
    folders = [os.fsdecode(os.path.abspath(meant_path(folder, base)))] if folder else []  # noqa: PTH100 (bytes)
    serials = [given["serial"]] if "serial" in given else []
    days = given.get("first_day"), given.get("last_day")
    return StatedSite(
        name=clean_name(given.get("name", "")),
        at=stated_place(given.get("latitude"), given.get("longitude")),
        timezone=given.get("timezone"),
        notes=given.get("notes"),
        rules=stated_rules(folders, serials, *(days if folders or serials else (None, None))),
    )
