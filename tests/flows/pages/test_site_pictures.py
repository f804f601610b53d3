"""The map of sites, and the hours of their days with the sun."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from audioset_core.records import Site
from db.catalog.sites import RecordedAt, change_sites, recorded_by_site, stored_sites
from db.catalog.start_times import SourceTime, store_times
from db.types import path_digest
from flows.pages.site_map import HEIGHT, site_map
from flows.pages.site_pictures import ROW, site_pictures
from flows.pages.timeline import WIDTH
from tests.flows.looking import NOW, SIREN, Collection

_RECTANGLE = re.compile(r"M190.00 ([\d.]+)h810.00v([\d.]+)")


def _at(
    name: str, latitude: float, longitude: float, hours: float = 1.0
) -> tuple[Site, RecordedAt]:
    return Site(name, latitude, longitude), RecordedAt(3, hours)


def test_circles_lie_where_the_sites_are_and_have_areas_of_hours() -> None:
    found = site_map(
        [_at("South", 52.0, 13.0, 4.0), _at("North", 52.1, 13.0), _at("East", 52.0, 13.1)]
    )
    assert found is not None
    by_name = {spot.name: spot for spot in found.spots}
    south, north, east = by_name["South"], by_name["North"], by_name["East"]
    assert south.radius == 2 * north.radius == 2 * east.radius
    assert north.x == south.x
    assert east.y == south.y
    # A degree of longitude is cos(52.05 degrees) times as long as one of latitude.
    assert (east.x - south.x) / (south.y - north.y) == pytest.approx(0.61497, abs=1e-4)
    km = float(found.bar_says.removesuffix(" km"))
    assert found.bar / (south.y - north.y) == pytest.approx(km / 11.1195, rel=1e-3)
    assert south.says == "South: 4.0 h, 3 clips"


def test_sites_on_both_sides_of_180_degrees_lie_together() -> None:
    found = site_map([_at("Fiji", -17.8, 178.2), _at("Taveuni", -16.8, -179.9)])
    assert found is not None
    west, east = sorted(found.spots, key=lambda spot: spot.x)
    assert (west.name, east.name) == ("Fiji", "Taveuni")
    assert {"178°E", "179°E", "180°"} == {says for _, says in found.meridians}


@pytest.mark.parametrize(
    "places",
    [
        [(0.0, 0.0)],
        [(90.0, 0.0)],
        [(-90.0, 180.0), (90.0, -180.0)],
        [(10.0, 20.0)] * 60,
        [(n - 40.0, n * 4.4 - 180.0) for n in range(80)],
    ],
)
def test_any_sites_fit_into_the_map(places: list[tuple[float, float]]) -> None:
    found = site_map([_at("a name that is much too long for a map", *place) for place in places])
    assert found is not None
    assert len(found.spots) == len(places)
    for spot in found.spots:
        assert 0 <= spot.x - spot.radius < spot.x + spot.radius <= WIDTH
        assert 0 <= spot.y - spot.radius < spot.y + spot.radius <= HEIGHT
        assert not spot.is_named or 0 < spot.name_x < WIDTH
    assert 1 <= sum(spot.is_named for spot in found.spots) <= 40
    assert 0 < found.bar <= WIDTH / 4
    assert len(found.meridians) <= 9
    assert len(found.parallels) <= 9


@given(
    longitude=st.floats(-180, 180),
    apart=st.lists(st.floats(0, 0.1), min_size=1, max_size=4),
)
@example(longitude=11.401, apart=[0.0312, 0.039])
def test_sites_of_a_valley_stay_together(longitude: float, apart: list[float]) -> None:
    """Wherever the valley lies; the distances are those of the scale, in 0.1 degrees at 48 N."""
    easts = [0.0, *apart]
    places = [(48.0, (longitude + east + 180) % 360 - 180) for east in easts]
    found = site_map([_at(str(at), *place) for at, place in enumerate(places)])
    assert found is not None
    x = [spot.x for spot in sorted(found.spots, key=lambda spot: int(spot.name))]
    number, unit = found.bar_says.split()
    px_per_km = found.bar / (float(number) / (1_000 if unit == "m" else 1))
    km = 111.195 * math.cos(math.radians(48.0)) * np.array(easts)
    np.testing.assert_allclose((np.array(x) - x[0]) / px_per_km, km, atol=1e-6)


def test_no_sites_no_map() -> None:
    assert site_map([]) is None


@pytest.mark.slow
def test_days_of_a_site_have_its_nights(tmp_path: Path) -> None:
    """Tromsø in June has none; Greenwich, on a clock of UTC+1, until 03:55 and from 22:08."""
    made = Collection(tmp_path)
    names = ("hut.wav", "city.wav", "none.wav")
    for name in names:
        made.add(tmp_path / name, 8.0, {SIREN: (0, 3, 0.9)})
    sites = [Site("Hut", 69.65, 18.96), Site("City", 51.4779, 0.0), Site("Empty", 1.0, 1.0)]
    change_sites(made.engine, lambda _: sites, NOW)
    ids = {site.name: site.id for site in stored_sites(made.engine)}
    noon_ms = 1_718_881_200_000  # 2024-06-20T11:00Z
    clocks = {"Hut": 7_200, "City": 3_600}
    store_times(
        made.engine,
        [
            SourceTime(path_digest(str(tmp_path / file).encode()), noon_ms, clocks[site], "name",
                       ids[site])
            for file, site in zip(names[:2], clocks, strict=True)
        ],
    )  # fmt: skip
    pictures = site_pictures(made.engine, recorded_by_site(made.engine))
    assert pictures is not None
    assert {spot.name for spot in pictures.map.spots} == {"Hut", "City", "Empty"}
    days = {each.name: each for each in pictures.days}
    assert set(days) == {"Hut", "City"}
    assert (days["Hut"].night, days["Hut"].twilight) == ("", "")
    night = [(float(y), float(height)) for y, height in _RECTANGLE.findall(days["City"].night)]
    assert min(y for y, _ in night) == 0.0
    assert max(y for y, _ in night) == pytest.approx((22 + 8 / 60) * ROW, abs=0.3)
    assert sum(height for _, height in night) == pytest.approx(5.78 * ROW, abs=0.3)
    assert max(y + height for y, height in night) == pytest.approx(24 * ROW, abs=0.02)
    made.engine.dispose()
