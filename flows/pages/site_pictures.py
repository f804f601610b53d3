"""Pictures of sites for a page: the map, and for each the hours of its days with the sun."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Engine

from audioset_core.inputs.sun import DAY_S, sun_periods
from audioset_core.records import Site
from db.catalog.sites import RecordedAt
from db.reports.recorded_hours import clocks_at, recorded_hours
from flows.pages.heat_map import HeatMap, heat_map
from flows.pages.site_map import SiteMap, site_map

MOST_SITES = 12
ROW = 11.0
"""Height of an hour in the picture."""


@dataclass(frozen=True, slots=True)
class SiteDays:
    """Days by hours of a site; outlines, as SVG's paths, of its nights and twilights."""

    name: str
    heat: HeatMap
    night: str
    twilight: str


@dataclass(frozen=True, slots=True)
class SitePictures:
    """The map, and the sites where most was recorded; so many others have no picture."""

    map: SiteMap
    days: tuple[SiteDays, ...]
    n_left: int


def site_pictures(
    engine: Engine, recorded: Sequence[tuple[Site, RecordedAt]]
) -> SitePictures | None:
    """None where there are no sites."""
    map_ = site_map(recorded)
    if map_ is None:
        return None
    known = sorted((each for each in recorded if each[1].first_day), key=lambda e: -e[1].hours)
    days = [_days(engine, site) for site, _ in known[:MOST_SITES]]
    return SitePictures(map_, tuple(each for each in days if each), len(known[MOST_SITES:]))


def _days(engine: Engine, site: Site) -> SiteDays | None:
    heat = heat_map(recorded_hours(engine, site.id))
    if heat is None:
        return None
    clocks = clocks_at(engine, site.id)
    outlines = {"night": "", "twilight": ""}
    for at, day in enumerate(heat.days):
        offset_s = clocks[max(0, bisect_right(clocks, (day, DAY_S)) - 1)][1]
        for phase, begin_s, end_s in _local_day(site, day, offset_s):
            if phase != "day":
                x, width = heat.left + at * heat.width, heat.width
                outlines["night" if phase == "night" else "twilight"] += (
                    f"M{x:.2f} {begin_s / 3600 * ROW:.2f}h{width:.2f}"
                    f"v{(end_s - begin_s) / 3600 * ROW:.2f}h{-width:.2f}z"
                )
    return SiteDays(site.name, heat, **outlines)


def _local_day(site: Site, day: int, offset_s: int) -> list[tuple[str, int, int]]:
    """The phases of a day on a clock with that distance from UTC, in seconds of the day."""
    begin_s = day * DAY_S - offset_s
    return [
        (phase, max(0, begin - begin_s), min(DAY_S, end - begin_s))
        for utc_day in range(begin_s // DAY_S, (begin_s + DAY_S - 1) // DAY_S + 1)
        for phase, begin, end in sun_periods(site.latitude_deg, site.longitude_deg, utc_day)
        if end > begin_s and begin < begin_s + DAY_S
    ]
