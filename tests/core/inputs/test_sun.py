"""Day, dawn, dusk and night at every place: against almanacs, and over the whole globe."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from itertools import pairwise

import pytest
from astral import Observer
from astral.sun import elevation
from hypothesis import example, given
from hypothesis import strategies as st

from audioset_core.inputs.sun import CIVIL_TWILIGHT_DEG, DAY_S, SUNRISE_DEG, sun_periods

EPOCH = date(1970, 1, 1)
# A place, a day, and when in UTC a phase begins, as almanacs print it: sunrise and sunset of
# Greenwich, New York, Sydney and Stockholm (timeanddate.com; the Astronomical Applications
# Department of the U.S. Naval Observatory gives the same minutes).
ALMANAC = [
    (51.4779, 0.0, "2024-06-20", "day", "03:43"),
    (51.4779, 0.0, "2024-06-20", "dusk", "20:21"),
    (40.7128, -74.006, "2024-06-20", "day", "09:25"),
    (40.7128, -74.006, "2024-06-21", "dusk", "00:31"),
    (-33.8688, 151.2093, "2024-12-21", "day", "18:41"),
    (-33.8688, 151.2093, "2024-12-21", "dusk", "09:05"),
    (59.33, 18.07, "2024-06-21", "day", "01:31"),
    (59.33, 18.07, "2024-06-21", "dusk", "20:08"),
]


def _day(text: str) -> int:
    return (date.fromisoformat(text) - EPOCH).days


def _phases(latitude_deg: float, longitude_deg: float, day: str) -> str:
    return " ".join(phase for phase, _, _ in sun_periods(latitude_deg, longitude_deg, _day(day)))


@pytest.mark.parametrize(("latitude", "longitude", "day", "phase", "clock"), ALMANAC)
def test_almanacs(latitude: float, longitude: float, day: str, phase: str, clock: str) -> None:
    periods = sun_periods(latitude, longitude, _day(day))
    begins = [begin for name, begin, _ in periods if name == phase and begin % DAY_S]
    told = datetime.fromisoformat(f"{day}T{clock}Z").timestamp()
    assert min(abs(begin - told) for begin in begins) <= 60


@pytest.mark.parametrize(
    ("latitude", "longitude", "day", "phases"),
    [
        (69.65, 18.96, "2024-06-21", "day"),
        (69.65, 18.96, "2024-12-21", "night dawn dusk night"),  # Tromsø: twilight, no day
        (78.22, 15.65, "2024-12-21", "night"),
        (59.33, 18.07, "2024-06-21", "dawn day dusk night dawn"),
        (62.24, 25.75, "2024-06-21", "dawn day dusk dawn"),  # Jyväskylä: no night
        (-77.85, 166.67, "2024-12-21", "day"),
        (-77.85, 166.67, "2024-06-21", "night"),
        (0.0, 0.0, "2024-03-20", "night dawn day dusk night"),
        (-17.8, 178.0, "2024-06-21", "day dusk night dawn day"),
        (40.0, -179.7, "2026-08-19", "day dusk night dawn day"),
    ],
)
def test_days_that_lack_a_phase(latitude: float, longitude: float, day: str, phases: str) -> None:
    assert _phases(latitude, longitude, day) == phases


@given(st.floats(-90, 90), st.floats(-180, 180), st.integers(0, 36_500), st.integers(0, DAY_S - 1))
@example(90.0, 0.0, _day("2024-03-19"), 0)
@example(-90.0, 180.0, _day("2024-09-22"), 43_200)
@example(72.0, 0.0, _day("1970-01-28"), 43_200)  # the first day with a sun after the polar night
def test_a_day_is_tiled_and_each_moment_is_told_right(
    latitude: float, longitude: float, day: int, at_s: int
) -> None:
    periods = sun_periods(latitude, longitude, day)
    assert periods[0][1] == day * DAY_S
    assert periods[-1][2] == (day + 1) * DAY_S
    for one, other in pairwise(periods):
        assert one[2] == other[1]
        assert one[0] != other[0]
    assert all(begin < end for _, begin, end in periods)
    moment = day * DAY_S + at_s
    phase = next(name for name, begin, end in periods if begin <= moment < end)
    at = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=moment)
    height = elevation(Observer(latitude, longitude), at, with_refraction=False)
    lowest, highest = {
        "night": (-91.0, CIVIL_TWILIGHT_DEG),
        "day": (SUNRISE_DEG, 91.0),
    }.get(phase, (CIVIL_TWILIGHT_DEG, SUNRISE_DEG))
    # The sun turns a little beside noon near a pole, and moves 0.0042 degrees in a second.
    assert lowest - 0.03 <= height <= highest + 0.03
