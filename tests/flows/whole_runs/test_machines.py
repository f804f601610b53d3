"""Many machines: two workers, PostgreSQL for labels and for Prefect, a worker killed with -9."""

from __future__ import annotations

import copy
import json
import os
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prefect.blocks.system import Secret
from prefect.events.worker import EventsWorker
from prefect.settings import PREFECT_API_URL, temporary_settings
from pydantic import SecretStr
from sqlalchemy import make_url

from audioset_core.errors import UserError
from audioset_core.ontology.graph import load_default
from db.alerts.raised import raised_alerts
from db.alerts.rules import AlertRule, change_rules
from db.migrate import ensure_schema
from db.query.question import Question
from flows.label_audio import label_audio
from flows.prefect_server.serve import HEARTBEAT_AUTOMATION
from flows.run import pipeline
from flows.run_options import AlertOptions, ExecutionOptions
from flows.run_report.summary import Summary
from tasks.labelling.options import LabelOptions
from tests.db.build import NOW
from tests.db.conftest import new_database
from tests.flows.build import REPOSITORY, Lab, write_clip
from tests.flows.servers import (
    Process,
    Server,
    prefect,
    running_server,
    running_worker,
    wait_until,
)
from tests.flows.slow_labelling import slow_site

pytestmark = [pytest.mark.slow, pytest.mark.server, pytest.mark.timeout(600)]

N_CLIPS = 48
POOL = "audioset"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    for seed in range(N_CLIPS):
        write_clip(folder / f"{seed % 4}" / f"{seed:02d}.flac", seed, 1.0 + seed / 30)
    write_clip(folder / "long.flac", 99, 20.0)
    (folder / "bad.wav").write_text("not audio")
    return folder


@pytest.fixture(scope="module")
def alone(
    prefect_server: str, placeholder: Path, corpus: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Lab]:
    """The corpus labelled by one process."""
    home = tmp_path_factory.mktemp("alone")
    lab = Lab(home, f"sqlite:///{home / 'labels.db'}", placeholder)
    assert lab.label(corpus).n_labelled == N_CLIPS + 1
    yield lab
    lab.engine.dispose()


@pytest.fixture
def shared(postgres_server: str, placeholder: Path, tmp_path: Path) -> Iterator[Lab]:
    """A home that all machines see, and one PostgreSQL database."""
    lab = Lab(tmp_path / "home", new_database(postgres_server, "template0"), placeholder)
    ensure_schema(lab.engine)
    yield lab
    lab.engine.dispose()


@pytest.fixture
def server(postgres_server: str, tmp_path: Path, shared: Lab) -> Iterator[Server]:
    url = new_database(postgres_server, "template0").replace("+psycopg", "+asyncpg")
    site = slow_site(tmp_path / "site")
    settings = {
        # As deployments/prefect.yaml has it: the database's URL is of the machine, not of the run.
        "AUDIOSET_DB": shared.url,
        "AUDIOSET_HOME": str(shared.home),
        "AUDIOSET_ROOT": str(tmp_path / "incoming"),
        "AUDIOSET_WEIGHTS": str(shared.weights),
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
        "PYTHONPATH": f"{site}:{REPOSITORY}",
    }
    with (
        running_server(tmp_path / "server", url, **settings) as server,
        temporary_settings({PREFECT_API_URL: server.url}),
    ):
        server.post("/work_pools/", name=POOL, type="process")
        done = prefect("deploy", "--all", server=server, cwd=REPOSITORY / "deployments")
        assert done.returncode == 0, done.stdout + done.stderr
        try:
            yield server
        finally:
            # What is not delivered by now would wait for the dead server for minutes.
            EventsWorker.drain_all(timeout=10)


def _label(
    lab: Lab, corpus: Path, model: Any = "yamnet", database: str | None = None, **engine: Any
) -> Summary:
    return label_audio(
        paths=[str(corpus)],
        home=lab.home,
        options=LabelOptions(model=model),
        execution=ExecutionOptions(**{"partitions": 4, **engine}),
        database=SecretStr(database or lab.url),
    )


def _files(lab: Lab) -> dict[str, bytes]:
    root = lab.home / "scores"
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*.npy")}


def _done(lab: Lab) -> int:
    return lab.count("labellings", "status = 'done'")


def _same_as_alone(shared: Lab, alone: Lab) -> None:
    shared.check_after_a_kill()
    assert shared.results() == alone.results()
    assert _files(shared) == _files(alone)


@pytest.fixture(autouse=True)
def _weights_by_environment(monkeypatch: pytest.MonkeyPatch, placeholder: Path) -> None:
    monkeypatch.setenv("AUDIOSET_WEIGHTS", str(placeholder))


