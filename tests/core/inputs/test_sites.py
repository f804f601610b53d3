"""Which site a recording belongs to, and what people write of sites."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from audioset_core.errors import UserError
from audioset_core.inputs.coordinates import day, degrees, distance_km, place_in
from audioset_core.inputs.site_changes import StatedSite, read_sites, with_stated
from audioset_core.inputs.sites import UNKNOWN, Sites, check_sites, find_site
from audioset_core.records import Site, SiteRule

POND = Site("Pond", 52.5, 13.4, rules=(SiteRule("folder", "/data/p"),), id=1)
WOOD = Site(
    "Wood edge", 52.52, 13.4,
    rules=(
        SiteRule("folder", "/data/p/wood"),
        SiteRule("serial", "24F3", "2024-05-01", "2024-05-31"),
    ),
    id=2,
)  # fmt: skip
MOOR = Site("Moor", 47.0, 11.0, rules=(SiteRule("serial", "24f3", "2024-06-01"),), id=3)
SITES = Sites([POND, WOOD, MOOR])


@pytest.mark.parametrize(
    ("path", "says", "expected"),
    [
        ("/data/p/a.wav", {}, ("Pond", "folder")),
        ("/data/p/sub/a.wav", {}, ("Pond", "folder")),
        ("/data/p/wood/x/a.wav", {}, ("Wood edge", "folder")),
        ("/data/place/a.wav", {}, (None, None)),
        ("/data/p.wav", {}, (None, None)),
        ("/x/a.wav", {"serial": " 24F3", "day": "2024-05-31"}, ("Wood edge", "serial")),
        ("/x/a.wav", {"serial": "24f3", "day": "2024-06-01"}, ("Moor", "serial")),
        ("/x/a.wav", {"serial": "24f3", "day": "2024-04-30"}, (None, None)),
        ("/x/a.wav", {"serial": "24f3"}, (None, None)),
        ("/data/p/a.wav", {"serial": "24f3", "day": "2024-06-02"},
         ("Pond", "folder; serial differs")),
        ("/data/p/a.wav", {"meta": {"Site": "woodedge "}},
         ("Wood edge", "manifest; folder differs")),
        ("/data/p/a.wav", {"meta": {"site": "Lake"}}, (None, UNKNOWN)),
        ("/data/p/a.wav", {"meta": {"site": ""}}, ("Pond", "folder")),
        ("/x/a.wav", {"at": (52.5005, 13.4)}, ("Pond", "place")),
        ("/x/a.wav", {"at": (52.51, 13.4)}, (None, None)),  # 1.1 km from both
        ("/data/p/a.wav", {"at": (52.51, 13.4)}, ("Pond", "folder; place differs")),
        ("/data/p/a.wav", {"at": (52.5005, 13.4)}, ("Pond", "folder")),
    ],
)  # fmt: skip
def test_one_order_decides_and_who_differs_is_named(
    path: str, says: dict[str, object], expected: tuple[str | None, str | None]
) -> None:
    found = SITES.of(path, **says)  # type: ignore[arg-type]
    assert (found.site and found.site.name, found.by) == expected


@pytest.mark.parametrize(
    ("text", "of", "expected"),
    [
        ("52.5", "latitude", 52.5),
        (" 52,5 ", "latitude", 52.5),
        ("-33.9", "latitude", -33.9),
        ("\u221233,9", "latitude", -33.9),
        ("52°30'36\"N", "latitude", 52.51),
        ("52º 30\u2032 36\u2033 n", "latitude", 52.51),
        ("S 33 54", "latitude", -33.9),
        ("13°24.6'E", "longitude", 13.41),
        ("79.55W", "longitude", -79.55),
        ("180", "longitude", 180.0),
    ],
)
def test_degrees_as_people_write_them(text: str, of: str, expected: float) -> None:
    assert degrees(text, of) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(
    ("text", "of", "message"),
    [
        ("151.2", "latitude", "swapped"),
        ("13.4E", "latitude", "is a longitude: are the two swapped"),
        ("525200", "latitude", "not in -90 to 90 degrees$"),
        ("181", "longitude", "not in -180 to 180"),
        ("52°75'", "latitude", "not in"),
        ("13.4 O", "longitude", "east in German and west in French"),
        ("N52.5N", "latitude", "not understood; write it as 52.5, 52,5 or"),
        ("5820000 N 392000 E", "latitude", "not understood"),
        ("", "latitude", "not understood"),
    ],
)
def test_degrees_that_are_none(text: str, of: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        degrees(text, of)


def test_places_days_and_distances() -> None:
    for text in ("52.5,13.4", "52.5, 13.4", "52,5 13,4", "52,5;13,4", "52°30'N 13°24'E"):
        assert place_in(text) == pytest.approx((52.5, 13.4))
    for text in ("52.5", "52.5,13.4,7", "0,0"):
        with pytest.raises(UserError):
            place_in(text)
    assert {day(x) for x in ("2024-05-18", "18.5.2024", "2024/5/18", "2024-05-18T00:00:00")} == {
        "2024-05-18"
    }
    for text in ("5/18/2024", "18/05/2024", "31.02.2024", "May", "2024-05-18 04:30"):
        with pytest.raises(UserError, match="is not a day; write 2024-05-18"):
            day(text)
    # Across the antimeridian and at a pole; a quarter of the Earth's circumference.
    assert distance_km((0, 179.99), (0, -179.99)) == pytest.approx(2.2239, abs=1e-3)
    assert distance_km((90, 0), (90, 123)) == pytest.approx(0, abs=1e-9)
    assert distance_km((0, 0), (90, 0)) == pytest.approx(10_007.557, abs=0.01)


def test_sites_that_cannot_stand_beside_each_other() -> None:
    check_sites([POND, WOOD, MOOR])
    same = SiteRule("serial", "24F3", "2024-05-31", "2024-06-30")
    with pytest.raises(UserError, match=r"serial '24F3' cannot belong to Wood edge .* and Lake"):
        check_sites([WOOD, replace(POND, name="Lake", rules=(same,))])
    with pytest.raises(UserError, match="folder '/data/p' cannot belong to Pond"):
        check_sites([POND, replace(MOOR, rules=(SiteRule("folder", "/data/p", "2024-05-01"),))])
    for broken, message in (
        (replace(POND, timezone="+02:00"), "has a name, such as Europe/Berlin"),
        (replace(POND, timezone="Europe/Berln"), "nearest: Europe/Berlin"),
        (replace(POND, rules=(SiteRule("serial", "2.4E+15"),)), "spreadsheet program shortened"),
        (replace(POND, rules=(SiteRule("serial", "a", "2024-05-02", "2024-05-01"),)), "is before"),
    ):
        with pytest.raises(UserError, match=message):
            check_sites([broken])
    check_sites([replace(POND, rules=(SiteRule("serial", "24E1440361031E45"),))])


def test_an_unknown_site_names_the_nearest() -> None:
    assert find_site([POND, WOOD], " wood  EDGE") is WOOD
    with pytest.raises(UserError, match="unknown site 'Pnd'; nearest: Pond"):
        find_site([POND, WOOD], "Pnd")
    with pytest.raises(UserError, match="there are no sites yet; audioset sites add"):
        find_site([], "Pond")


def test_what_is_stated_again_adds_and_never_overwrites() -> None:
    rule = SiteRule("serial", "7")
    (added,) = with_stated([POND], StatedSite(name="pond", timezone="UTC", rules=(rule,)))
    assert added == replace(POND, timezone="UTC", rules=(*POND.rules, rule))
    assert with_stated([added], StatedSite(name="Pond", at=(52.5, 13.4), rules=(rule,))) == [added]
    for stated, message in (
        (StatedSite(name="Pond", at=(13.4, 52.5)), "'Pond' already, at 52.5, 13.4: choose another"),
        (StatedSite(name="Pond", timezone="Asia/Tokyo"), "in the time zone 'UTC'"),
        (StatedSite(name="Lake"), "the new site 'Lake' needs a latitude and a longitude"),
    ):
        with pytest.raises(UserError, match=message):
            with_stated([added], stated)


def test_a_table_of_a_german_spreadsheet(tmp_path: Path) -> None:
    table = tmp_path / "Sites.csv"
    text = (
        "Site;Latitude;Longitude;Serial number;Folder;From;Until;Habitat\n"
        "Fen;;;AM1;;01.06.2024;;wet\n\n"
        " Moor ;47,5;11,25;AM1;cards\\moor;01.05.2024;31.05.2024;wet\n"
        "Fen;48;11;;;2024-01-01;;\n"
    )
    (tmp_path / "cards" / "moor").mkdir(parents=True)
    table.write_bytes(text.encode("utf-16"))
    stated, remarks = read_sites(table)
    days = ("2024-05-01", "2024-05-31")
    folder = str(tmp_path / "cards" / "moor")
    assert stated == [
        StatedSite(name="Moor", at=(47.5, 11.25),
                   rules=(SiteRule("folder", folder, *days), SiteRule("serial", "AM1", *days))),
        StatedSite(name="Fen", at=(48, 11)),
        StatedSite(name="Fen", rules=(SiteRule("serial", "AM1", "2024-06-01"),)),
    ]  # fmt: skip
    assert remarks == [
        "Sites.csv: columns that are not read: 'Habitat'",
        "Sites.csv: 1 lines have days without folder and serial number, and these days say nothing",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lat,lon\n1,2\n", "must name a column 'name'"),
        ("name,lat,lon\nPond,52,5,13,4\n", "line 2: not 3 columns"),
        ("name,lat,lon\nPond,151.2,-33.9\n", "line 2: the latitude '151.2'.*swapped"),
        ("name,lat,lon\n ,1,2\n", "line 2: the name of a site has 1 to 200 characters"),
        ("name,lat,lon,from\n\nPond,1,2,5/6/2024\n", None),
        ("name,lat,lon,from,serial\n\nPond,1,2,5/6/2024,A\n", "line 3: '5/6/2024' is not a day"),
        ("name,lat,lon,folder\nPond,1,2,C:\\data\n", "line 2: .*Windows path"),
        ("name,lat\nPond,1\n", "line 2: a place needs both"),
    ],
)
def test_a_line_that_cannot_be_used_is_named(
    tmp_path: Path, text: str, message: str | None
) -> None:
    (tmp_path / "s.csv").write_text(text)
    if message is None:  # without folder and recorder the days say nothing
        assert read_sites(tmp_path / "s.csv")[0] == [StatedSite(name="Pond", at=(1, 2))]
        return
    with pytest.raises(UserError, match=message):
        read_sites(tmp_path / "s.csv")
