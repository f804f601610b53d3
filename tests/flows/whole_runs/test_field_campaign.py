"""docs/field-campaign.md as a reader tries it: every command, from the cards to the package."""

from __future__ import annotations

import csv
import io
import os
import re
import shlex
import zipfile
from collections import Counter
from pathlib import Path

import pytest

from tests.field_campaign import MOTH, PLACES, POND, write_cards
from tests.flows.build import REPOSITORY, run_command

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

PAGE = (REPOSITORY / "docs" / "field-campaign.md").read_text()
FILES = {name: re.search(pattern, PAGE, re.DOTALL)[1] for name, pattern in {
    "sites.csv": r"```\n(name;lat;.*?)```", "verdicts.csv": r"```\n(path,class.*?)```",
    "metadata.json": r"```\n(\{.*?)```",
}.items()}  # type: ignore[index]  # fmt: skip
COMMANDS = re.findall(r"^\$ audioset (.*)$", PAGE, re.MULTILINE)


class Campaign:
    """What each command of the page said, by its words."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.said: dict[str, str] = {}

    def table(self, command: str) -> list[dict[str, str]]:
        return list(csv.DictReader(io.StringIO(self.said[command]), delimiter="\t"))

    def packed(self, name: str) -> list[dict[str, str]]:
        with zipfile.ZipFile(self.folder / "october.zip") as package:
            return list(csv.DictReader(io.StringIO(package.read(name).decode())))


@pytest.fixture(scope="module")
def campaign(
    assets: Path, prefect_server: str, tmp_path_factory: pytest.TempPathFactory
) -> Campaign:
    campaign = Campaign(tmp_path_factory.mktemp("campaign"))
    write_cards(campaign.folder / "cards")
    for name, text in FILES.items():
        (campaign.folder / name).write_text(text)
    env = {
        **{name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")},
        "PYTHONPATH": str(REPOSITORY),
        "PREFECT_HOME": str(campaign.folder / "prefect"),
        "PREFECT_API_URL": prefect_server,
        "AUDIOSET_ASSETS": str(assets),
        "AUDIOSET_CACHE": str(campaign.folder / "cache"),
        "AUDIOSET_HOME": "labels",
    }
    for command in COMMANDS:
        done = run_command(*shlex.split(command), env=env, cwd=campaign.folder)
        failed = command.startswith(("label", "failures", "redact"))  # a file of the meadow
        assert done.returncode == int(failed), (command, done.stderr.decode())
        campaign.said[command] = done.stdout.decode()
    return campaign


def test_the_page_shows_what_is_printed(campaign: Campaign) -> None:
    blocks = re.findall(r"```\n(\$ .*?)```", PAGE, re.DOTALL)
    shown = [part.split("\n") for block in blocks for part in re.split(r"^\$ ", block, flags=re.M)]
    n_lines = 0
    for line, *printed in shown:
        if line.startswith("audioset "):
            said = campaign.said[line.removeprefix("audioset ")].splitlines()
            for each in filter(None, printed):
                assert each in said, line
                n_lines += 1
    assert n_lines > 15


def test_what_becomes_of_the_cards(campaign: Campaign) -> None:
    """What is broken is named; each recording is at its site and hour, also 02:30 twice."""
    (failed,) = campaign.table("failures")
    assert (failed["file"], failed["reason"]) == ("cards/meadow/20261025_063000.wav", "damaged")
    recorders = campaign.said["health"].split("\n\n")[1].splitlines()[1:]
    assert f"Wildlife Acoustics SM4\t{POND}\t4\t4\tdead channel 4" in recorders
    assert f"AudioMoth\t{MOTH}\t6\t0\t" in recorders
    sites = {row["site"]: row["recordings"] for row in campaign.table("sites list")}
    assert sites == {"Meadow": "4", "North wood": "6", "Pond": "4"}
    at_night = campaign.table("query --under Insect --min-score 0.5 --sun night")
    assert Counter(row["site"] for row in at_night) == {"Meadow": 2, "North wood": 2, "Pond": 3}
    at_pond = campaign.table("query --under Insect --min-score 0.5 --site Pond --intervals")
    assert {row["at"] for row in at_pond} == {
        "2026-10-25 00:30:19+0200", "2026-10-25 01:30:19+0200", "2026-10-25 02:30:19+0100",
    }  # fmt: skip
    for hit in at_pond:  # the sound begins a third of the way into the minute, and lasts 8 s
        begins, ends = hit["when"].split("-")
        assert abs(float(begins.partition(":")[2]) - 20) < 0.96
        assert abs(float(ends.partition(":")[2]) - 28) < 0.96


def test_the_package_holds_the_campaign(campaign: Campaign) -> None:
    stays = {row["deploymentID"]: row for row in campaign.packed("deployments.csv")}
    assert set(stays) == {f"North wood/{MOTH}", f"Pond/{POND}", "Meadow/recorder not known"}
    pond = stays[f"Pond/{POND}"]
    assert (float(pond["latitude"]), float(pond["longitude"])) == PLACES["Pond"]
    assert pond["deploymentStart"] == "2026-10-25T00:30:00+02:00"
    assert pond["deploymentEnd"] == "2026-10-25T02:31:00+01:00"
    media = campaign.packed("media.csv")
    assert Counter(row["deploymentID"].partition("/")[0] for row in media) == {
        "Meadow": 4, "North wood": 6, "Pond": 4,
    }  # fmt: skip
    assert str(campaign.folder) not in str(media)
    (judged,) = [
        row for row in campaign.packed("observations.csv") if row["classificationMethod"] == "human"
    ]
    assert (judged["classifiedBy"], judged["scientificName"]) == ("Ann Example", "Orthoptera")
    assert judged["classificationProbability"] == ""
    assert not (campaign.folder / "october.left-out.csv").exists()


def test_copies_without_voices_are_the_recordings(campaign: Campaign) -> None:
    """There is no voice on the cards; the recording that was cut has no copy."""
    copies = sorted((campaign.folder / "public").rglob("*.[wW][aA][vV]"))
    assert len(copies) == 13
    for copy in copies:
        own = campaign.folder / "cards" / copy.relative_to(campaign.folder / "public")
        assert copy.read_bytes() == own.read_bytes(), copy
    page = (campaign.folder / "report.html").read_text()
    assert all(site in page for site in PLACES)
