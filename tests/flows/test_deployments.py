"""The files of deployments/ say what is there: flows, commands, files, pinned images."""

from __future__ import annotations

import asyncio
import fnmatch
import json
import os
import re
import secrets
import shlex
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from jsonschema import Draft202012Validator
from prefect.deployments.runner import RunnerDeployment
from prefect.events import DeploymentEventTrigger
from prefect.events.schemas.automations import AutomationCore
from prefect.flows import Flow, load_flow_from_entrypoint
from prefect.utilities.templating import apply_values

from flows.prefect_server.serve import (
    ARRIVED,
    HEARTBEAT_AUTOMATION,
    HEARTBEAT_S,
    INDEX_CRON,
    TAG,
    VERIFY_CRON,
    Plan,
    deployments,
)
from flows.run_report.prefect_artifacts import FAILURES_EVENT
from tasks.labelling.options import LabelOptions
from tests.flows.build import REPOSITORY, write_clip
from tests.flows.servers import Server, prefect, running_server, running_worker, wait_until

FOLDER = REPOSITORY / "deployments"
# What a run must be given besides what its deployment says.
GIVEN = {
    "paths": ["/data/recordings"],
    "partition": {
        "run_id": "a", "index": 1, "total": 1, "first": "00", "end": None, "n_items": 1,
        "estimated_s": 1.0, "is_watched": False,
        "variants": [{"model_id": 1, "parameter_set_id": 1}],
    },
}  # fmt: skip


def _read(name: str) -> Any:
    return yaml.safe_load((FOLDER / name).read_text())


def _ids(value: Any) -> str | None:
    return value["entrypoint"].rpartition(".")[2] if isinstance(value, dict) else None


DEPLOYMENTS = _read("prefect.yaml")["deployments"]
AUTOMATIONS = _read("automations.yaml")["automations"]
COMPOSE = _read("compose.yaml")
SERVICES: dict[str, Any] = COMPOSE["services"]
OURS = [name for name, s in SERVICES.items() if s["image"].startswith("audioset-flows:")]


class TestPrefectYaml:
    @pytest.fixture(autouse=True)
    def places(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AUDIOSET_HOME", "/data/labels")
        monkeypatch.setenv("AUDIOSET_ROOT", "/data/recordings")

    @pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=_ids)
    def test_the_flow_takes_the_parameters(self, deployment: dict[str, Any]) -> None:
        flow: Flow[Any, Any] = load_flow_from_entrypoint(
            deployment["entrypoint"], use_placeholder_flow=False
        )
        parameters = apply_values(deployment["parameters"], dict(os.environ))
        assert "{{" not in str(parameters)
        missing = set(flow.parameters.required or []) - set(parameters)
        assert missing <= set(GIVEN)
        flow.validate_parameters({**parameters, **{name: GIVEN[name] for name in missing}})

    @pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=_ids)
    def test_results_never_go_to_a_workers_passing_folder(self, deployment: Any) -> None:
        env = deployment["work_pool"]["job_variables"]["env"]
        assert env["AUDIOSET_HOME"] == "{{ $AUDIOSET_HOME }}"
        assert deployment["parameters"].get("home", env["AUDIOSET_HOME"]) == env["AUDIOSET_HOME"]

    def test_no_secret_is_handed_to_prefect(self) -> None:
        assert "AUDIOSET_DB" not in str(DEPLOYMENTS)
        assert "database" not in str(DEPLOYMENTS)

    def test_the_same_deployments_as_served_by_one_process(self, tmp_path: Path) -> None:
        plan = Plan(
            roots=["/data/recordings"], cron="0 * * * *", timezone="UTC", settle_s=60,
            options=LabelOptions(), home=Path("/data/labels"), database=None,
        )  # fmt: skip
        served = asyncio.run(deployments(plan))
        assert [_essence(d) for d in served] == [_essence_of_yaml(d) for d in DEPLOYMENTS]
        assert VERIFY_CRON in str(DEPLOYMENTS)
        assert INDEX_CRON in str(DEPLOYMENTS)

    @pytest.mark.parametrize(
        ("home", "root", "told"),
        [
            ("/data/labels", "/data/in", ""),
            ("/data/labels", "s3://bucket/in", ""),
            ("labels", "/data/in", "AUDIOSET_HOME must be absolute"),
            ("/data/labels", "in", "AUDIOSET_ROOT must be absolute"),
            ("/data/labels", "", "AUDIOSET_ROOT: must be"),
        ],
    )
    def test_places_that_a_worker_would_take_for_others_are_refused(
        self, home: str, root: str, told: str
    ) -> None:
        (step,) = _read("prefect.yaml")["build"]
        script = step["prefect.deployments.steps.run_shell_script"]["script"]
        places = {"AUDIOSET_HOME": home, "AUDIOSET_ROOT": root}
        done = subprocess.run(
            ["sh", "-c", script], env=places, capture_output=True, text=True, check=False
        )
        assert (told in done.stderr, done.returncode != 0) == (True, told != "")

    def test_only_keys_that_prefect_knows(self) -> None:
        # An unknown key of a schedule makes `prefect deploy --all` deploy nothing.
        for deployment in DEPLOYMENTS:
            for schedule in deployment.get("schedules", []):
                assert set(schedule) <= {"cron", "timezone"}


