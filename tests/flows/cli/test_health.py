"""What is wrong with recordings, from files to the answer, the report and the app."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import soundfile
from sqlalchemy import text

from flows.app.application import application
from flows.app.guard import Guard
from flows.app.served import Served
from tests.flows.build import Lab, sound

RATE_HZ = 16_000


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Recordings of two recorders: one overloaded now and then, one with a dead microphone."""
    folder = tmp_path / "cards"
    folder.mkdir()
    well = sound(1, 4.0)[:, 0]
    sounds = {
        "S1_well.wav": well,
        "S1_loud.wav": np.clip(well + 2 * np.sin(np.arange(len(well)) / 12), -1, 1),
        "S2_a <b>.wav": np.stack([well, well * 1e-3], 1),
        "S2_b.wav": np.stack([sound(2, 4.0)[:, 0], np.zeros(len(well))], 1),
        "silent.wav": np.zeros(2 * RATE_HZ),
    }
    for name, samples in sounds.items():
        soundfile.write(folder / name, samples, RATE_HZ)
    return folder


def by_name(rows: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(Path(row["path"]).name, row["troubles"]) for row in rows]


@pytest.mark.slow
@pytest.mark.anyio
async def test_from_a_card_to_every_answer(
    lab: Lab, folder: Path, audioset: Callable[..., Any], tmp_path: Path
) -> None:
    home = ("--home", lab.home)
    said = audioset("label", folder, "--weights", lab.weights, *home)
    assert said.code == 0, said.err
    assert "remark: dead channel\t2" in said.out
    assert "remark: clipping\t1" in said.out
    assert "labelled in part" not in said.out
    assert "silent.wav: silent (100% of it is digital silence)" in said.err
    with lab.engine.begin() as conn:
        for serial in ("S1", "S2"):
            of_card = f"(SELECT clip_id FROM sources WHERE path_text LIKE '%/{serial}%')"
            device = f"UPDATE clips SET device = 'SM4', serial = '{serial}' WHERE id IN {of_card}"
            conn.execute(text(device))

    asked = audioset("health", "--json", *home)
    found = json.loads(asked.out)
    worst = [
        ("silent.wav", "silent, faint"), ("S2_b.wav", "dead channel"),
        ("S2_a <b>.wav", "dead channel"), ("S1_loud.wav", "clipping"),
    ]  # fmt: skip
    assert by_name(found["recordings"]) == worst
    assert (found["n_measured"], found["n_unmeasured"]) == (5, 0)
    assert found["recordings"][2]["channel_gap_db"] == pytest.approx(60, abs=0.1)
    assert {(d["serial"], d["n_clips"], d["n_troubled"]) for d in found["devices"]} == {
        ("S1", 2, 1), ("S2", 2, 2), (None, 1, 1),
    }  # fmt: skip
    rows = list(csv.DictReader(io.StringIO(audioset("health", "S2*", "--csv", *home).out)))
    assert by_name(rows) == worst[1:3]
    plain = audioset("health", *home).out
    assert "SM4\tS2\t2\t2\tdead channel 2\n" in plain
    assert "dBFS" in plain
    assert "LUFS" not in plain
    strict = audioset("health", "--threshold", "dead-channel=62", "S2*", *home).out
    assert "S2_a" not in strict
    one = audioset("health", "--limit", 1, *home)
    assert "3 more have something wrong: --limit" in one.err
    assert "nothing wrong with 1 recordings" in audioset("health", "*well.wav", *home).out
    shown = audioset("show", folder / "S1_loud.wav", *home).out
    assert "% of the samples are clipped" in shown
    assert "peak 0.0 dBFS, RMS" in shown

    out = tmp_path / "report.html"
    assert audioset("report", "-o", out, *home).code == 0
    page = out.read_text()
    app = application(Served(lab.engine, lab.home, Guard()))
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        part = (await client.get("/corpus/health")).text
    for html in (page, part):
        assert "<dt>Dead channel</dt><dd>2 <small>of 5</small></dd>" in html
        assert "S2_a &lt;b&gt;.wav" in html
        assert "<td>SM4</td><td>S2</td>" in html
    clips = dict(lab.rows("SELECT path, clip FROM health"))
    assert f'href="/clips/{clips[str(folder / "S2_b.wav")]}"' in part

    # An earlier version measured nothing: the files are read again, those that still are the same.
    with lab.engine.begin() as conn:
        conn.execute(text("DELETE FROM clip_health"))
        conn.execute(text("DELETE FROM labelling_remarks WHERE kind = 'clipping'"))
    assert (
        "5 recordings were not measured: audioset health --read-files"
        in audioset("health", *home).err
    )
    soundfile.write(folder / "S2_b.wav", np.zeros(5), RATE_HZ)
    said = audioset("health", "--read-files", "--loudness", "--json", *home)
    assert "measured 4 recordings; left out: 1 that are gone or changed" in said.err
    again = json.loads(said.out)
    assert by_name(again["recordings"]) == [worst[0], *worst[2:]]
    for each in again["recordings"]:
        before = next(old for old in found["recordings"] if old["path"] == each["path"])
        assert each | {"loudness_lufs": None} == before
    assert again["recordings"][-1]["loudness_lufs"] > -10
    assert "% of the samples are clipped" in audioset("show", folder / "S1_loud.wav", *home).out
    assert "LUFS" in audioset("show", folder / "S1_loud.wav", *home).out


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("--threshold", "clippin=1"), "unknown trouble 'clippin'; did you mean clipping?"),
        (("--threshold", "DC offset=much"),
         "--threshold 'DC offset=much': give a number, such as DC offset=0.01"),
        (("--loudness",), "--loudness decodes recordings: give --read-files as well"),
        (("",), "an empty path means no file; name a file, a folder or a glob"),
    ],
)  # fmt: skip
def test_mistakes_are_one_line(
    collection: Any, audioset: Callable[..., Any], arguments: tuple[str, ...], line: str
) -> None:
    said = audioset("health", *arguments, "--home", collection.home)
    assert (said.code, said.out) == (2, "")
    assert said.err.strip().endswith(line), said.err


def test_nothing_measured_yet(collection: Any, audioset: Callable[..., Any]) -> None:
    said = audioset("health", "--home", collection.home)
    assert said.code == 0
    assert "no labelled recording fits" in said.err
    collection.add("/a.wav", {"Siren": [0.9]})
    said = audioset("health", "--home", collection.home)
    assert "1 recordings were not measured: audioset health --read-files" in said.err
    assert os.linesep.join(said.out.splitlines()[1:]).strip() == ""
