"""`audioset sites`, and the questions that know them."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from db.engine import writing
from db.schema.tables import clips
from flows.analysis.dataframes import open_labels
from tests.flows.collection import DURATION_S, Collection, make_collection

Audioset = Callable[..., Any]
NAMES = (
    "pond/20240518_043000.wav",
    "pond/20240519_043000.wav",
    "wood/20240518_043000.wav",
    "x.wav",
)


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Collection]:
    collection = make_collection(tmp_path / "home", NAMES)
    yield collection
    collection.engine.dispose()


@pytest.mark.slow
def test_sites_from_the_table_to_the_answer(
    audioset: Audioset, made: Collection, tmp_path: Path
) -> None:
    at = ("--home", made.home)
    every = json.loads(
        audioset("query", "--under", "Animal", "--min-score", "0", "--json", *at).out
    )
    folder = Path(next(hit["path_text"] for hit in every if "pond" in hit["path_text"])).parent
    table = tmp_path / "sites.csv"
    table.write_text(
        "Site;Lat;Lon;Folder;Time zone;From;Slope\n"
        f"Pond;52,5;13,4;{folder};Europe/Berlin;18.05.2024;steep\n"
    )
    hours = 2 * DURATION_S / 3600
    added = audioset("sites", "add", "--manifest", table, *at)
    assert added.code == 0, added
    assert added.out == f"Pond: 2 recordings, {hours:.2f} h, 2024-05-18 to 2024-05-19\n"
    assert added.err.splitlines() == [
        "2 recordings belong to no site",
        "sites.csv: columns that are not read: 'Slope'",
    ]
    again = audioset("sites", "add", "pond", "--folder", folder, "--from", "2024-05-18", *at)
    assert again.out.startswith("Pond: is like that already: 2 recordings")
    wood = audioset("sites", "add", "Wood", "--lat", "52.52", "--lon", "13.4", "--folder",
                    folder.parent / "wood", *at)  # fmt: skip
    assert wood.out == f"Wood: 1 recording, {hours / 2:.2f} h, 2024-05-18 to 2024-05-18\n"
    (listed, _) = csv.DictReader(io.StringIO(audioset("sites", "list", "--csv", *at).out))
    assert listed["rules"] == f"folder {folder} 2024-05-18.."
    assert (listed["name"], listed["n_clips"], listed["last_day"]) == ("Pond", "2", "2024-05-19")

    def sites_of(*asked: object) -> list[str | None]:
        said = audioset("query", "--under", "Animal", "--min-score", "0", "--json", *asked, *at)
        return sorted(str(hit["site"]) for hit in json.loads(said.out))

    assert sites_of() == ["None", "Pond", "Pond", "Wood"]
    assert sites_of("--site", "POND") == ["Pond", "Pond"]
    assert sites_of("--site", "Pond", "--site", "wood") == ["Pond", "Pond", "Wood"]
    assert sites_of("--near", "52.519,13.4") == ["Wood"]
    day = ("--between", "2024-05-19", "2024-05-19")
    assert sites_of("--site", "Pond", *day) == ["Pond"]
    said = audioset("query", "--under", "Animal", "--site", "Pond", *day, *at)
    assert "--between is in Europe/Berlin\n" in said.err
    assert sites_of("--near", "52°30'N 13°24'E", "--km", "3") == ["Pond", "Pond", "Wood"]
    shown = audioset("query", "--under", "Animal", "--min-score", "0", "--site", "Wood", *at)
    assert "\tsite\tclip\t" in shown.out.splitlines()[0]
    rows = list(
        csv.DictReader(io.StringIO(audioset("export", "csv", "-", "--site", "Pond", *at).out))
    )
    assert rows
    assert {(row["site"], Path(row["path"]).parent.name) for row in rows} == {("Pond", "pond")}
    said = audioset("show", folder / "20240518_043000.wav", *at).out
    assert "    site Pond: folder\n" in said
    labels = open_labels(made.home)
    frame = labels.clips("Animal", min_score=0.0, sites="pond")
    assert set(frame["site"]) == {"Pond"}
    assert frame["recorded_at"].iloc[0].utcoffset().total_seconds() == 7_200
    labels.engine.dispose()
    page = made.home / "report.html"
    assert audioset("report", "--examples", "0", "--out", page, *at).code == 0
    assert "<td>Wood</td><td>52.5200, 13.4000</td>" in page.read_text()
    asked = ("report", "--examples", "0", "--out", page, "--site", "wood", *at)
    assert audioset(*asked).code == 0
    told = page.read_text()
    assert "only what was recorded at Wood</p>" in told
    assert "<td>Pond</td>" not in told
    assert "<dt>Clips labelled</dt><dd>1</dd>" in told
    sick = json.loads(audioset("health", "--near", "52.519,13.4", "--json", *at).out)
    assert sick["n_measured"] + sick["n_unmeasured"] == 1
    for asked, message in (
        (("--site", "Pnd"), "unknown site 'Pnd'; nearest: Pond"),
        (("--near", "13.4E,52.5N"), "the latitude '13.4E' is a longitude: are the two swapped?"),
        (("--near", "52.5"), "'52.5' is not a latitude and a longitude; write 52.5,13.4"),
        (("--km", "3"), "--km needs --near LAT,LON"),
        (("--near", "52.5,13.4", "--km", "0"), "a distance of 0 km finds nothing"),
    ):
        wrong = audioset("query", "--under", "Animal", *asked, *at)
        assert (wrong.code, wrong.out) == (2, "")
        assert message in wrong.err
        assert len(wrong.err.splitlines()) == 1
    bucket = audioset("sites", "add", "Wood", "--folder", "s3://field/wood/", *at)
    assert bucket.code == 0
    rules = list(csv.DictReader(io.StringIO(audioset("sites", "list", "--csv", *at).out)))[1]
    assert "folder s3://field/wood" in rules["rules"].split("; ")
    with writing(made.engine) as conn:
        conn.execute(update(clips).where(clips.c.sha256 == every[0]["clip"]).values(serial="D0426"))
    near = audioset("sites", "add", "Wood", "--serial", "0426", *at)
    assert "Wood: no recording states serial number '0426'; nearest: D0426\n" in near.err
    moved = audioset("sites", "change", "wood", "--rename", "Moor", "--lat", "47", "--lon", "11",
                     "--timezone", "UTC", "--drop", folder.parent / "wood",
                     "--drop", "0426", *at)  # fmt: skip
    assert moved.out == "Moor: 0 recordings, 0.00 h\n"
    removed = audioset("sites", "remove", "MOOR", *at)
    assert (removed.code, removed.out) == (0, "Moor: removed\n")
    assert "2 recordings belong to no site" in removed.err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("add",), "name one site with its options, or give a table with --manifest"),
        (("add", "Pond"), "the new site 'Pond' needs a latitude and a longitude"),
        (("add", "Pond", "--lat", "52.5"), "a place needs both latitude and longitude"),
        (("add", "Pond", "--lat", "151", "--lon", "-33"), "swapped"),
        (("add", "Pond", "--lat", "1", "--lon", "2", "--from", "2024-05-01"), "days belong to"),
        (("add", "Pond", "--lat", "1", "--lon", "2", "--timezone", "Europe/Berln"), "nearest: Eu"),
        (("add", " ", "--lat", "1", "--lon", "2"), "the name of a site has 1 to 200 characters"),
        (("add", "--manifest", "/none.csv"), "cannot read /none.csv: No such file"),
        (("change", "Pond"), "say what to change: --rename, --lat"),
    ],
)
def test_a_mistake_is_one_line_and_makes_no_home(
    audioset: Audioset, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    said = audioset("sites", *arguments, "--home", tmp_path / "home")
    assert (said.code, said.out) == (2, "")
    assert message in said.err
    assert len(said.err.splitlines()) == 1
    assert not (tmp_path / "home").exists()
