"""What the design promises about the code: layers, light imports, tasks left alone by Prefect."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import grimp
import httpx
import pytest
from prefect import Task
from prefect.cache_policies import NO_CACHE
from prefect.flows import load_flow_from_entrypoint
from prefect.settings import PREFECT_LOCAL_STORAGE_PATH, temporary_settings

import audioset_core
import tasks
from tasks.labelling import shards
from tests.flows.build import REPOSITORY, Lab, write_clip

MOST_PARAMETERS = 7


def _all_tasks() -> list[Task[Any, Any]]:
    found = {}
    for module in pkgutil.iter_modules(tasks.__path__, "tasks."):
        for value in vars(importlib.import_module(module.name)).values():
            if isinstance(value, Task):
                found[value.name] = value
    return list(found.values())


def test_layers_hold() -> None:
    program = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run(
        [program, "--no-cache"], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


def test_rooms_are_entered_by_the_modules_that_they_name() -> None:
    graph = grimp.build_graph("audioset_core", "db", "tasks", "flows", cache_dir=None)
    packages = [name for name in graph.modules if graph.find_children(name)]
    rooms = {name: importlib.import_module(name) for name in packages}
    public = {name: set(room.PUBLIC) for name, room in rooms.items() if hasattr(room, "PUBLIC")}
    assert len(public) > 30
    entered: dict[str, set[str]] = {name: set() for name in public}
    for importer in graph.modules:
        for imported in graph.find_modules_directly_imported_by(importer):
            room, _, module = imported.rpartition(".")
            if room in public and not importer.startswith(f"{room}."):
                entered[room].add(module)
    assert entered == public


def test_nothing_private_of_prefect_is_imported() -> None:
    """Of the server, only what computes a schedule's times, which the client has nothing for."""
    files = [path for room in ("tasks", "flows") for path in (REPOSITORY / room).rglob("*.py")]
    lines = "\n".join(path.read_text() for path in files)
    found = set(re.findall(r"^\s*(?:from|import) (prefect\.[\w.]+)", lines, re.MULTILINE))
    assert len(found) > 20
    assert not [name for name in found if "._" in name]
    of_server = {name for name in found if name.startswith("prefect.server")}
    assert of_server == {"prefect.server.schemas.schedules"}


def _is_for_people(path: Path, function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Whether it is a command, a flow, or what the library offers at its top."""
    decorators = map(ast.unparse, function.decorator_list)
    if function.name in audioset_core.__all__:
        return True
    return "commands" in path.parts or any(name.startswith("flow(") for name in decorators)


@pytest.mark.parametrize("package", ["audioset_core", "db", "tasks", "flows"])
def test_only_what_people_call_has_many_parameters(package: str) -> None:
    too_many = []
    for path in (REPOSITORY / package).rglob("*.py"):
        for function in ast.walk(ast.parse(path.read_text())):
            if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            names = [each.arg for each in ast.walk(function.args) if isinstance(each, ast.arg)]
            is_many = len(set(names) - {"self", "cls"}) > MOST_PARAMETERS
            if is_many and not _is_for_people(path, function):
                too_many.append(f"{path}:{function.lineno} {function.name}")
    assert too_many == []


@pytest.mark.parametrize(
    ("entrypoint", "name"),
    [
        ("flows.label_audio.label_audio", "label-audio"),
        ("flows.prepare_model.prepare_model", "prepare-model"),
    ],
)
def test_flows_load_by_their_entrypoint(entrypoint: str, name: str) -> None:
    flow = load_flow_from_entrypoint(entrypoint, use_placeholder_flow=False)
    assert flow.name == name
    assert flow.persist_result is False
    titles = [field.get("title") for field in flow.parameters.properties.values()]
    assert all(titles)


@pytest.mark.parametrize("task", _all_tasks(), ids=lambda task: task.name)
def test_prefect_neither_hashes_nor_keeps_what_tasks_are_given(task: Task[Any, Any]) -> None:
    assert task.cache_policy == NO_CACHE
    assert task.persist_result is False
    assert task.task_run_name


def test_every_step_of_the_design_is_a_task() -> None:
    assert {task.name for task in _all_tasks()} >= {
        "convert-weights",
        "load-ontology",
        "discover-files",
        "chunk-and-featurize",
        "infer",
        "persist",
    }


def test_a_run_can_be_read_in_prefect(
    lab: Lab, prefect_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "MIN_SHARD_S", 5.5)
    for seed in range(3):
        write_clip(tmp_path / "prairie" / f"{seed}.wav", seed, 5.0, 44_100, 2)
    (tmp_path / "prairie" / "x.wav").write_text("not audio")
    lab.label(tmp_path / "prairie")
    with httpx.Client(base_url=prefect_server, timeout=30) as api:
        runs = api.post("/flow_runs/filter", json={"sort": "START_TIME_DESC", "limit": 1}).json()
        own = {"flow_runs": {"id": {"any_": [runs[0]["id"]]}}}
        deadline = time.monotonic() + 30
        # Names come with events, which the server takes in its own time.
        names: list[str] = []
        while sum(" shard " in name for name in names) < 9 and time.monotonic() < deadline:
            time.sleep(0.1)
            names = [run["name"] for run in api.post("/task_runs/filter", json=own).json()]
        of_run = {"artifacts": {"flow_run_id": {"any_": [runs[0]["id"]]}}}
        found = api.post("/artifacts/filter", json=of_run).json()
    path = re.escape(str(tmp_path / "prairie")[-60:])
    name = rf"label \d{{4}}-\d\d-\d\d \d\d:\d\d UTC {path}: 4 of 4 files"
    assert re.fullmatch(name, runs[0]["name"])
    assert runs[0]["parameters"]["database"] == "*" * 10
    assert "convert weights of yamnet" in names
    assert "load ontology and yamnet placeholder-0" in names
    assert "discover files" in names
    for task in ("featurize", "infer", "persist"):
        assert f"{task} shard 1/3 (0.0014 h)" in names
    pages = {a["key"]: a for a in found}
    assert {key: a["type"] for key, a in pages.items()} == {
        "label-audio-progress": "progress",
        "label-audio-summary": "markdown",
        "label-audio-failures": "table",
    }
    summary = pages["label-audio-summary"]["data"]
    assert "| labelled now | 3 (15.0 s of audio) |" in summary
    assert "x.wav` | not audio |" in summary


def test_no_result_is_persisted(lab: Lab, tmp_path: Path) -> None:
    write_clip(tmp_path / "a.wav", 1)
    with temporary_settings({PREFECT_LOCAL_STORAGE_PATH: tmp_path / "storage"}):
        lab.label(tmp_path / "a.wav")
    assert list((tmp_path / "storage").glob("*")) == []
