"""The database in sqlite3, psql and pandas."""

from __future__ import annotations

import csv
import io
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import make_url

from db.engine import open_engine
from db.migrate import ensure_schema
from flows.analysis.dataframes import open_labels
from flows.cli.commands import sql as commands_sql
from tests.flows.build import REPOSITORY
from tests.flows.collection import Collection, make_collection

Audioset = Callable[..., Any]
# Each of them means something in an address, which is how some programs name a file.
ODD = "why? 50%#3F %20 'q\""
NAMES = ("20240518_043000.wav", "20240518_203000.wav", "unknown.wav")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collection]:
    collection = make_collection(tmp_path_factory.mktemp("others") / ODD, NAMES)
    yield collection
    collection.engine.dispose()


def _run(*arguments: object, **settings: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "flows.cli.program", *map(str, arguments)],
        cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=False,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), **settings},
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("sqlite3") is None, reason="sqlite3 is not installed")
def test_sqlite3_answers_and_cannot_write(made: Collection) -> None:
    said = _run("sql", "SELECT path FROM clip_sources ORDER BY path", "--csv", "--home", made.home)
    rows = list(csv.DictReader(io.StringIO(said.stdout)))
    assert [row["path"] for row in rows] == sorted(f"/audio/{name}" for name in NAMES)
    said = _run("sql", "DELETE FROM sources", "--home", made.home)
    assert said.returncode != 0
    assert "readonly" in said.stderr


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("psql") is None, reason="psql is not installed")
def test_psql_answers_and_cannot_write(postgres_url: str) -> None:
    engine = open_engine(postgres_url)
    ensure_schema(engine)
    engine.dispose()
    said = _run("sql", "SELECT count(*) AS n FROM labels", "--csv", AUDIOSET_DB=postgres_url)
    assert said.stdout == "n\n0\n", said.stderr
    said = _run("sql", "DELETE FROM sources", AUDIOSET_DB=postgres_url)
    assert said.returncode != 0
    assert "read-only transaction" in said.stderr


def test_a_password_is_not_in_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: f"/bin/{name}")
    monkeypatch.setenv("PGOPTIONS", "-c work_mem=1MB")
    url = make_url("postgresql+psycopg://me:secret@host:5/labels?sslmode=require")
    command, environment = commands_sql._shell(url, "SELECT 1", as_csv=False)
    assert command == ["/bin/psql", "-d", "postgresql://me@host:5/labels?sslmode=require", "-c",
                       "SELECT 1"]  # fmt: skip
    assert environment["PGPASSWORD"] == "secret"
    assert environment["PGOPTIONS"] == "-c work_mem=1MB -c default_transaction_read_only=on"


def test_programs_that_are_not_there(
    audioset: Audioset, made: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    said = audioset("sql", "--home", made.home)
    assert (said.code, said.err.count("\n")) == (2, 1)
    assert "there is no sqlite3 on this machine" in said.err


def test_frames_say_what_the_commands_say(audioset: Audioset, made: Collection) -> None:
    labels = open_labels(made.home)
    for frame, command in (
        (labels.clips("Animal", min_score=0.3), ("query", "--under", "Animal", "--min-score", 0.3)),
        (
            labels.intervals(["Dog", "Siren"], min_score=0.5, paths="*.wav", order="path"),
            ("query", "--under", "Dog", "--under", "Siren", "--source", "*.wav", "--order", "path",
             "--intervals"),
        ),
        (labels.hours("class"), ("hours", "--by", "class")),
        (labels.hours("class", "Vehicle", exact=True), ("hours", "--by", "class", "--under",
                                                        "Vehicle", "--exact")),
        (labels.rank("Dog", window_s=2, top=5), ("rank", "--under", "Dog", "--window", 2, "--top",
                                                 5)),
        (labels.similar("/audio/unknown.wav", 4.0), ("similar", "/audio/unknown.wav@4.0")),
    ):  # fmt: skip
        said = audioset(*command, "--home", made.home, "--csv")
        rows = list(csv.DictReader(io.StringIO(said.out)))
        assert len(frame) == len(rows) > 0
        for column in set(frame.columns) & set(rows[0]):
            told = [
                "" if value is None or value != value else str(value) for value in frame[column]
            ]
            assert told == [row[column] for row in rows], (command, column)
    counted = labels.sql("SELECT COUNT(*) AS n FROM labels WHERE peak >= :least", least=0.5)
    assert counted["n"].tolist()[0] > 0


def test_an_empty_answer_has_its_columns(made: Collection) -> None:
    empty = open_labels(made.home).clips("Dog", min_score=1.0)
    assert empty.empty
    assert {"score", "path", "heard_at"} <= set(empty.columns)


def test_a_former_command_names_the_present_one(audioset: Audioset) -> None:
    said = audioset("browse", "--port", "8001")
    assert said.code == 2
    assert "No such command 'browse'. Did you mean 'app'?" in said.err


def test_the_shell_needs_a_query_for_csv(audioset: Audioset, made: Collection) -> None:
    said = audioset("sql", "--csv", "--home", made.home)
    assert said.code == 2
    assert "--csv is for a query" in said.err


def test_no_database_is_made_by_looking(audioset: Audioset, tmp_path: Path) -> None:
    for command in ("sql", "hours", "times"):
        assert "audioset label" in audioset(command, "--home", tmp_path / "none").err
    assert not (tmp_path / "none").exists()