def _essence(deployment: RunnerDeployment) -> dict[str, Any]:
    schedules: list[Any] = [s.schedule for s in deployment.schedules or []]
    options = deployment.concurrency_options
    given = deployment.parameters
    return {
        "name": f"{deployment.flow_name}/{deployment.name}",
        "entrypoint": deployment.entrypoint,
        "version": deployment.version,
        "tags": deployment.tags,
        "schedules": [s.model_dump(include={"cron", "timezone"}) for s in schedules],
        "limit": deployment.concurrency_limit,
        "strategy": options and options.collision_strategy.value,
        "triggers": [
            {
                **trigger.model_dump(mode="json", include={"name", "type", "threshold"}),
                "posture": trigger.posture.value,
                "expect": list(trigger.expect),
                "within": trigger.within.total_seconds(),
                "schedule_after": trigger.schedule_after.total_seconds(),
            }
            for trigger in deployment.triggers
            if isinstance(trigger, DeploymentEventTrigger)
        ],
        "places": {name: given[name] for name in ("roots", "home", "watch") if name in given},
    }


def _essence_of_yaml(deployment: dict[str, Any]) -> dict[str, Any]:
    flow: Flow[Any, Any] = load_flow_from_entrypoint(
        deployment["entrypoint"], use_placeholder_flow=False
    )
    parameters = apply_values(deployment["parameters"], dict(os.environ))
    limit = deployment.get("concurrency_limit", {})
    return {
        "name": f"{flow.name}/{deployment['name']}",
        "entrypoint": deployment["entrypoint"],
        "version": deployment["version"],
        "tags": deployment["tags"],
        "schedules": deployment.get("schedules", []),
        "limit": limit.get("limit"),
        "strategy": limit.get("collision_strategy"),
        "triggers": deployment.get("triggers", []),
        "places": {n: parameters[n] for n in ("roots", "home", "watch") if n in parameters},
    }


class TestAutomations:
    @pytest.mark.parametrize("automation", AUTOMATIONS, ids=lambda a: a["name"])
    def test_prefect_takes_them_and_they_need_no_block(self, automation: dict[str, Any]) -> None:
        AutomationCore.model_validate(automation)
        assert "block" not in str(automation)

    def test_the_first_is_the_one_that_serve_brings(self) -> None:
        assert AUTOMATIONS[0] == HEARTBEAT_AUTOMATION

    def test_silence_is_several_heartbeats_long_and_all_that_it_watches_have_them(self) -> None:
        trigger = AUTOMATIONS[0]["trigger"]
        assert trigger["within"] >= 3 * HEARTBEAT_S
        assert trigger["match_related"]["prefect.resource.id"] == f"prefect.tag.{TAG}"
        for deployment in DEPLOYMENTS:
            assert deployment["tags"] == [TAG]
            env = deployment["work_pool"]["job_variables"]["env"]
            assert int(env["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"]) == HEARTBEAT_S

    def test_the_second_waits_for_our_event(self) -> None:
        assert AUTOMATIONS[1]["trigger"]["expect"] == [FAILURES_EVENT]


