"""``audioset export``: every format from one home, with names that people and programs give."""

from __future__ import annotations

import csv
import io
import json
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes

import numpy as np
import pytest
from sqlalchemy import Engine, update

from audioset_core.export_formats.registry import FILE_FORMATS, FOLDER_FORMATS
from audioset_core.records import Detection
from audioset_core.storage.score_files import npy_bytes
from db.engine import open_engine, writing
from db.ledger.claims import commit_labellings
from db.migrate import ensure_schema
from db.records import Model
from db.schema.tables import labellings, sources
from tests.db.build import NOW, RUN, claimed, labelling, make_world
from tests.flows.build import command
from tests.flows.collection import make_collection

Audioset = Callable[..., Any]

ANIMAL, DOG, MUSIC, THING = "/m/0jbk", "/m/0bt9lr", "/m/04rlf", "/t/dd00041"
MODEL = Model(
    name="yamnet",
    version="1",
    weights_sha256="a" * 64,
    sample_rate_hz=16_000,
    window_s=0.96,
    embedding_dim=None,
    categories=((0, ANIMAL, "Animal"), (1, DOG, "Dog"), (2, MUSIC, "Music")),
)
INDEX = {mid: index for index, mid, _ in MODEL.categories}
NAMES = [
    b"day/a.wav",
    b"day/a.flac",
    b'night/"q",\t\n\xff.wav',
    b"night/../a.wav",
    b"night/%2E%2E.wav",
]


@dataclass(frozen=True)
class Home:
    folder: Path
    engine: Engine
    audio: bytes


@pytest.fixture
def home(tmp_path: Path) -> Any:
    """Five recordings: Dog in all, Music in the first."""
    folder = tmp_path / "home"
    folder.mkdir()
    engine = open_engine(f"sqlite:///{folder / 'labels.db'}")
    ensure_schema(engine)
    mids = (ANIMAL, DOG, MUSIC, THING)
    world = make_world(engine, mids, ((ANIMAL, DOG),), MODEL)
    audio = str(tmp_path / "audio").encode()
    for n, name in enumerate(NAMES):
        claim = claimed(world, name.hex(), f"/placeholder/{n}")
        intervals = [Detection(1, 2, 4, 0.9 - n / 10, 0.4, 3)]
        peaks = {DOG: 0.9 - n / 10}
        if n == 0:
            intervals, peaks = (
                [*intervals, Detection(2, 0, 0, 0.3, 0.3, 0)],
                peaks | {MUSIC: 0.3},
            )
        row = labelling(claim, name.hex(), peaks, intervals, index=INDEX)
        assert commit_labellings(engine, world.variant, [row], RUN, NOW) == [True]
        scores = folder / row.scores_path
        scores.parent.mkdir(parents=True, exist_ok=True)
        logits = np.random.default_rng(n).standard_normal((20, 3)).astype(np.float16)
        scores.write_bytes(npy_bytes(logits))
        with writing(engine) as conn:
            path = audio + b"/" + name
            readable = path.decode(errors="backslashreplace").replace("\n", "\\x0a")
            conn.execute(
                update(sources)
                .where(sources.c.path == b"/placeholder/%d" % n)
                .values(path=path, path_text=readable.replace("\t", "\\x09"))
            )
    yield Home(folder, engine, audio)
    engine.dispose()


def _files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", FOLDER_FORMATS)
def test_a_file_per_recording_below_the_folder(
    home: Home, audioset: Audioset, tmp_path: Path, name: str
) -> None:
    out = tmp_path / "out"
    said = audioset("export", name, out, "--home", home.folder)
    assert (said.code, said.err) == (0, "")
    assert said.out == f"6 detections of 5 recordings: {out}\n"
    suffix = FOLDER_FORMATS[name].suffix
    assert _files(out) == {
        f"day/a.wav{suffix}",
        f"day/a.flac{suffix}",
        f'night/"q",%09%0A%FF.wav{suffix}',
        f"night/%2E%2E/a.wav{suffix}",
        f"night/%252E%252E.wav{suffix}",
    }
    assert {path.name for path in tmp_path.iterdir()} == {"home", "out"}


@pytest.mark.parametrize("name", [*FILE_FORMATS, "label-studio"])
def test_one_file_of_all(home: Home, audioset: Audioset, tmp_path: Path, name: str) -> None:
    out = tmp_path / "new" / "out"
    said = audioset("export", name, out, "--home", home.folder, "--min-score", "0.4")
    assert said.code == 0
    assert said.out == f"5 detections of 5 recordings: {out}\n"
    assert _files(out.parent) == {"out"}
    before = out.read_bytes()
    assert audioset("export", name, out, "--home", home.folder, "--min-score", "0.4").code == 0
    assert out.read_bytes() == before


