"""The same flow on PostgreSQL; and a password in its URL goes nowhere else."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from pathlib import Path

import httpx
import pytest
from prefect.settings import PREFECT_LOCAL_STORAGE_PATH
from sqlalchemy import make_url

from tests.flows.build import Lab, run_command, write_clip

PASSWORD = "hunter2-is-secret"


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    for seed in range(5):
        write_clip(tmp_path / "a" / f"{seed}.wav", seed, 1.5 + seed / 3)
    (tmp_path / "a" / "twin.wav").write_bytes((tmp_path / "a" / "0.wav").read_bytes())
    (tmp_path / "a" / "z.wav").write_text("not audio")
    return tmp_path / "a"


@pytest.fixture
def secret_url(postgres_url: str) -> str:
    """The server trusts everybody on loopback, so that any password will do."""
    url = make_url(postgres_url).set(password=PASSWORD, drivername="postgresql")
    return url.render_as_string(hide_password=False)


def _prefects_memory(api: str) -> str:
    """All that the server stored, as text."""
    stored = []
    with httpx.Client(base_url=api, timeout=30) as client:
        for what in ("flow_runs", "task_runs", "artifacts", "logs", "variables", "block_documents"):
            answer = client.post(f"/{what}/filter", json={"limit": 200})
            answer.raise_for_status()
            stored.append(answer.text)
        answer = client.post("/events/filter", json={"limit": 50})
        stored.append(answer.raise_for_status().text)
    return "\n".join(stored)


@pytest.mark.slow
def test_the_same_rows_as_on_sqlite(lab: Lab, postgres_url: str, corpus: Path) -> None:
    lab.label(corpus)
    other = Lab(lab.home.parent / "other", postgres_url, lab.weights)
    try:
        summary = other.label(corpus)
        assert (summary.n_labelled, dict(summary.failures)) == (5, {"not audio": 1})
        assert other.results() == lab.results()
        assert other.sources() == lab.sources()
        other.check()
        again = other.label(corpus)
        assert (again.n_labelled, again.n_known, again.n_failed_before) == (0, 6, 1)
    finally:
        other.engine.dispose()


@pytest.mark.slow
def test_the_urls_password_is_nowhere(
    secret_url: str,
    corpus: Path,
    environment: Mapping[str, str],
    prefect_server: str,
    placeholder: Path,
    tmp_path: Path,
) -> None:
    home = tmp_path / "home"
    done = run_command(
        "label", corpus, "--home", home, "--db", secret_url, env=environment, cwd=tmp_path
    )
    assert done.returncode == 1, done.stderr
    assert b"labelled now\t5" in done.stdout
    lab = Lab(home, secret_url, placeholder)
    with pytest.raises(Exception, match="weights"):
        lab.label(corpus, weights=tmp_path / "none.h5")
    lab.label(corpus)
    runs = lab.rows("SELECT r::text FROM runs r")
    stored = _prefects_memory(prefect_server)
    # What a flow raises is kept in a file, whatever the settings say about results.
    for file in PREFECT_LOCAL_STORAGE_PATH.value().glob("*"):
        stored += file.read_text() + str(base64.b64decode(file.read_bytes()))
    lab.engine.dispose()
    assert len(runs) == 3
    assert "label-audio-summary" in stored
    assert "load ontology and" in stored
    for text in (done.stdout.decode(), done.stderr.decode(), json.dumps([*map(str, runs)]), stored):
        assert PASSWORD not in text


@pytest.mark.slow
def test_a_password_is_not_told_when_the_server_is_away(
    corpus: Path, environment: Mapping[str, str], tmp_path: Path
) -> None:
    url = f"postgresql://me:{PASSWORD}@127.0.0.1:9/x"
    for arguments in (["label", corpus], ["query", "--under", "Dog"], ["models"]):
        home = ("--home", tmp_path / "h")
        env = {**environment, "AUDIOSET_DB": url}
        done = run_command(*arguments, *home, env=env, cwd=tmp_path)
        assert done.returncode == 2
        assert done.stderr.decode().startswith("audioset: cannot open postgresql+psycopg://me:***@")
        assert PASSWORD not in (done.stdout + done.stderr).decode()