class TestImage:
    lines = re.sub(r"\\\n\s*", "", (FOLDER / "Dockerfile").read_text()).splitlines()
    ignored = (REPOSITORY / ".dockerignore").read_text().splitlines()

    def _all(self, word: str) -> list[list[str]]:
        return [shlex.split(line)[1:] for line in self.lines if line.startswith(f"{word} ")]

    def test_everything_copied_is_there_and_not_ignored(self) -> None:
        copied = [c[:-1] for c in self._all("COPY") if not c[0].startswith("--from")]
        sources = [source for sources in copied for source in sources]
        assert {"audioset_core", "db", "tasks", "flows", "constraints.txt"} <= set(sources)
        for source in sources:
            assert (REPOSITORY / source).exists(), source
            assert f"!{source}" in self.ignored, source

    def test_nothing_else_is_sent_to_the_builder(self) -> None:
        assert self.ignored[1] == "*"
        for private in (".git", ".venv", "deployments/.env", "tests"):
            assert not [p for p in self.ignored if p[0] == "!" and fnmatch.fnmatch(private, p[1:])]

    def test_images_are_pinned_and_users_are_not_root(self) -> None:
        for image, *_ in self._all("FROM"):
            assert re.fullmatch(r"python:3\.\d+\.\d+-slim-\w+", image)
        assert self._all("USER")[-1][0] not in ("root", "0")

    def test_dependencies_are_pinned_and_tools_left_out(self) -> None:
        installs = [line for line in self.lines if "pip install" in line]
        assert all("-c constraints.txt" in line or "--no-deps" in line for line in installs)
        assert "[dev]" not in str(installs)
        assert "http" not in str(self.lines)