def test_csv_on_stdout_and_what_is_left_out(home: Home, audioset: Audioset) -> None:
    options = ("--under", "Animal", "--not-under", "Music")
    said = audioset("export", "csv", "-", *options, "--home", home.folder, "--min-score", "0.75")
    rows = list(csv.DictReader(io.StringIO(said.out)))
    assert [(row["name"], row["start_s"], row["end_s"]) for row in rows] == [
        ("name " + DOG, "0.96", "2.88"),
        ("name " + DOG, "0.96", "2.88"),
    ]
    assert [unquote_to_bytes(row["uri"])[7:] for row in rows] == [
        home.audio + b"/" + name for name in NAMES[:2]
    ]
    assert said.err == (
        "2 detections of 2 recordings: stdout\nleft out: 3 recordings without such a detection\n"
    )


@pytest.mark.parametrize(
    ("sources_asked", "n"),
    [
        (["audio/day"], 2),
        (["audio/day/a.wav"], 1),
        (["*.flac", "*night*"], 4),
        (["audio/*.wav"], 4),
    ],
)
def test_sources(
    home: Home,
    audioset: Audioset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    sources_asked: list[str],
    n: int,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "audio" / "day").mkdir(parents=True)
    options = [part for source in sources_asked for part in ("--source", source)]
    said = audioset("export", "dcase", "-", "--under", "Dog", *options, "--home", home.folder)
    assert len(said.out.splitlines()) == n + 1


def test_names_are_relative_to_a_root_of_ones_own(home: Home, audioset: Audioset) -> None:
    root = home.audio.decode() + "/day"
    said = audioset("export", "dcase", "-", "--root", root, "--home", home.folder)
    names = list(dict.fromkeys(row[0] for row in csv.reader(said.out.splitlines(), delimiter="\t")))
    assert names[1:3] == ["a.wav", "a.flac"]
    assert all(name.startswith("%2F/") for name in names[3:])


def test_label_studios_interface_has_the_classes_asked_for(
    home: Home, audioset: Audioset, tmp_path: Path
) -> None:
    config = tmp_path / "ls.xml"
    options = ("--under", "Animal", "--config", config, "--url-prefix", "https://host/audio/")
    said = audioset("export", "label-studio", "-", *options, "--home", home.folder)
    tasks = json.loads(said.out)
    assert [unquote_to_bytes(task["data"]["audio"]) for task in tasks] == [
        b"https://host/audio/" + name for name in NAMES
    ]
    assert f'value="name {DOG}"' in config.read_text()
    assert MUSIC not in config.read_text()


class TestSedScores:
    def test_a_table_per_recording_in_one_folder(
        self, home: Home, audioset: Audioset, tmp_path: Path
    ) -> None:
        out = tmp_path / "scores"
        said = audioset("export", "sed-scores", out, "--under", "Animal", "--home", home.folder)
        assert (said.code, said.out) == (0, f"scores of 5 recordings by yamnet: {out}\n")
        assert _files(out) == {
            "day%2Fa.tsv",
            "day%2Fa.flac.tsv",
            'night%2F"q",%09%0A%FF.tsv',
            "night%2F%2E%2E%2Fa.tsv",
            "night%2F%252E%252E.tsv",
        }
        rows = [line.split("\t") for line in (out / "day%2Fa.tsv").read_text().splitlines()]
        assert rows[0] == ["onset", "offset", f"name {ANIMAL}", f"name {DOG}"]
        assert len(rows) == 21
        logits = np.random.default_rng(0).standard_normal((20, 3)).astype(np.float16)
        expected = 1 / (1 + np.exp(-logits[:, :2].astype(np.float64)))
        np.testing.assert_allclose(np.array(rows[1:], float)[:, 2:], expected, atol=1e-6)

    def test_a_damaged_file_stops_nothing_and_is_told(
        self, home: Home, audioset: Audioset, tmp_path: Path
    ) -> None:
        with home.engine.connect() as conn:
            found = conn.execute(labellings.select().order_by(labellings.c.id)).all()
        (home.folder / found[0].scores_path).unlink()
        (home.folder / found[1].scores_path).write_bytes(b"\x93NUMPY")
        (home.folder / found[2].scores_path).write_bytes(npy_bytes(np.zeros((20, 2), "f2")))
        said = audioset("export", "sed-scores", tmp_path / "o", "--home", home.folder)
        assert said.code == 1
        assert said.out.startswith("scores of 2 recordings")
        assert said.err.count("not written: ") == said.err.count("\n") == 3
        assert len(_files(tmp_path / "o")) == 2

    def test_nothing_else_may_lie_in_the_folder(
        self, home: Home, audioset: Audioset, tmp_path: Path
    ) -> None:
        (tmp_path / "o").mkdir()
        (tmp_path / "o" / "old.tsv").touch()
        said = audioset("export", "sed-scores", tmp_path / "o", "--home", home.folder)
        assert said.code == 2
        assert "not empty" in said.err


