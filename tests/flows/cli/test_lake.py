"""``audioset export lake``: a Parquet copy of the results that other programs read."""

from __future__ import annotations

import ast
import json
import os
import re
import resource
import signal
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import polars
import pytest
from sqlalchemy import Engine, delete, insert, select, text, update

from audioset_core.storage.lake_files import open_lake
from db.catalog.model_registry import register_model
from db.engine import open_engine, writing
from db.judging.verdicts import Verdict, VerdictFile, store_verdicts
from db.migrate import ensure_schema
from db.records import Model, Variant
from db.reports import lake_rows
from db.schema.tables import detections, labellings, nodes, sites, sources
from db.totals.keeping import add_totals
from db.totals.recount import missing_totals
from tasks.lake.check import check_lake
from tasks.lake.update import Updated, update_lake
from tests.db.build import NOW, World, labelled, sha
from tests.db.conftest import a_database
from tests.flows.build import REPOSITORY, command
from tests.flows.collection import Collection, make_collection

pytestmark = pytest.mark.slow
Audioset = Callable[..., Any]
HOUR_MS = 3_600_000
# 2024-03-31 00:30 in Berlin, half an hour and more before its clocks went forward.
FIRST_MS = 1_711_841_400_000
NAMES = tuple(f"{n}.wav" for n in range(6))
DOCS = (REPOSITORY / "docs" / "lake.md").read_text()
QUESTIONS = re.findall(r"```sql\n(.*?)```", DOCS, re.DOTALL)


@pytest.fixture(params=["sqlite", "postgresql"])
def made(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Collection]:
    """Six recordings: four begin six hours apart from FIRST_MS on, of two nothing is known."""
    if request.param == "sqlite":
        yield from _made(tmp_path, None)
        return
    with a_database(request.getfixturevalue("postgres_server"), "template0") as url:
        yield from _made(tmp_path, url)


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Collection]:
    """The same on SQLite alone."""
    yield from _made(tmp_path, None)


def _made(tmp_path: Path, url: str | None) -> Iterator[Collection]:
    made = make_collection(tmp_path / "home", NAMES, url=url)
    for n in range(4):
        _begins(made.engine, NAMES[n], FIRST_MS + n * 6 * HOUR_MS, 3_600 if n == 0 else 7_200)
    yield made
    made.engine.dispose()


def _begins(engine: Engine, name: str, unix_ms: int, offset_s: int) -> None:
    values = {"recorded_unix_ms": unix_ms, "recorded_utc_offset_s": offset_s}
    _change(engine, update(sources).where(sources.c.path == f"/audio/{name}".encode()), **values)


def _change(engine: Engine, statement: Any, **values: Any) -> None:
    with writing(engine) as conn:
        conn.execute(statement.values(values) if values else statement)
        add_totals(conn, missing_totals(conn))


def _asked(lake: Path, question: str) -> list[tuple[Any, ...]]:
    with duckdb.connect() as conn:
        conn.execute(f"SET file_search_path = '{lake}'")
        conn.execute((lake / "views.sql").read_text())
        return conn.execute(question).fetchall()


def _files(lake: Path) -> dict[str, int]:
    return {str(path.relative_to(lake)): path.stat().st_ino for path in lake.rglob("*.parquet")}


def _written(made: Collection, lake: Path) -> set[str]:
    """The files that an update writes, with `*` for the three tables with partitions."""
    before = _files(lake)
    update_lake(made.engine, lake)
    assert check_lake(made.engine, lake)[1] == []
    after = _files(lake)
    changed = {name for name in after.keys() | before.keys() if after.get(name) != before.get(name)}
    return {
        re.sub(r"^(detections|clip_scores|labellings)/model=(.*)/.*", r"*/\2", name).split("/part")[
            0
        ]
        for name in changed
    }