class TestCompose:
    def test_the_services(self) -> None:
        assert set(SERVICES) == {"postgres", "server", "setup", "worker", "worker-gpu"}
        assert set(SERVICES) - set(OURS) == {"postgres"}
        assert SERVICES["worker-gpu"]["profiles"] == ["gpu"]

    @pytest.mark.parametrize("name", SERVICES)
    def test_images_are_pinned(self, name: str) -> None:
        assert re.fullmatch(r"[a-z-]+:\d+\.\d+(\.\d+)?(-\w+)?", SERVICES[name]["image"])

    @pytest.mark.slow
    @pytest.mark.parametrize("name", OURS)
    def test_commands_are_real(self, name: str) -> None:
        program, *arguments = shlex.split(SERVICES[name]["command"])
        if program.startswith("/opt/deployments/"):
            script = FOLDER / Path(program).name
            assert os.access(script, os.X_OK)
            assert f"deployments/{script.name}" in (FOLDER / "Dockerfile").read_text()
            return
        command = Path(sys.executable).with_name(program)
        words = [a for a in arguments if not a.startswith("-")][:2]
        done = subprocess.run(
            [command, *words, "--help"], capture_output=True, text=True, timeout=60, check=True
        )
        for option in (a for a in arguments if a.startswith("--")):
            assert option in done.stdout, option

    @pytest.mark.parametrize("name", SERVICES)
    def test_what_is_mounted_is_there(self, name: str) -> None:
        for mount in SERVICES[name].get("volumes", []):
            source = re.sub(r"\$\{[^}]*\}", "/variable", mount).split(":")[0]
            if source.startswith("./"):
                assert (FOLDER / source).is_file()
            elif not source.startswith("/"):
                assert source in COMPOSE["volumes"]

    def test_recordings_are_only_read(self) -> None:
        for name in ("worker", "worker-gpu"):
            mounts = [m for m in SERVICES[name]["volumes"] if "AUDIOSET_RECORDINGS" in m]
            assert [mount.rpartition(":")[2] for mount in mounts] == ["ro"]

    def test_passwords_come_from_outside_or_it_does_not_start(self) -> None:
        text = (FOLDER / "compose.yaml").read_text()
        for name in ("POSTGRES_PASSWORD", "PREFECT_PASSWORD"):
            uses = re.findall(rf"\$\{{{name}[^}}]*\}}", text)
            assert len(uses) >= 2
            assert all(use.startswith(f"${{{name}:?set ") for use in uses)
        assert not re.search(r"://\w+:[^$]\w*@", text)

    def test_who_reports_to_the_server_has_its_password(self) -> None:
        asked = SERVICES["server"]["environment"]["PREFECT_SERVER_API_AUTH_STRING"]
        for name in set(OURS) - {"server"}:
            assert SERVICES[name]["environment"]["PREFECT_API_AUTH_STRING"] == asked, name

    def test_ports_are_open_to_this_machine_only(self) -> None:
        ports = [p for s in SERVICES.values() for p in s.get("ports", [])]
        assert ports
        assert all(port.startswith("127.0.0.1:") for port in ports)

    def test_the_database_that_prefect_is_given_is_made(self) -> None:
        url = SERVICES["server"]["environment"]["PREFECT_SERVER_DATABASE_CONNECTION_URL"]
        name = url.rpartition("/")[2]
        assert f"CREATE DATABASE {name};" in (FOLDER / "create-databases.sql").read_text()

    def test_who_waits_for_whom(self) -> None:
        chain = {n: list(s.get("depends_on", {}).items()) for n, s in SERVICES.items()}
        assert chain["worker"] == [("setup", {"condition": "service_completed_successfully"})]
        assert chain["setup"] == [("server", {"condition": "service_healthy"})]
        assert chain["server"] == [("postgres", {"condition": "service_healthy"})]
        for name in ("postgres", "server", "worker"):
            assert SERVICES[name]["healthcheck"]["test"][0] == "CMD"
        # The image's first server, which makes the databases, answers on the socket alone.
        assert "--host=127.0.0.1" in SERVICES["postgres"]["healthcheck"]["test"]