class TestMistakes:
    def test_labels_that_may_have_been_edited_are_not_replaced(
        self, home: Home, audioset: Audioset, tmp_path: Path
    ) -> None:
        command = ("export", "audacity", tmp_path / "o", "--home", home.folder)
        assert audioset(*command).code == 0
        edited = tmp_path / "o" / "day" / "a.wav.txt"
        edited.write_text("mine")
        said = audioset(*command)
        assert (said.code, said.out) == (2, "")
        assert "--overwrite" in said.err
        assert edited.read_text() == "mine"
        assert audioset(*command, "--overwrite").code == 0
        assert edited.read_text() != "mine"

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["csv", "{dir}"], "is a folder"),
            (["label-studio", "{dir}"], "is a folder"),
            (["label-studio", "{dir}/o", "--config", "{dir}"], "is a folder"),
            (["json", "{dir}"], "is a folder"),
            (["webvtt", "{file}"], "is a file"),
            (["csv", "-", "--under", "Doge"], "Dog"),
            (["csv", "-", "--under", "Sounds of things"], "cannot predict"),
            (["csv", "-", "--min-score", "0.01"], "ask for at least 0.2"),
            (["csv", "-", "--model", "vggish"], "known models: yamnet@1"),
            (["sed-scores", "{dir}/o", "--model", "vggish"], "known models: yamnet@1"),
        ],
    )
    def test_one_clear_line(
        self, home: Home, audioset: Audioset, tmp_path: Path, arguments: list[str], message: str
    ) -> None:
        (tmp_path / "file").touch()
        places = {"dir": tmp_path, "file": tmp_path / "file"}
        said = audioset("export", *(a.format(**places) for a in arguments), "--home", home.folder)
        assert (said.code, said.out) == (2, "")
        assert said.err.count("\n") == 1
        assert message in said.err

    def test_names_below_an_address(self, home: Home, audioset: Audioset) -> None:
        with writing(home.engine) as conn:
            object_ = {"path": b"s3://bucket/day/a.wav", "path_text": "s3://bucket/day/a.wav"}
            conn.execute(update(sources).where(sources.c.id == 1).values(object_))
        said = audioset("export", "dcase", "-", "--root", "s3://bucket", "--home", home.folder)
        assert said.out.splitlines()[1].startswith("day/a.wav\t")

    def test_an_export_that_fails_leaves_the_old_file(
        self, home: Home, audioset: Audioset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        out = tmp_path / "o" / "out.csv"
        assert audioset("export", "csv", out, "--home", home.folder).code == 0
        before = out.read_bytes()

        def full(descriptor: int) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("audioset_core.storage.atomic_files.os.fsync", full)
        said = audioset("export", "csv", out, "--home", home.folder)
        assert said.code == 1
        assert "No space left" in said.err
        assert out.read_bytes() == before
        assert _files(out.parent) == {"out.csv"}


def test_every_format_is_documented() -> None:
    documented = (Path(__file__).parents[3] / "docs" / "exports.md").read_text()
    for name in ("json", "label-studio", "sed-scores", *FILE_FORMATS, *FOLDER_FORMATS):
        assert f"`{name}`" in documented


@pytest.mark.slow
def test_a_reader_that_has_seen_enough_is_no_mistake(
    environment: Mapping[str, str], tmp_path: Path
) -> None:
    """As ``audioset export csv - | head -1``; the pipe holds a part of the rows only."""
    names = tuple(f"{n:04d}.wav" for n in range(300))
    made = make_collection(tmp_path / "home", names)
    made.engine.dispose()
    with subprocess.Popen(
        command("export", "csv", "-", "--home", made.home), env=dict(environment), cwd=tmp_path,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as export:  # fmt: skip
        assert export.stdout is not None
        assert export.stderr is not None
        assert export.stdout.readline().startswith(b"path,uri,clip")
        export.stdout.close()
        assert export.stderr.read() == b""