def test_every_row_of_the_views_and_what_each_change_writes(
    made: Collection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = tmp_path / "lake"
    monkeypatch.setattr(lake_rows, "_PART", 7)
    assert update_lake(made.engine, lake) == Updated(12, 0, 0, 6, _count(made, "detections"), [])
    _compare(made, lake)
    assert _asked(lake, "SELECT day, count(*) FROM labellings GROUP BY day ORDER BY day") == [
        ("2024-03-31", 4), ("unknown", 2),
    ]  # fmt: skip
    assert _asked(lake, "SELECT recorded_local::VARCHAR FROM labellings ORDER BY 1 LIMIT 2") == [
        ("2024-03-31 00:30:00",), ("2024-03-31 07:30:00",),
    ]  # fmt: skip
    assert _written(made, lake) == set()

    # A recorder whose clock was a day behind: the recording changes its day.
    _begins(made.engine, NAMES[1], FIRST_MS + 30 * HOUR_MS, 7_200)
    assert _written(made, lake) == {
        "*/yamnet/day=2024-03-31", "*/yamnet/day=2024-04-01", "files"
    }  # fmt: skip
    with writing(made.engine) as conn:
        place = {"latitude_deg": 1.0, "longitude_deg": 2.0, "added_at": NOW}
        conn.execute(insert(sites).values(id=1, name="Nord, am 'See'", **place))
        conn.execute(update(sources).where(sources.c.path == b"/audio/0.wav").values(site_id=1))
    assert _written(made, lake) == {
        "*/yamnet/day=2024-03-31", "files", "sites"
    }  # fmt: skip
    assert _asked(lake, "SELECT DISTINCT site, path FROM detections WHERE site IS NOT NULL") == [
        ("Nord, am 'See'", "/audio/0.wav")
    ]
    _change(made.engine, update(sources).where(sources.c.path == b"/audio/5.wav"), status="missing")
    assert _written(made, lake) == {"*/yamnet/day=unknown", "files"}
    with made.engine.connect() as conn:
        mid = conn.execute(select(nodes.c.mid).where(nodes.c.name == "Dog")).scalar_one()
    for verdict in ("present", "withdrawn"):
        said = Verdict(sha(NAMES[0]), mid, (0, 960), verdict, "anna", NOW, verdict)
        store_verdicts(made.engine, VerdictFile("f" * 64, "v.csv", "table"), [said], NOW)
        assert _written(made, lake) == {"verdicts"}
        left = [("anna", 0.96)] if verdict == "present" else []
        assert _asked(lake, "SELECT judged_by, end_s FROM verdicts") == left

    # Another model labels one of the recordings, and its labelling takes the place of the former.
    own = _variant(made)
    other = Model("a/b=c é 100 %", "2", "b" * 64, 16_000, 0.96, None, ((0, mid, "Dog"),))
    world = World(made.engine, replace(own, model_id=register_model(made.engine, other, NOW)))
    labelled(world, NAMES[2], {mid: 0.9}, index={mid: 0})
    assert "*/a%2Fb%3Dc é 100 %25/day=2024-03-31" in _written(made, lake)
    _compare(made, lake)
    counted = "SELECT model, counts FROM labellings WHERE clip = ? ORDER BY model"
    assert _asked(lake, counted.replace("?", f"'{sha(NAMES[2])}'")) == [
        ("a/b=c é 100 %", True), ("yamnet", False),
    ]  # fmt: skip
    _change(made.engine, delete(labellings).where(labellings.c.model_id != own.model_id))
    _change(made.engine, update(labellings), is_current=True)
    assert _written(made, lake) == {
        "*/a%2Fb%3Dc é 100 %25/day=2024-03-31", "*/yamnet/day=2024-03-31"
    }  # fmt: skip
    assert not list(lake.glob("*/model=a*"))
    _compare(made, lake)


def _variant(made: Collection) -> Any:
    with made.engine.connect() as conn:
        row = conn.execute(select(labellings.c.model_id, labellings.c.parameter_set_id)).first()
    assert row is not None
    return Variant(*row)


def _count(made: Collection, table: str) -> int:
    with made.engine.connect() as conn:
        return int(conn.execute(text(f"SELECT count(*) FROM {table}")).scalar_one())


def _compare(made: Collection, lake: Path) -> None:
    """The lake says what the views say."""
    for view, columns, of in (
        ("detection_times", "clip, mid, name, start_s, end_s, peak, peak_s, model", "detections"),
        ("labels", "clip, mid, name, peak, mean, model, model_version", "clip_scores"),
    ):
        with made.engine.connect() as conn:
            expected = conn.execute(text(f"SELECT {columns} FROM {view}")).all()
        found = _asked(lake, f"SELECT {columns} FROM {of} WHERE counts")
        assert sorted(found) == sorted(map(tuple, expected))
    with made.engine.connect() as conn:
        hours = conn.execute(text("SELECT mid, hours FROM class_hours")).all()
    found = _asked(lake, "SELECT mid, sum(new_s) / 3600 FROM detections WHERE counts GROUP BY mid")
    assert dict(found) == pytest.approx(dict(tuple(row) for row in hours))


@pytest.mark.parametrize("question", QUESTIONS)
def test_the_questions_of_the_docs(asked_lake: Path, question: str) -> None:
    heard = ("'Alarm'", "'Water'", "'Rain'", "'Bird'", "'Busy signal'")
    for name in heard:
        question = question.replace(name, "'Dog'")
    question = question.replace("'Dial tone'", "'Meow'").replace("2024-05-", "2024-03-")
    question = question.replace("03-18", "03-31").replace("03-24", "04-01")
    # Some have a siren as loud as that, and some do not.
    loud = "peak >= 0.95 AND mid IN (SELECT mid FROM closure WHERE ancestor_name = 'Siren'"
    question = question.replace(loud.replace("Siren", "Music").replace("95", "3"), loud)
    question = question.replace("(3, 4)", "(0, 7)")
    assert _asked(asked_lake, question)


@pytest.fixture(scope="module")
def asked_lake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A lake of which each question of the docs finds something, at lower scores."""
    folder = tmp_path_factory.mktemp("lake")
    for made in _made(folder, None):
        with made.engine.connect() as conn:
            mid = conn.execute(select(nodes.c.mid).where(nodes.c.name == "Dog")).scalar_one()
        said = Verdict(sha(NAMES[0]), mid, None, "absent", "anna", NOW, "line 2")
        store_verdicts(made.engine, VerdictFile("f" * 64, "v.csv", "table"), [said], NOW)
        _teach(made, NAMES[0], "Car")
        update_lake(made.engine, folder / "lake")
        yield folder / "lake"


def _teach(made: Collection, recording: str, sound: str) -> None:
    """A taught model, which counts beside the current labelling, hears a sound in a recording."""
    with made.engine.connect() as conn:
        mid = conn.execute(select(nodes.c.mid).where(nodes.c.name == sound)).scalar_one()
    taught = Model("mine", "1", "b" * 64, 16_000, 0.96, None, ((0, mid, sound),), is_taught=True)
    world = World(
        made.engine, replace(_variant(made), model_id=register_model(made.engine, taught, NOW))
    )
    labelled(world, recording, {mid: 0.9}, index={mid: 0})


def test_a_recording_that_two_models_speak_for_is_one_recording(asked_lake: Path) -> None:
    counted = "SELECT model FROM labellings WHERE counts AND clip = '{}' ORDER BY model"
    assert _asked(asked_lake, counted.format(sha(NAMES[0]))) == [("mine",), ("yamnet",)]
    (share,) = (question for question in QUESTIONS if "AS share" in question)
    cars = "FROM clip_scores WHERE counts AND peak >= 0.5 AND name = 'Car'"
    (n_cars,) = _asked(asked_lake, f"SELECT count(DISTINCT clip) {cars}")[0]
    assert _asked(asked_lake, share) == [(None, 6, n_cars / 6)]
    # The current labelling knows of a siren, the taught one does not.
    (without,) = (question for question in QUESTIONS if "NOT IN" in question)
    found = _asked(
        asked_lake, without.replace("'Music'", "'Siren'").replace("peak >= 0.3", "peak >= 0.6")
    )
    sirens = _asked(asked_lake, "SELECT clip FROM clip_scores WHERE name = 'Siren' AND peak >= 0.6")
    assert (sha(NAMES[0]),) in sirens
    assert {row[2] for row in found}.isdisjoint(row[0] for row in sirens)


def test_polars_and_pandas_read_it_as_the_docs_say(asked_lake: Path) -> None:
    codes = re.findall(r"```python\n(.*?)```", DOCS, re.DOTALL)
    with_views, of_a_moment, with_polars, with_pandas = codes
    duck: dict[str, Any] = {}
    exec(
        (with_views + of_a_moment)
        .replace("'lake'", f"'{asked_lake}'")
        .replace("lake/", f"{asked_lake}/"),
        duck,
    )
    listed = "SELECT count(*) FROM read_parquet(getvariable('files'))"
    assert duck["lake"].execute(listed).fetchall() == _asked(
        asked_lake, "SELECT count(*) FROM detections"
    )
    by_day = "SELECT day, count(*), sum(new_s) FROM detections WHERE name = 'Dog' GROUP BY day"
    expected = sorted(_asked(asked_lake, by_day))
    assert [day for day, *_ in expected] == ["2024-03-31", "unknown"]
    for code, column in ((with_polars, 1), (with_pandas, 2)):
        code = code.replace("lake/", f"{asked_lake}/").replace("Rain", "Dog")
        *statements, last = ast.parse(code).body
        names: dict[str, Any] = {}
        exec(ast.unparse(statements), names)
        found = eval(ast.unparse(last), names)
        rows = found.rows() if isinstance(found, polars.DataFrame) else found.items()
        assert sorted(rows) == [(row[0], pytest.approx(row[column])) for row in expected]


def test_the_files_of_one_moment_however_many(tmp_path: Path) -> None:
    names = [
        f"detections/model=yamnet/day=unknown/part-{n}-{n:016x}.parquet" for n in range(80_000)
    ]
    told = {"n_rows": 1, "n_labellings": 1, "size_bytes": 1_000, "sha256": sha("x")}
    files = {"ledger": "x", "files": dict.fromkeys(names, told)}
    assert (tmp_path / "_lake.json").write_text(json.dumps(files, indent=1)) > 2**24
    (statement,) = re.findall(r"SET VARIABLE files.*?(?=\n\"\"\")", DOCS, re.DOTALL)
    with duckdb.connect() as conn:
        conn.execute(f"SET file_search_path = '{tmp_path}'")
        conn.execute(statement)
        assert conn.execute("SELECT len(getvariable('files'))").fetchall() == [(len(names),)]


def test_the_command(small: Collection, audioset: Audioset, tmp_path: Path) -> None:
    lake, options = tmp_path / "lake", ("--home", small.home)
    n = _count(small, "detections")
    said = audioset("export", "lake", lake, *options)
    assert (said.code, said.err) == (0, "")
    assert said.out == (
        f"{n} detections of 6 labellings: {lake}\nfiles: 12 written, 0 kept, 0 removed\n"
    )
    with open_lake(lake):
        said = audioset("export", "lake", lake, *options)
    assert (said.code, "another process is at the lake" in said.err) == (2, True)

    # Somebody damages a file, leaves a copy, and loses a row of the database.
    (damaged,) = lake.glob("labellings/*/day=unknown/*.parquet")
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"X")
    stray = lake / "detections" / "model=yamnet" / "copy.parquet"
    stray.write_bytes(b"")
    with writing(small.engine) as conn:
        of_first = delete(detections).where(detections.c.labelling_id == 1)
        conn.execute(of_first)
    said = audioset("export", "lake", lake, "--check", *options)
    assert said.code == 1
    assert said.out.splitlines()[-1] == f"12 files checked, 3 problems: {lake}"
    for line in (
        r"labellings/model=yamnet/day=unknown/part-0-.{16}.parquet\tdamaged: delete it",
        r"detections/model=yamnet/copy.parquet\tnot of this lake",
        r"detections/model=yamnet/day=2024-03-31/part-0-.*\t1 labellings have other rows",
    ):
        assert re.search(line, said.out)
    said = audioset("export", "lake", lake, *options)
    assert "not of this lake" in said.err

    other = make_collection(tmp_path / "other", ("x.wav",))
    _change(other.engine, text("UPDATE labellings SET run_id = NULL"))
    _change(other.engine, text("DELETE FROM run_items"))
    _change(other.engine, text("UPDATE runs SET id = 'another'"))
    other.engine.dispose()
    said = audioset("export", "lake", lake, "--home", tmp_path / "other")
    assert (said.code, "of another collection" in said.err) == (2, True)


def test_a_home_without_labels(tmp_path: Path) -> None:
    """Sites were stated before the first recording: there is no ontology yet."""
    engine = open_engine(f"sqlite:///{tmp_path / 'labels.db'}")
    ensure_schema(engine)
    for n_written in (6, 0):
        found = Updated(n_written, 6 - n_written, 0, 0, 0, [])
        assert update_lake(engine, tmp_path / "lake") == found
        assert check_lake(engine, tmp_path / "lake") == (6, [])
    (tmp_path / "lake" / "views.sql").write_bytes(b"-- \xe4\n")  # edited, in Latin-1
    update_lake(engine, tmp_path / "lake")
    assert "CREATE" in (tmp_path / "lake" / "views.sql").read_text()
    engine.dispose()


def test_a_full_disk(small: Collection, audioset: Audioset, tmp_path: Path) -> None:
    lake = tmp_path / "lake"
    update_lake(small.engine, lake)
    before = _files(lake)
    _begins(small.engine, NAMES[1], FIRST_MS + 30 * HOUR_MS, 7_200)

    # A limit of the system for files stands for a disk that is full.
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3_000, most))
    try:
        said = audioset("export", "lake", lake, "--home", small.home)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    assert said.code == 1
    assert re.fullmatch(r"audioset: .*File too large: '.*/lake/_next/.*'\n", said.err)
    assert _files(lake) == before
    assert not (lake / "_next").exists()
    assert audioset("export", "lake", lake, "--home", small.home).code == 0
    assert check_lake(small.engine, lake)[1] == []


def test_kill_9(small: Collection, tmp_path: Path) -> None:
    """Killed at a sync of any file or folder, again and again, until an export ends."""
    lake = tmp_path / "lake"
    update_lake(small.engine, lake)
    whole = _asked(lake, "SELECT count(*) FROM detections")
    n_killed = 0
    for n_syncs in range(0, 200, 8):
        _begins(small.engine, NAMES[1], FIRST_MS + 30 * (n_syncs % 2 + 1) * HOUR_MS, 7_200)
        setup = (
            f"import os, signal\nsync, left = os.fsync, [{n_syncs}]\n"
            "def fsync(n):\n    left[0] -= 1\n    sync(n)\n"
            "    if left[0] < 0: os.kill(os.getpid(), signal.SIGKILL)\nos.fsync = fsync"
        )
        line = command("export", "lake", lake, "--home", small.home, setup=setup)
        done = subprocess.run(
            line, cwd=REPOSITORY, capture_output=True, timeout=120, check=False,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        )  # fmt: skip
        twice = "SELECT labelling_id FROM labellings GROUP BY ALL HAVING count(*) > 1"
        assert _asked(lake, twice) == []
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL, done.stderr
        n_killed += 1
    assert n_killed > 2
    assert check_lake(small.engine, lake)[1] == []
    assert _asked(lake, "SELECT count(*) FROM detections") == whole


def test_what_was_written_before_a_stop_is_used_again(small: Collection, tmp_path: Path) -> None:
    lake = tmp_path / "lake"

    def stop(n_done: int, _: int) -> None:
        if n_done == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        update_lake(small.engine, lake, stop)
    written = {path.stat().st_ino for path in lake.rglob("*.parquet.tmp")}
    update_lake(small.engine, lake)
    assert check_lake(small.engine, lake)[1] == []
    of_one = {path.stat().st_ino for path in lake.glob("*/*/*/*.parquet")} & written
    assert len(of_one) == 3
    assert not (lake / "_next").exists()

    (lake / "_next").mkdir()  # a stop while files changed places
    (lake / "_next" / "_lake.json").write_bytes((lake / "_lake.json").read_bytes())
    between = "an export was stopped while files changed places: export again"
    assert check_lake(small.engine, lake) == (0, [("_lake.json", between)])
    update_lake(small.engine, lake)
    assert check_lake(small.engine, lake) == (12, [])