@pytest.mark.parametrize("name", ["docker", "kubernetes"])
class TestPools:
    def test_every_variable_is_used_and_every_place_has_one(self, name: str) -> None:
        """A variable that nothing names has no effect, and Prefect does not say so."""
        template = json.loads((FOLDER / f"{name}-pool.json").read_text())
        named = set(re.findall(r"\{\{ (\w+) \}\}", json.dumps(template["job_configuration"])))
        assert named == set(template["variables"]["properties"])

    def test_a_run_has_the_images_places_and_the_deployments_environment(self, name: str) -> None:
        template = json.loads((FOLDER / f"{name}-pool.json").read_text())
        schema = template["variables"]
        defaults = {k: v["default"] for k, v in schema["properties"].items() if "default" in v}
        given = DEPLOYMENTS[0]["work_pool"]["job_variables"]
        Draft202012Validator(schema).validate({**defaults, **given})
        assert defaults["image"] == SERVICES["worker"]["image"]
        env = {**defaults["env"], **given["env"]}
        told = apply_values(template["job_configuration"], {**defaults, "env": env})
        assert "{{ $" not in str(told).replace("{{ $AUDIOSET_HOME }}", "")
        assert told["env"] == env
        setup = SERVICES["setup"]["environment"]
        for place in (setup["AUDIOSET_HOME"], setup["AUDIOSET_ROOT"]):
            assert re.search(rf"[:'\"]{place}[:'\"]", str(told)), place
        if name == "kubernetes":
            pod = told["job_manifest"]["spec"]["template"]["spec"]
            # One level up they are 1 anyway, but prefect-kubernetes asks for them here.
            assert (pod["parallelism"], pod["completions"]) == (1, 1)
            mounted = {mount["name"] for mount in pod["containers"][0]["volumeMounts"]}
            assert mounted == {volume["name"] for volume in pod["volumes"]}
            user = pod["securityContext"]["runAsUser"]
            assert f"USER {user}" in (FOLDER / "Dockerfile").read_text()

    @pytest.mark.slow
    @pytest.mark.server
    def test_prefect_takes_it(self, name: str, server: Server, clone: Path) -> None:
        template = f"{name}-pool.json"
        done = prefect(
            "work-pool", "create", name, "--type", name, "--base-job-template", template,
            server=server, cwd=clone,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        found = server.get(f"/work_pools/{name}")
        assert found["base_job_template"] == json.loads((FOLDER / template).read_text())


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """With what compose.yaml tells a server: a password, and no forms of other pages."""
    told = SERVICES["server"]["environment"]
    of_services = {name: value for name, value in told.items() if "SERVICES" in name}
    password = "audioset:" + secrets.token_hex()
    with running_server(
        tmp_path_factory.mktemp("server"),
        PREFECT_SERVER_API_AUTH_STRING=password,
        PREFECT_API_AUTH_STRING=password,
        PREFECT_SERVER_API_CSRF_PROTECTION_ENABLED="true",
        PREFECT_SERVER_SERVICES_DB_VACUUM_LOOP_SECONDS="2",
        **of_services,
    ) as server:
        yield server


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As in a fresh clone: nothing but the files."""
    return Path(shutil.copytree(FOLDER, tmp_path_factory.mktemp("clone") / "deployments"))


@pytest.mark.slow
@pytest.mark.server
class TestOnARealServer:
    def _set_up(self, server: Server, clone: Path, **more: str) -> subprocess.CompletedProcess[str]:
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        return subprocess.run(
            [clone / "setup.sh"], env={**server.environment, "PATH": path, **more},
            capture_output=True, text=True, timeout=240, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip

    def test_strangers_and_other_pages_are_refused(self, server: Server) -> None:
        """A container's health check is answered without the password."""
        assert httpx.get(f"{server.url}/health").status_code == 200
        assert httpx.get(f"{server.url}/version").status_code == 401
        user, _, password = server.environment["PREFECT_API_AUTH_STRING"].partition(":")
        assert httpx.get(f"{server.url}/version", auth=(user, password)).status_code == 200
        other = httpx.post(f"{server.url}/flow_runs/filter", json={}, auth=(user, password))
        assert other.status_code == 403

    def test_without_places_nothing_is_deployed(self, server: Server, clone: Path) -> None:
        done = self._set_up(server, clone)
        assert done.returncode != 0
        assert "AUDIOSET_HOME: must be" in done.stderr
        prefect("work-pool", "create", "audioset", "--type", "process", server=server, cwd=clone)
        done = prefect("deploy", "--all", server=server, cwd=clone)
        assert done.returncode != 0
        assert "AUDIOSET_HOME: must be" in done.stderr
        assert server.post("/deployments/filter") == []

    def test_setup_registers_all_and_may_be_repeated(
        self, server: Server, clone: Path, placeholder: Path, tmp_path: Path
    ) -> None:
        write_clip(tmp_path / "in" / "a.wav", 1)
        places = {"AUDIOSET_HOME": str(tmp_path / "home"), "AUDIOSET_ROOT": str(tmp_path / "in")}
        server.post("/automations/", **HEARTBEAT_AUTOMATION)  # as `audioset serve` does
        for _ in range(2):
            done = self._set_up(server, clone, **places)
            assert done.returncode == 0, done.stdout + done.stderr
        for expected in DEPLOYMENTS:
            flow: Flow[Any, Any] = load_flow_from_entrypoint(
                expected["entrypoint"], use_placeholder_flow=False
            )
            found = server.deployment(f"{flow.name}/{expected['name']}")
            assert found["entrypoint"] == expected["entrypoint"]
            assert found["work_pool_name"] == "audioset"
            assert found["pull_steps"] == []
            assert len(found["schedules"]) == len(expected.get("schedules", []))
        assert len(server.post("/deployments/filter")) == len(DEPLOYMENTS)
        names = sorted(a["name"] for a in server.post("/automations/filter"))
        assert names == sorted([ARRIVED["name"], *(a["name"] for a in AUTOMATIONS)])

        with running_worker(server, tmp_path / "w", AUDIOSET_WEIGHTS=str(placeholder)) as worker:
            run = server.trigger("ingest-new/scheduled", watch={"settle_s": 0})
            done_in = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
            wait_until(lambda: server.state(run) in done_in, 120, what=lambda: worker.said)
            assert server.state(run) == "COMPLETED", worker.said
        assert len(list((tmp_path / "home" / "scores").rglob("*.npy"))) == 1

    def test_many_that_arrive_are_looked_for_once(self, server: Server, tmp_path: Path) -> None:
        """By the command that deployments/README.md has."""
        for _ in range(3):
            done = prefect(
                "event", "emit", "audioset.arrived", "--resource-id", "audioset.folder./in",
                server=server, cwd=tmp_path,
            )  # fmt: skip
            assert done.returncode == 0, done.stdout + done.stderr
        asked = {"flows": {"name": {"any_": ["ingest-new"]}},
                 "flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}}}  # fmt: skip

        def triggered() -> list[Any]:
            runs = server.post("/flow_runs/filter", **asked)
            return [run for run in runs if run["created_by"]["type"] == "AUTOMATION"]

        (run,) = wait_until(triggered, 60)
        due_s = datetime.fromisoformat(run["expected_start_time"]) - datetime.now(UTC)
        assert timedelta(seconds=60) < due_s <= timedelta(seconds=120)
        time.sleep(3)
        assert len(triggered()) == 1

    def test_a_run_that_fails_is_told(self, server: Server) -> None:
        deployment = server.deployment("label-audio/ad-hoc")["id"]
        run = server.post(f"/deployments/{deployment}/create_flow_run", parameters={"paths": []})
        server.post(f"/flow_runs/{run['id']}/set_state", state={"type": "FAILED"}, force=True)
        resource = {"id_prefix": ["prefect.automation."]}
        asked = {
            "filter": {"event": {"name": ["prefect.automation.triggered"]}, "resource": resource}
        }

        def told() -> list[str]:
            events = server.post("/events/filter", **asked)["events"]
            return [e["resource"]["prefect.resource.name"] for e in events]

        wait_until(lambda: "audioset: a run failed" in told(), 60, what=told)

    def test_runs_of_long_ago_go(self, server: Server, tmp_path: Path) -> None:
        """The server is asked for its database, since no request can set a time in the past."""
        flow = server.post("/flows/", name="old")["id"]
        state = {"type": "COMPLETED"}
        old, new = (server.post("/flow_runs/", flow_id=flow, state=state)["id"] for _ in range(2))
        long_ago = datetime.now(UTC) - timedelta(days=91)
        with sqlite3.connect(server.process.log.with_name("server.db"), timeout=30) as conn:
            conn.execute(
                "UPDATE flow_run SET end_time = ?, start_time = ? WHERE id = ?",
                (*[long_ago.strftime("%Y-%m-%d %H:%M:%S.%f")] * 2, old),
            )
        wait_until(
            lambda: (
                [
                    run["id"]
                    for run in server.post("/flow_runs/filter", flows={"id": {"any_": [flow]}})
                ]
                == [new]
            ),
            60,
            what=lambda: server.process.said[-4000:],
        )
