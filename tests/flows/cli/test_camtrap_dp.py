"""``audioset export camtrap-dp``: a data package that validators and people can read."""

from __future__ import annotations

import csv
import io
import json
import re
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert, select, text, update

from audioset_core.errors import UserError
from audioset_core.export_formats.camtrap_dp import TABLES
from audioset_core.export_formats.camtrap_metadata import problems, read_metadata
from db.engine import writing
from db.judging.given import give_verdict
from db.judging.verdicts import Verdict
from db.schema.tables import clips, site_rules, sites, sources
from tests.flows.scored import NOW, Collection

Audioset = Callable[..., Any]

METADATA = {
    "title": "Dawn in the valley",
    "contributors": [{"title": "Ann Example", "role": "contact"}],
    "licenses": [
        {"name": "CC0-1.0", "scope": "data"},
        {"name": "CC-BY-4.0", "scope": "media"},
    ],
    "project": {
        "title": "Valley", "samplingDesign": "opportunistic", "captureMethod": ["timeLapse"],
    },
}  # fmt: skip
MAY_18 = 1_716_000_000_500  # 2024-05-18T02:40:00.5Z
DAY_MS = 86_400_000


@pytest.fixture
def field(collection: Collection) -> Collection:
    """Two sites, a recorder that moved, a copy; recordings without a start or a site."""
    add = collection.add
    clip = {
        "dog": add("/cards/oak/a.wav", {"Dog": [0.9, 0.2, 0.05], "Rain": [0.3, 0.3, 0.3]}),
        "quiet": add("/cards/oak/b.wav", {"Rain": [0.01, 0.01]}),
        "car": add("/cards/fen/c..d|é.wav", {"Car": [0.8], "Hiss": [0.6]}),
        "lost": add("/cards/fen/no-start.wav", {"Dog": [0.8]}),
        "elsewhere": add("/cards/attic/e.wav", {"Dog": [0.8]}),
    }
    with writing(collection.engine) as conn:
        conn.execute(
            insert(sites),
            [
                {"id": 1, "name": "Oak / ridge", "latitude_deg": 51.123456, "longitude_deg": 4.5,
                 "added_at": NOW},
                {"id": 2, "name": "Fen", "latitude_deg": 51.2, "longitude_deg": 4.7,
                 "added_at": NOW},
            ],
        )  # fmt: skip
        conn.execute(
            insert(site_rules).values(
                site_id=1,
                kind="serial",
                value="24f3",
                first_day="2024-05-01",
                last_day="2024-05-31",
            )
        )
        conn.execute(
            update(clips).values(serial="24F3", device="AudioMoth 1.2", format="WAV/PCM_16")
        )
        for name, site, start in (
            ("dog", 1, MAY_18), ("quiet", 1, MAY_18 + 30 * DAY_MS),
            ("car", 2, MAY_18 + 60 * DAY_MS), ("lost", 2, None), ("elsewhere", None, MAY_18),
        ):  # fmt: skip
            own = select(clips.c.id).where(clips.c.sha256 == clip[name])
            conn.execute(
                update(sources)
                .where(sources.c.clip_id == own.scalar_subquery())
                .values(
                    site_id=site, site_by="serial", recorded_unix_ms=start,
                    recorded_utc_offset_s=None if start is None else 7200,
                    recorded_by="name, UTC assumed" if name == "quiet" else "name, +02:00",
                )
            )  # fmt: skip
        # An older place of the first recording, in a backup that belongs to no site.
        conn.execute(
            text(
                "INSERT INTO sources (path_digest, path, path_text, size_bytes, mtime_ns, status, "
                "clip_id, first_seen_at) SELECT x'00', CAST('/backup/a.wav' AS BLOB), "
                "'/backup/a.wav', 9, 9, 'identified', id, first_seen_at FROM clips "
                "WHERE sha256 = :clip"
            ),
            {"clip": clip["dog"]},
        )
    return collection


