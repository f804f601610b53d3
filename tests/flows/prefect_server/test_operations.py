"""As an operator runs it: a real server, the deployments of prefect.yaml, a worker, a schedule."""

from __future__ import annotations

import copy
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from db.migrate import ensure_schema
from flows.prefect_server.serve import HEARTBEAT_AUTOMATION
from tests.db.conftest import new_database
from tests.flows.build import REPOSITORY, Lab, write_clip
from tests.flows.servers import (
    Process,
    Server,
    ask,
    prefect,
    running_server,
    running_worker,
    wait_until,
)
from tests.flows.slow_labelling import slow_site

pytestmark = [pytest.mark.slow, pytest.mark.server, pytest.mark.timeout(600)]

N_CLIPS = 40


@dataclass(frozen=True)
class Site:
    """An operator's installation."""

    server: Server
    worker: Process
    lab: Lab
    root: Path

    def runs(self, flow: str) -> list[Any]:
        """Its flow runs, oldest first."""
        return self.server.post(  # type: ignore[no-any-return]
            "/flow_runs/filter",
            flows={"name": {"any_": [flow]}},
            flow_runs={"state": {"type": {"not_any_": ["SCHEDULED"]}}},
            sort="START_TIME_ASC",
        )

    def artifacts(self, run_id: str) -> dict[str, Any]:
        found = self.server.post("/artifacts/filter", artifacts={"flow_run_id": {"any_": [run_id]}})
        return {artifact["key"]: artifact for artifact in found}

    def done(self) -> int:
        return self.lab.count("labellings", "status = 'done'")


@pytest.fixture(params=["sqlite", "postgresql"])
def labels_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'home' / 'labels.db'}"
    return new_database(request.getfixturevalue("postgres_server"), "template0")


@pytest.fixture
def site(labels_url: str, placeholder: Path, tmp_path: Path) -> Iterator[Site]:
    lab, root = Lab(tmp_path / "home", labels_url, placeholder), tmp_path / "recordings"
    root.mkdir()
    lab.home.mkdir(exist_ok=True)
    ensure_schema(lab.engine)
    settings = {
        "AUDIOSET_DB": labels_url,
        "AUDIOSET_HOME": str(lab.home),
        "AUDIOSET_ROOT": str(root),
        "AUDIOSET_WEIGHTS": str(placeholder),
        "PYTHONPATH": f"{slow_site(tmp_path / 'site')}:{REPOSITORY}",
    }
    with running_server(tmp_path / "server", **settings) as server:
        server.post("/work_pools/", name="audioset", type="process")
        done = prefect("deploy", "--all", server=server, cwd=REPOSITORY / "deployments")
        assert done.returncode == 0, done.stdout + done.stderr
        with running_worker(server, tmp_path) as worker:
            yield Site(server, worker, lab, root)
    lab.engine.dispose()


def _every(site: Site, seconds: int) -> None:
    """Have the schedule fire more often than a person would, and wait less for files."""
    deployment = site.server.deployment("ingest-new/scheduled")
    for schedule in deployment["schedules"]:
        _ask(site, "DELETE", f"/deployments/{deployment['id']}/schedules/{schedule['id']}")
    parameters = {**deployment["parameters"], "watch": {"settle_s": 1}}
    _ask(site, "PATCH", f"/deployments/{deployment['id']}", {"parameters": parameters})
    schedule = {"schedule": {"interval": seconds}, "active": True}
    _ask(site, "POST", f"/deployments/{deployment['id']}/schedules", [schedule])


def _ask(site: Site, method: str, path: str, body: Any = None) -> Any:
    return ask(site.server.url, method, path, body)


