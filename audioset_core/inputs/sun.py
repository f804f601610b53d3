"""Day, dawn, dusk and night at a place, by the height of the sun (astral).

Day: the sun's centre is above -0.833 degrees, where its upper edge is seen at the horizon (34' of
refraction and 16' of radius). Night: it is below -6 degrees, the end of civil twilight. Between
them is dawn while the sun rises, and dusk while it sinks. Where the sun stays above one of the two
heights, or below it, nothing is missing: a day without sunset is day all through, a night of
midsummer is dusk until the sun is lowest and dawn from then on, a day of the polar night that
reaches civil twilight is dawn until noon and dusk after it.

Every function of astral that looks for an event raises where there is none, and may give one of the
day before or after; so the height alone is asked, which is known at every place and time.

Source: https://aa.usno.navy.mil/faq/RST_defs (heights), https://gml.noaa.gov/grad/solcalc
(the formulas of astral; about 0.01 degrees).
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from typing import Literal

Phase = Literal["night", "dawn", "day", "dusk"]
PHASES: tuple[Phase, ...] = ("night", "dawn", "day", "dusk")

SUNRISE_DEG = -0.833
CIVIL_TWILIGHT_DEG = -6.0
DAY_S = 86_400
_EPOCH = date(1970, 1, 1)


def sun_periods(
    latitude_deg: float, longitude_deg: float, day: int
) -> list[tuple[Phase, int, int]]:
    """(phase, begin, end) of a UTC day, counted from 1970; begin and end in Unix seconds.

    The first begins with the day, the last ends with it, and each begins where the one before ends.

    >>> [(phase, end - begin) for phase, begin, end in sun_periods(78.2, 15.6, 10_957)]
    [('night', 86400)]
    """
    height = _height_deg(latitude_deg, longitude_deg, day)
    periods: list[tuple[Phase, int, int]] = []
    for begin, end in pairwise(_turns(longitude_deg, day)):
        heights = height(begin), height(end)
        cuts = [
            _crossing(height, begin, end, level)
            for level in (SUNRISE_DEG, CIVIL_TWILIGHT_DEG)
            if (heights[0] < level) != (heights[1] < level)
        ]
        for first, last in pairwise([begin, *sorted(cuts), end]):
            if first == last:
                continue
            phase = _phase(height((first + last) / 2), is_rising=heights[1] > heights[0])
            if periods and periods[-1][0] == phase:
                first = periods.pop()[1] - day * DAY_S
            periods.append((phase, day * DAY_S + first, day * DAY_S + last))
    return periods


def _phase(height_deg: float, *, is_rising: bool) -> Phase:
    if height_deg >= SUNRISE_DEG:
        return "day"
    if height_deg < CIVIL_TWILIGHT_DEG:
        return "night"
    return "dawn" if is_rising else "dusk"


def _height_deg(latitude_deg: float, longitude_deg: float, day: int) -> Callable[[float], float]:
    """The height of the sun's centre, without refraction, by seconds since the day began."""
    from astral import Observer
    from astral.sun import elevation

    observer = Observer(latitude_deg, longitude_deg)
    midnight = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(days=day)
    return lambda at_s: elevation(observer, midnight + timedelta(seconds=at_s), False)


def _turns(longitude_deg: float, day: int) -> list[int]:
    """Where the day begins and ends, and in between where the sun is highest and lowest, in s."""
    from astral import Observer
    from astral.sun import noon

    midnight = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(days=day)
    noons = [
        round((noon(Observer(0.0, longitude_deg), _EPOCH + timedelta(days=day + i)) - midnight)
              .total_seconds())
        for i in (-1, 0, 1)
    ]  # fmt: skip
    turns = sorted([*noons, *(round((a + b) / 2) for a, b in pairwise(noons))])
    return [0, *(at for at in turns if 0 < at < DAY_S), DAY_S]


def _crossing(height: Callable[[float], float], begin: int, end: int, level_deg: float) -> int:
    """The first whole second at which the height is on the other side of the level."""
    is_below = height(begin) < level_deg
    while end - begin > 1:
        middle = (begin + end) // 2
        if (height(middle) < level_deg) == is_below:
            begin = middle
        else:
            end = middle
    return end
