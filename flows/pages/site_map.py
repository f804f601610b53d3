"""Sites on a plain map for a page, without tiles: a graticule, a scale, circles of hours.

Degrees of longitude are as long as they are at the middle latitude; nothing is projected further.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from audioset_core.records import Site
from db.catalog.sites import RecordedAt
from flows.pages.render import shown_hours
from flows.pages.timeline import WIDTH

HEIGHT = 480.0
_MARGIN, _LETTER, _LINE = 90.0, 9.0, 24.0
_LEAST_SPAN_DEG = 0.01
_RADII = (4.0, 22.0)
_KM_PER_DEG = 111.195  # of latitude, on a sphere with the mean radius 6371 km
_STEPS = tuple(n * 10.0**power for power in range(-4, 3) for n in (1, 2, 5))
_MOST_LINES = 6


@dataclass(frozen=True, slots=True)
class Spot:
    """A site: its circle, and its name beside it unless another one stands there."""

    x: float
    y: float
    radius: float
    name: str
    name_x: float
    is_left: bool
    is_named: bool
    says: str


@dataclass(frozen=True, slots=True)
class SiteMap:
    """Circles whose areas are hours, lines of (position, degrees), and a bar of so many km."""

    spots: tuple[Spot, ...]
    meridians: tuple[tuple[float, str], ...]
    parallels: tuple[tuple[float, str], ...]
    bar: float
    bar_says: str


def site_map(recorded: Sequence[tuple[Site, RecordedAt]]) -> SiteMap | None:
    """Where the sites lie; None without any. Sites on both sides of 180 degrees lie together."""
    if not recorded:
        return None
    west = _west_end([site.longitude_deg for site, _ in recorded])
    easts = [(site.longitude_deg - west) % 360 for site, _ in recorded]
    norths = [site.latitude_deg for site, _ in recorded]
    middle = (max(easts) / 2, (min(norths) + max(norths)) / 2)
    narrower = max(0.02, math.cos(math.radians(middle[1])))
    spans = max(_LEAST_SPAN_DEG, max(easts) * narrower), max(_LEAST_SPAN_DEG, _range(norths))
    room = WIDTH - 2 * _MARGIN, HEIGHT - 2 * _MARGIN
    per_deg = min(room[0] / spans[0], room[1] / spans[1])

    def x(east: float) -> float:
        return WIDTH / 2 + (east - middle[0]) * narrower * per_deg

    def y(north: float) -> float:
        return HEIGHT / 2 - (north - middle[1]) * per_deg

    most = max([1e-9, *(its.hours for _, its in recorded)])
    spots: list[Spot] = []
    taken: list[tuple[float, float, float]] = []
    by_hours = sorted(zip(recorded, easts, strict=True), key=lambda each: -each[0][1].hours)
    for (site, its), east in by_hours:
        at = x(east), y(site.latitude_deg)
        radius = max(_RADII[0], _RADII[1] * math.sqrt(its.hours / most))
        name = site.name if len(site.name) <= 24 else f"{site.name[:23]}…"
        length, is_left = _LETTER * len(name), at[0] > WIDTH * 0.7
        name_x = at[0] - radius - 4 if is_left else at[0] + radius + 4
        label = name_x - length * is_left, at[1], length
        is_named = not any(_meet(label, other) for other in taken)
        if is_named:
            taken.append(label)
        says = f"{site.name}: {shown_hours(its.hours)}, {its.n_clips:,} clips"
        spots.append(Spot(*at, radius, name, name_x, is_left, is_named, says))
    km = max(
        step for step in (*_STEPS, 1_000, 2_000, 5_000)
        if step / _KM_PER_DEG * per_deg <= WIDTH / 4 or step == _STEPS[0]
    )  # fmt: skip
    bar_says = f"{km:,g} km" if km >= 1 else f"{km * 1000:g} m"
    return SiteMap(
        tuple(spots),
        tuple((x(at - west), _degrees(at, "E", "W"))
              for at in _lines(west + middle[0], WIDTH / 2 / per_deg / narrower)),
        tuple((y(at), _degrees(at, "N", "S"))
              for at in _lines(middle[1], HEIGHT / 2 / per_deg) if abs(at) <= 90),
        km / _KM_PER_DEG * per_deg, bar_says,
    )  # fmt: skip


def _west_end(longitudes: Sequence[float]) -> float:
    """The longitude east of the widest gap: one of those given, to the bit."""
    around = sorted(set(longitudes))
    gaps = [(other - one, other) for one, other in pairwise(around)]
    return max([*gaps, (around[0] + 360 - around[-1], around[0])])[1]


def _range(values: Sequence[float]) -> float:
    return max(values) - min(values)


def _lines(middle: float, half: float) -> list[float]:
    """Round degrees on both sides of the middle."""
    step = next((step for step in _STEPS if step >= 2 * half / _MOST_LINES), 90.0)
    first, last = math.ceil((middle - half) / step), math.floor((middle + half) / step)
    return [n * step for n in range(first, last + 1)]


def _degrees(at: float, positive: str, negative: str) -> str:
    at = (at + 180) % 360 - 180 if positive == "E" else at
    at = round(at, 6)
    return f"{abs(at):g}°{(positive if at > 0 else negative) * (at not in (0, -180))}"


def _meet(one: tuple[float, float, float], other: tuple[float, float, float]) -> bool:
    is_beside = one[0] < other[0] + other[2] and other[0] < one[0] + one[2]
    return is_beside and abs(one[1] - other[1]) < _LINE