def test_a_schedule_labels_what_is_dropped_between_two_firings(site: Site) -> None:
    write_clip(site.root / "first.flac", 1)
    _every(site, 12)
    wait_until(lambda: site.done() == 1, 120, what=lambda: site.worker.said[-3000:])
    (site.root / "bad.wav").write_text("not audio")
    write_clip(site.root / "second.flac", 2)
    wait_until(lambda: site.done() == 2, 120, what=lambda: site.worker.said[-3000:])
    wait_until(lambda: site.lab.count("failures") == 1, 60)
    (site.root / "first.flac").unlink()
    wait_until(lambda: site.lab.sources()["first.flac"][0] == "missing", 60)
    labelled = site.lab.rows("SELECT run_id FROM labellings")
    assert len({row[0] for row in labelled}) == 2
    fired = [run for run in site.runs("ingest-new") if run["state_type"] == "COMPLETED"]
    assert len(fired) >= 2
    assert {run["created_by"]["type"] for run in fired} == {"SCHEDULE"}
    assert all(run["name"].startswith("ingest 20") for run in fired)
    pages = site.artifacts(_of_run(site, labelled[1][0]))
    assert set(pages) >= {"ingest-new-progress", "ingest-new-summary"}
    assert pages["ingest-new-progress"]["data"] == 100.0
    assert "| labelled now | 1 " in pages["ingest-new-summary"]["data"]


def _of_run(site: Site, run_id: str) -> str:
    query = "SELECT flow_run_id FROM runs WHERE id = :run_id"
    return str(site.lab.rows(query, run_id=run_id)[0][0])


def _corpus(site: Site) -> None:
    for seed in range(N_CLIPS):
        write_clip(site.root / f"{seed:02d}.flac", seed, 1.0 + seed / 30)


def _label(site: Site) -> str:
    return site.server.trigger("label-audio/ad-hoc", paths=[str(site.root)])


def _statuses(site: Site) -> list[str]:
    return [r[0] for r in site.lab.rows("SELECT status FROM runs ORDER BY started_at")]


def _pid(site: Site) -> int:
    return int(site.lab.rows("SELECT pid FROM runs WHERE status = 'running'")[0][0])


@pytest.mark.parametrize("labels_url", ["sqlite"], indirect=True)
def test_a_run_cancelled_in_the_ui_stops_within_seconds_and_the_next_goes_on(site: Site) -> None:
    _corpus(site)
    run = _label(site)
    wait_until(lambda: site.done() >= 5, 120, 0.05, what=lambda: site.worker.said[-3000:])
    site.server.post(
        f"/flow_runs/{run}/set_state", state={"type": "CANCELLING", "name": "Cancelling"}
    )
    # The work stops, and says so, within seconds; Prefect knows when the process has ended.
    wait_until(lambda: _statuses(site) == ["cancelled"], 15, 0.1, what=site.worker.said[-3000:])
    wait_until(lambda: site.server.state(run) == "CANCELLED", 60, 0.1)
    kept = site.done()
    assert 5 <= kept < N_CLIPS
    assert site.lab.count("labellings", "status <> 'done'") == 0
    again = _label(site)
    wait_until(lambda: site.server.state(again) == "COMPLETED", 120)
    assert site.done() == N_CLIPS
    assert [r[0] for r in site.lab.rows("SELECT n_labelled FROM runs ORDER BY started_at")] == [
        kept,
        N_CLIPS - kept,
    ]
    site.lab.check()


@pytest.mark.parametrize("labels_url", ["sqlite"], indirect=True)
def test_a_killed_run_is_recognised_and_the_schedule_goes_on(site: Site) -> None:
    automation = copy.deepcopy(HEARTBEAT_AUTOMATION)
    automation["trigger"]["within"] = 45  # beats come every 30 s
    site.server.post("/automations/", **automation)
    _corpus(site)
    _every(site, 12)
    wait_until(lambda: site.done() >= 5, 120, 0.05, what=lambda: site.worker.said[-3000:])
    killed = site.runs("ingest-new")[0]["id"]
    os.kill(_pid(site), signal.SIGKILL)
    wait_until(lambda: site.server.state(killed) == "CRASHED", 150, what=site.worker.said[-3000:])
    wait_until(lambda: site.done() == N_CLIPS, 150, what=lambda: site.worker.said[-3000:])
    wait_until(lambda: "running" not in _statuses(site), 60, 0.05)
    assert _statuses(site)[0] == "crashed"
    site.lab.check_after_a_kill()