def _clip(field: Collection, path: str) -> str:
    asked = (
        f"SELECT sha256 FROM clips JOIN sources ON clip_id = clips.id WHERE path_text = '{path}'"
    )
    return str(field.rows(asked)[0][0])


def _rows(folder: Path, table: str) -> list[dict[str, str]]:
    with (folder / f"{table}.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _observed(folder: Path) -> list[tuple[str, ...]]:
    names = ("observationType", "scientificName", "classificationMethod", "classifiedBy",
             "classificationProbability", "eventStart", "eventEnd", "observationTags")  # fmt: skip
    return [tuple(row[name] for name in names) for row in _rows(folder, "observations")]


def _export(field: Collection, audioset: Audioset, out: Path, *options: object) -> Any:
    metadata = field.home.parent / "metadata.json"
    return audioset(
        "export", "camtrap-dp", out, "--metadata", metadata, *options, "--home", field.home
    )


@pytest.fixture(autouse=True)
def metadata(tmp_path: Path) -> Path:
    path = tmp_path / "metadata.json"
    path.write_text(json.dumps(METADATA))
    return path


@pytest.mark.slow
def test_a_package_has_places_times_and_what_was_heard(
    field: Collection, audioset: Audioset, tmp_path: Path
) -> None:
    out = tmp_path / "package"
    said = _export(field, audioset, out)
    left_out = tmp_path / "package.left-out.csv"
    assert said.code == 0, said
    assert said.out == (
        f"3 recordings of 3 deployments at 2 sites; 4 observations by models, 0 by people: {out}\n"
    )
    assert said.err == (
        "left out: no site (1), no site and no start (1), no start (1); "
        f"each is named in {left_out}\n"
    ) + ("1 deployments have recordings whose time is in doubt (timestampIssues): audioset times\n")
    assert {path.name for path in out.iterdir()} == {
        "datapackage.json", *(f"{name}.csv" for name in TABLES)
    }  # fmt: skip
    assert problems(out) == []
    oak = "Oak %2F ridge/24F3"
    deployments = [
        (r["deploymentID"], r["latitude"], r["deploymentStart"], r["deploymentEnd"],
         r["cameraID"], r["timestampIssues"])
        for r in _rows(out, "deployments")
    ]  # fmt: skip
    assert deployments == [
        ("Fen/24F3", "51.2", "2024-07-17T04:40:00+02:00", "2024-07-17T04:40:02+02:00", "24F3",
         "false"),
        (oak, "51.123456", "2024-06-17T04:40:00+02:00", "2024-06-17T04:40:02+02:00", "24F3",
         "true"),
        (f"{oak}/2024-05-01 to 2024-05-31", "51.123456", "2024-05-18T04:40:00+02:00",
         "2024-05-18T04:40:03+02:00", "24F3", "false"),
    ]  # fmt: skip
    media = [
        (r["deploymentID"], r["timestamp"], r["filePath"], r["filePublic"], r["fileName"],
         r["fileMediatype"])
        for r in _rows(out, "media")
    ]  # fmt: skip
    assert media == [
        (f"{oak}/2024-05-01 to 2024-05-31", "2024-05-18T04:40:00+02:00", "media/oak/a.wav",
         "false", "a.wav", "audio/vnd.wave"),
        (oak, "2024-06-17T04:40:00+02:00", "media/oak/b.wav", "false", "b.wav", "audio/vnd.wave"),
        ("Fen/24F3", "2024-07-17T04:40:00+02:00", "media/fen/c.%2Ed|é.wav", "false", "c..d|é.wav",
         "audio/vnd.wave"),
    ]  # fmt: skip
    model = ("machine", "yamnet hand")
    dawn = ("2024-05-18T04:40:00+02:00", "2024-05-18T04:40:02+02:00")
    july = ("2024-07-17T04:40:00+02:00", "2024-07-17T04:40:02+02:00")
    assert _observed(out) == [
        ("animal", "Canis familiaris", *model, "0.9", *dawn,
         "class:Dog | mid:/m/0bt9lr | start_s:0.0 | end_s:1.44"),
        ("unknown", "", *model, "0.3", dawn[0], "2024-05-18T04:40:03+02:00",
         "class:Rain | mid:/m/06mb1 | start_s:0.0 | end_s:1.92"),
        ("vehicle", "", *model, "0.8", *july,
         "class:Car | mid:/m/0k4j | start_s:0.0 | end_s:0.96"),
        ("unknown", "", *model, "0.6", *july,
         "class:Hiss | mid:/m/07rjwbb | start_s:0.0 | end_s:0.96"),
    ]  # fmt: skip
    with left_out.open(encoding="utf-8", newline="") as file:
        assert [(row["file"], row["reason"]) for row in csv.DictReader(file)] == [
            ("/cards/fen/no-start.wav", "no start"),
            ("/cards/attic/e.wav", "no site"),
            ("/backup/a.wav", "no site and no start"),
        ]
    package = json.loads((out / "datapackage.json").read_text(encoding="utf-8"))
    assert package["temporal"] == {"start": "2024-05-18", "end": "2024-07-17"}
    assert package["spatial"]["coordinates"][0][0] == [4.5, 51.123456]
    assert package["taxonomic"] == [{"scientificName": "Canis familiaris", "taxonRank": "species"}]
    assert package["project"] == METADATA["project"] | {
        "individualAnimals": False, "observationLevel": ["media"]
    }  # fmt: skip
    assert "absence is not claimed" in package["description"]
    assert "/cards" not in "".join(path.read_text(encoding="utf-8") for path in out.iterdir())


@pytest.mark.slow
def test_verdicts_are_told_apart_from_labels(
    field: Collection, audioset: Audioset, tmp_path: Path
) -> None:
    clip = _clip(field, "/cards/oak/a.wav")
    for n, (mid, span, verdict, person) in enumerate(
        [
            ("/m/0bt9lr", (500, 1500), "present", "Ann | B"),
            ("/m/06mb1", None, "absent", "Bob"),
            ("/m/015p6", None, "present", "unknown"),
            ("/m/04rlf", None, "unsure", "Bob"),
        ]
    ):
        given = Verdict(clip, mid, span, verdict, person, NOW, f"place {n}")
        assert give_verdict(field.engine, given, NOW)
    out = tmp_path / "package"
    said = _export(field, audioset, out, "--min-score", "0.25", "--source", "oak")
    assert said.code == 0
    assert "1 observations by models, 2 by people" in said.out
    assert "detections that people judged absent (1)" in said.err
    assert "the package names who judged: Ann | B\n" in said.err
    heard = ("2024-05-18T04:40:00+02:00", "2024-05-18T04:40:02+02:00")
    tags = "class:Dog | mid:/m/0bt9lr | start_s:"
    assert _observed(out) == [
        ("animal", "Canis familiaris", "machine", "yamnet hand", "0.9", *heard,
         f"{tags}0.0 | end_s:1.44"),
        ("animal", "Aves", "human", "", "", heard[0], "2024-05-18T04:40:03+02:00",
         "class:Bird | mid:/m/015p6 | start_s:0.0 | end_s:1.92"),
        ("animal", "Canis familiaris", "human", "Ann | B", "", "2024-05-18T04:40:01+02:00",
         heard[1], f"{tags}0.5 | end_s:1.5"),
    ]  # fmt: skip
    people = tmp_path / "people"
    assert _export(field, audioset, people, "--classified-by", "human", "--under", "Dog").code == 0
    assert [row[2:4] for row in _observed(people)] == [("human", "Ann | B")]
    assert len(_rows(people, "media")) == 3  # the effort, whatever is asked for
    (tmp_path / "taxa.csv").write_text(
        "class,scientificName,taxonRank\nDog,,\nRain,Hyla  arborea,species\n"
    )
    own = tmp_path / "own"
    assert _export(field, audioset, own, "--taxa", tmp_path / "taxa.csv").code == 0
    assert ("Dog", "") in {(r["observationTags"][6:9], r["scientificName"])
                           for r in _rows(own, "observations")}  # fmt: skip


@pytest.mark.slow
def test_a_zip_file_is_the_same_each_time(
    field: Collection, audioset: Audioset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "package.ZIP"
    options = ("--precision", "0.01", "--media-url", "https://host/audio/", "--public")
    found = []
    for _ in range(2):
        assert _export(field, audioset, out, *options).code == 0
        with zipfile.ZipFile(out) as archive:
            parts = {name: archive.read(name) for name in archive.namelist()}
        package = json.loads(parts.pop("datapackage.json"))
        del package["created"]
        found.append((package, parts))
    assert found[0] == found[1]
    package, parts = found[0]
    assert package["coordinatePrecision"] == 0.01
    deployments = list(csv.DictReader(io.StringIO(parts["deployments.csv"].decode())))
    assert [(r["latitude"], r["coordinateUncertainty"]) for r in deployments[1:]] == [
        ("51.12", "788"), ("51.12", "788"),
    ]  # fmt: skip
    media = list(csv.DictReader(io.StringIO(parts["media.csv"].decode())))
    assert (media[2]["filePath"], media[2]["filePublic"]) == (
        "https://host/audio/fen/c.%2Ed%7C%C3%A9.wav", "true",
    )  # fmt: skip
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"contributors": []}, "contributors: at least 1 needed"),
        ({"contributors": [{"role": "author"}]},
         "contributors.0.title is missing; contributors.0.role: 'author' is none of contact, "),
        ({"licenses": [{"name": "CC0-1.0", "scope": "data"}]}, "licenses: at least 2 needed"),
        ({"licenses": [{"name": "CC0-1.0", "scope": "data"}, {"scope": "data"}]},
         "licenses.1: name or path is missing; licenses: none with the scope media"),
        ({"homepage": ""}, "homepage: '' is no address that begins with http:// or https://"),
        ({"name": "My data"}, "name: 'My data' is not valid"),
        ({"project": {"title": "x", "samplingDesign": "simple random",
                      "captureMethod": "timeLapse"}},
         "did you mean 'simpleRandom'?"),
        ({"project": {}}, "project.title is missing; project.samplingDesign is missing; "
                          "project.captureMethod is missing"),
    ],
)  # fmt: skip
def test_metadata_that_is_missing_or_wrong_is_named(
    tmp_path: Path, change: dict[str, Any], line: str
) -> None:
    (tmp_path / "metadata.json").write_text(json.dumps(METADATA | change))
    with pytest.raises(UserError, match=re.escape(line)):
        read_metadata(tmp_path / "metadata.json")


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (("--metadata", "none.json"), "the metadata none.json cannot be read: "),
        (("--public",), "--public needs --media-url"),
        (("--media-url", "host/audio"), "an address begins with https://"),
        (("--root", "/cards/oak"), "/cards/fen/c..d|é.wav is not below --root"),
        (("--source", "attic"), "no recording has both a site and a start"),
        (("--taxa", "metadata.json"), "row 2: no value for class"),
    ],
)
def test_what_a_person_got_wrong_is_one_line(
    field: Collection, audioset: Audioset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    options: tuple[str, ...], line: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    (tmp_path / "metadata.json").write_text(json.dumps(METADATA, indent=1))
    said = _export(field, audioset, tmp_path / "package", *options)
    assert (said.code, said.out, said.err.count("\n")) == (2, "", 1), said
    assert line in said.err
    assert not list(tmp_path.glob("package*"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("table", "old", "new", "found"),
    [
        ("media", "T04:40:00+02:00", " 04:40:00", 'field "timestamp"'),
        ("media", "media/fen/c.%2Ed", "a/../b", 'field "filePath"'),
        ("media", "media/fen/c.%2E", "/cards/fen/c.", 'field "filePath"'),
        ("media", ",audio/vnd.wave", ",WAV", 'field "fileMediatype"'),
        ("observations", ",media,animal", ",media,bird", 'field "observationType"'),
        ("deployments", "Fen/24F3", "Fen/1", "foreign key"),
        ("deployments", ",51.2,", ",95.2,", 'field "latitude"'),
        ("deployments", ",featureType", "", "featureType"),
    ],
)
def test_what_is_not_valid_is_found(
    field: Collection, audioset: Audioset, tmp_path: Path,
    table: str, old: str, new: str, found: str,
) -> None:  # fmt: skip
    out = tmp_path / "package"
    assert _export(field, audioset, out).code == 0
    path = out / f"{table}.csv"
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")
    assert found.lower() in "\n".join(problems(out) or []).lower()


@pytest.mark.slow
def test_a_package_that_was_not_finished_is_none(
    field: Collection, audioset: Audioset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "package"
    assert _export(field, audioset, out, "--source", "oak").code == 0
    before = (out / "media.csv").read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device", str(out))

    monkeypatch.setattr("flows.cli.camtrap_job.media_row", full)
    said = _export(field, audioset, out, "--overwrite")
    assert said.code != 0
    assert "No space left on device" in said.err
    assert (out / "media.csv").read_bytes() == before
    assert {path.name for path in out.iterdir()} == {f"{name}.csv" for name in TABLES}


@pytest.mark.slow
def test_without_frictionless_a_line_says_so(
    field: Collection, audioset: Audioset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "frictionless", None)
    path = tmp_path / "metadata.json"
    path.write_text(json.dumps({k: v for k, v in METADATA.items() if k != "licenses"}))
    said = _export(field, audioset, tmp_path / "package", "--source", "oak")
    assert said.code == 0
    assert said.err.endswith(
        "no licences are stated, without which GBIF takes no package\n"
        "the package was not checked: pip install 'audioset-flows[publish]'\n"
    )


@pytest.mark.slow
def test_odd_places_times_and_names_are_valid_and_an_older_package_is_metadata(
    field: Collection, audioset: Audioset, tmp_path: Path
) -> None:
    with writing(field.engine) as conn:
        conn.execute(update(sites).where(sites.c.id == 1).values(name="NA", latitude_deg=-90.0))
        conn.execute(
            update(sites).where(sites.c.id == 2).values(longitude_deg=180.0, name='"é"\n🦉')
        )
        its = update(sources).where(sources.c.path_text == "/cards/oak/b.wav")
        # Local mean time, before 1970, below a folder whose name is no text.
        odd = b"/cards/~x/.hid\xff\n/b...wav"
        conn.execute(its.values(path=odd, recorded_unix_ms=-1_500, recorded_utc_offset_s=1_208))
        conn.execute(update(clips).values(format="Monkey's Audio/ape", duration_s=0.0, serial=None))
    out = tmp_path / "package"
    said = _export(field, audioset, out, "--precision", "0.7", "--classified-by", "human")
    assert said.code == 0, said
    assert problems(out) == []
    rows = _rows(out, "deployments")
    assert [(r["deploymentID"], r["latitude"], r["longitude"]) for r in rows] == [
        ('"é" 🦉/recorder not known', "51.1", "179.9"),
        ("NA/recorder not known", "-90", "4.2"),
    ]
    assert rows[1]["deploymentStart"] == "1969-12-31T23:59:58+00:00"
    media = _rows(out, "media")
    assert media[1]["filePath"] == "media/~x/.hid%FF%0A/b.%2E.wav"
    assert media[1]["fileMediatype"] == "audio/x-monkey-s-audio"
    older = json.loads((out / "datapackage.json").read_text(encoding="utf-8"))
    (tmp_path / "metadata.json").write_text(json.dumps(older), encoding="utf-8-sig")
    assert _export(field, audioset, out, "--overwrite").code == 0
    newer = json.loads((out / "datapackage.json").read_text(encoding="utf-8"))
    assert newer["description"] == older["description"]
    assert newer["resources"] == older["resources"]
