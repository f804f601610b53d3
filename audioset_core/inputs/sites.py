"""Which site a recording belongs to: by a manifest, its folder, its recorder, or its place.

`ORDER` decides; who says something else is named.
"""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from typing import Any
from zoneinfo import ZoneInfo

from audioset_core.errors import UserError
from audioset_core.inputs.coordinates import distance_km
from audioset_core.inputs.start_times import comparable_keys, find_zone
from audioset_core.records import Site, SiteRule

MANIFEST, FOLDER, SERIAL, PLACE = ORDER = ("manifest", "folder", "serial", "place")
META_KEYS = ("site", "site_name")
"""Keys of a manifest that may name the site."""

NEAR_KM = 1.0
"""A place that a recording states belongs to the nearest site within so many kilometres."""

DIFFERS = "differs"
UNKNOWN = "manifest names an unknown site"
"""Who decides where the manifest names a site that there is not: nobody else is asked."""

_SHORTENED = re.compile(r"\d([.,]\d+)?E\+\d+", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Found:
    """The site of a recording, and who says so, as `sources.site_by` has it."""

    site: Site | None = None
    by: str | None = None

    @property
    def site_id(self) -> int | None:
        """The id of the site."""
        return None if self.site is None else self.site.id


def name_key(name: str) -> str:
    """A name in the form in which names are compared: without blanks and case.

    >>> name_key(" Site  1") == name_key("site1")
    True
    """
    return "".join(unicodedata.normalize("NFC", name).split()).casefold()


def serial_key(serial: str) -> str:
    """A serial number in the form in which they are compared."""
    return "".join(serial.split()).casefold()


class Sites:
    """The sites, ready to say where many recordings were made."""

    def __init__(self, sites: Sequence[Site]) -> None:
        self._by_name = {name_key(site.name): site for site in sites}
        self._rules: defaultdict[tuple[str, str], list[tuple[SiteRule, Site]]] = defaultdict(list)
        for site in sites:
            for rule in site.rules:
                self._rules[_rule_key(rule)].append((rule, site))
        self._nearest = lru_cache(4_096)(lambda at: _nearest(at, sites))

    def of(
        self,
        path_text: str,
        meta: Mapping[str, Any] | None = None,
        *,
        serial: str | None = None,
        at: tuple[float, float] | None = None,
        day: str | None = None,
    ) -> Found:
        """The site of a recording; `at` is the (latitude, longitude) that it states, `day` the one
        on its recorder's clock, without which rules with days do not count."""
        name = stated_name(meta)
        named = self._by_name.get(name_key(name)) if name else None
        if name and named is None:
            return Found(None, UNKNOWN)
        stated = {MANIFEST: named}
        if self._rules:
            stated[FOLDER] = self._in_folder(path_text, day)
            stated[SERIAL] = self._by_rule(SERIAL, serial_key(serial), day) if serial else None
        stated[PLACE] = self._nearest(at) if at else None
        first = next((by for by in ORDER if stated.get(by)), None)
        site = stated[first] if first else None
        if first is None or site is None:
            return Found()
        differing = [by for by in (FOLDER, SERIAL) if stated.get(by) not in (None, site)]
        if at and distance_km(at, (site.latitude_deg, site.longitude_deg)) > NEAR_KM:
            differing.append(PLACE)
        return Found(site, first + "".join(f"; {by} {DIFFERS}" for by in differing))

    def _in_folder(self, path_text: str, day: str | None) -> Site | None:
        folder = path_text.rpartition("/")[0]
        while True:
            site = self._by_rule(FOLDER, folder or "/", day)
            if site is not None or not folder:
                return site
            folder = folder.rpartition("/")[0]

    def _by_rule(self, kind: str, value: str, day: str | None) -> Site | None:
        fits = (site for rule, site in self._rules.get((kind, value), ()) if _includes(rule, day))
        return next(fits, None)


def stated_name(meta: Mapping[str, Any] | None) -> str | None:
    """The name of a site that a manifest gives."""
    given = comparable_keys(meta) if meta else {}
    values = (given[key] for key in META_KEYS if isinstance(given.get(key), str | int | float))
    return next((text for value in values if (text := str(value).strip())), None)


def find_site(sites: Sequence[Site], name: str) -> Site:
    """A site by its name, whatever its case and blanks.

    Raises:
        UserError: there is none of that name; the line names the nearest.
    """
    found = next((site for site in sites if name_key(site.name) == name_key(name)), None)
    if found is not None:
        return found
    if not sites:
        raise UserError(f"unknown site {name!r}: there are no sites yet; audioset sites add")
    from difflib import get_close_matches

    by_key = {name_key(site.name): site.name for site in sites}
    close = get_close_matches(name_key(name), by_key, n=3, cutoff=0.4) or list(by_key)[:3]
    raise UserError(f"unknown site {name!r}; nearest: {', '.join(by_key[key] for key in close)}")


def check_sites(sites: Sequence[Site]) -> None:
    """Whether the sites can stand beside each other.

    Raises:
        UserError: a wrong time zone or serial number, days in the wrong order, or a folder or
            recorder that belongs to two sites at once.
    """
    rules: defaultdict[tuple[str, str], list[tuple[SiteRule, str]]] = defaultdict(list)
    for site in sites:
        if site.timezone and not isinstance(find_zone(site.timezone), ZoneInfo):
            raise UserError(
                f"{site.name}: a site's time zone has a name, such as Europe/Berlin, since its "
                f"distance from UTC ({site.timezone}) may change in summer"
            )
        for rule in site.rules:
            _check_rule(site.name, rule)
            rules[_rule_key(rule)].append((rule, site.name))
    for same in rules.values():
        for (a, of_a), (b, of_b) in combinations(same, 2):
            first, last = max(a.first_day or "", b.first_day or ""), _until(a, b)
            if not last or first <= last:
                raise UserError(
                    f"{a.kind} {a.value!r} cannot belong to {of_a} ({_days(a)}) and {of_b} "
                    f"({_days(b)}) at once: state --from and --until, which do not overlap"
                )


def _check_rule(site: str, rule: SiteRule) -> None:
    if rule.kind == SERIAL and _SHORTENED.fullmatch(rule.value):
        raise UserError(
            f"{site}: the serial number {rule.value!r} looks like one that a spreadsheet program "
            "shortened; format the column as text, and write the number again"
        )
    if rule.first_day and rule.last_day and rule.first_day > rule.last_day:
        raise UserError(f"{site}: the day {rule.last_day} is before {rule.first_day}")


def _until(a: SiteRule, b: SiteRule) -> str:
    """The earlier of the last days; empty where neither has one."""
    return min((rule.last_day for rule in (a, b) if rule.last_day), default="")


def _days(rule: SiteRule) -> str:
    if not (rule.first_day or rule.last_day):
        return "always"
    return f"{rule.first_day or ''}..{rule.last_day or ''}"


def _rule_key(rule: SiteRule) -> tuple[str, str]:
    return rule.kind, serial_key(rule.value) if rule.kind == SERIAL else rule.value


def _includes(rule: SiteRule, day: str | None) -> bool:
    if not (rule.first_day or rule.last_day):
        return True
    if day is None:
        return False
    return (rule.first_day or day) <= day <= (rule.last_day or day)


def _nearest(at: tuple[float, float], sites: Iterable[Site]) -> Site | None:
    away = [(distance_km(at, (s.latitude_deg, s.longitude_deg)), s.name, s) for s in sites]
    km, _, site = min(away, default=(NEAR_KM + 1, "", None), key=lambda each: each[:2])
    return site if km <= NEAR_KM else None