def test_two_workers_give_what_one_process_gives(
    server: Server, shared: Lab, alone: Lab, corpus: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(pipeline, "LOOK_EVERY_S", 1.0)
    asked = Question(under=(load_default().find("Animal").mid,), min_score=0.1)
    change_rules(shared.engine, lambda _: [AlertRule(name="animal", question=asked)], NOW)
    with (
        running_worker(server, tmp_path, POOL, "one", limit=1),
        running_worker(server, tmp_path, POOL, "two", limit=1),
    ):
        summary = _label(shared, corpus)
    assert (summary.n_found, summary.n_labelled, summary.n_failed) == (N_CLIPS + 2, N_CLIPS + 1, 1)
    shared.check()
    _same_as_alone(shared, alone)
    parent, *children = shared.rows("SELECT parent_id, n_labelled FROM runs ORDER BY started_at")
    assert parent[0] is None
    assert sum(r[1] for r in children) == parent[1] == N_CLIPS + 1
    assert len(children) == 4
    # The limit is the whole run's, since that asks the rules about what its parts label.
    states = Counter(alert.state for alert in raised_alerts(shared.engine))
    assert states["told"] == AlertOptions().most_sounds
    assert states == {"told": states["told"], "summed": summary.alerts["animal"].total() - 20}
    of_parts = shared.rows("SELECT summary FROM runs WHERE parent_id IS NOT NULL")
    assert [row[0]["alerts"] for row in of_parts] == [{}] * 4
    again = _label(shared, corpus)  # nothing to do: no child is started
    assert (again.n_known, again.n_labelled) == (N_CLIPS + 1, 0)
    assert shared.count("runs") == 6


def test_two_workers_label_with_two_models(
    server: Server, shared: Lab, alone: Lab, corpus: Path, tmp_path: Path
) -> None:
    """The database's password is in a Secret block; runs and their parts know the block's name."""
    both = ("yamnet", "pocket")
    with pytest.raises(UserError, match="no Secret block 'labels'; save one that holds"):
        _label(shared, corpus, database="secret:labels")
    url = make_url(shared.url).set(password="kept-by-a-block")
    Secret(value=url.render_as_string(hide_password=False)).save("labels")
    with (
        running_worker(server, tmp_path, POOL, "one", limit=1),
        running_worker(server, tmp_path, POOL, "two", limit=1),
    ):
        summary = _label(shared, corpus, model=both, database="secret:labels")
    told = json.dumps([server.post(f"/{kind}/filter") for kind in ("flow_runs", "logs")])
    assert told.count('"database": "secret:labels"') == 4
    assert "kept-by-a-block" not in told
    assert (summary.n_found, summary.n_labelled, summary.n_failed) == (N_CLIPS + 2, N_CLIPS + 1, 1)
    assert _done(shared) == 2 * (N_CLIPS + 1)
    shared.check()
    assert shared.results() == alone.results()  # YAMNet's are the current ones
    assert _files(shared).items() > _files(alone).items()
    again = _label(shared, corpus, model=both)
    assert (again.n_known, again.n_labelled) == (N_CLIPS + 1, 0)


def test_a_worker_killed_in_the_middle_costs_a_retry_not_a_clip(
    server: Server, shared: Lab, alone: Lab, corpus: Path, tmp_path: Path
) -> None:
    automation = copy.deepcopy(HEARTBEAT_AUTOMATION)
    automation["trigger"]["within"] = 45  # beats come every 30 s
    server.post("/automations/", **automation)
    with running_worker(server, tmp_path, POOL, "victim", limit=1) as victim:
        killer = threading.Thread(target=_kill_at, args=(victim, shared, 4))
        killer.start()
        with running_worker(server, tmp_path, POOL, "survivor", limit=1) as survivor:
            summary = _label(shared, corpus, partitions=2)
            killer.join()
            assert survivor.popen.poll() is None
    assert victim.popen.returncode == -signal.SIGKILL
    assert (summary.n_labelled, summary.n_failed) == (N_CLIPS + 1, 1)
    _same_as_alone(shared, alone)
    statuses = [r[0] for r in shared.rows("SELECT status FROM runs ORDER BY status")]
    assert statuses == ["completed"] * 3 + ["crashed"]


def _kill_at(worker: Process, lab: Lab, n_done: int) -> None:
    """Kill the worker and all its flow runs, as a power cut does."""

    def is_at_work() -> bool:
        own = {row[0] for row in lab.rows("SELECT pid FROM runs WHERE parent_id IS NOT NULL")}
        return len(own) == 2 and _done(lab) >= n_done

    wait_until(is_at_work, 120, 0.05)
    group = os.getpgid(worker.popen.pid)
    for pid in _descendants(worker.popen.pid):
        os.kill(pid, signal.SIGKILL)
    os.killpg(group, signal.SIGKILL)


def _descendants(pid: int) -> list[int]:
    children = [
        int(entry.name)
        for entry in Path("/proc").glob("[0-9]*")
        if (stat := _stat(entry)) and int(stat.rsplit(")", 1)[1].split()[1]) == pid
    ]
    return [*children, *(below for child in children for below in _descendants(child))]


def _stat(entry: Path) -> str:
    try:
        return (entry / "stat").read_text()
    except OSError:
        return ""


def test_a_missing_deployment_is_told(server: Server, shared: Lab, corpus: Path) -> None:
    with pytest.raises(UserError, match=r"no deployment 'label-partition/nowhere'"):
        _label(shared, corpus, partition_deployment="label-partition/nowhere")
    assert [r[0] for r in shared.rows("SELECT status FROM runs")] == ["failed"]


def test_weights_that_differ_between_machines_are_told(
    server: Server, shared: Lab, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tasks import run_partition
    from tests.flows.build import write_placeholder

    monkeypatch.setattr(run_partition.run_partition, "retries", 0)
    other = write_placeholder(tmp_path / "other.safetensors", seed=7)
    with (
        running_worker(server, tmp_path, POOL, "odd", AUDIOSET_WEIGHTS=str(other)),
        pytest.raises(run_partition.PartitionError, match="not those of the run"),
    ):
        _label(shared, corpus, partitions=1)
    assert _done(shared) == 0
