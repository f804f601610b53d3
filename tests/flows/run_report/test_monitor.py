"""What a run leaves in Prefect: its name, a progress, a page, a table, an event."""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest

from flows.run import shard_scheduler as shard_runners
from flows.run_options import AlertOptions
from flows.run_report.drift import Share, drift
from flows.run_report.prefect_artifacts import is_alarming
from flows.run_report.safe_markdown import as_code, cleaned
from flows.run_report.summary import Summary
from tasks.labelling import shards
from tests.flows.build import Lab, write_clip
from tests.flows.test_ingest_new import _ingest


def _ask(server: str, path: str, **body: Any) -> Any:
    answer = httpx.post(f"{server}{path}", json=body, timeout=30)
    answer.raise_for_status()
    return answer.json()


def _flow_run(server: str, lab: Lab) -> str:
    rows = lab.rows("SELECT flow_run_id FROM runs ORDER BY started_at DESC")
    return str(rows[0][0])


def _artifacts(server: str, flow_run: str) -> dict[str, Any]:
    found = _ask(server, "/artifacts/filter", artifacts={"flow_run_id": {"any_": [flow_run]}})
    return {artifact["key"]: artifact["data"] for artifact in found}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for seed in range(24):
        write_clip(tmp_path / "in" / f"{seed:02d}.wav", seed, 1.0 + seed / 30)
    (tmp_path / "in" / "bad|`<b>.wav").write_text("not audio")
    return tmp_path / "in"


def test_a_run_tells_what_it_did(
    prefect_server: str, lab: Lab, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUDIOSET_APP_URL", "https://sounds.example/")
    _ingest(lab, root)
    flow_run = _flow_run(prefect_server, lab)
    name = httpx.get(f"{prefect_server}/flow_runs/{flow_run}").json()["name"]
    assert re.fullmatch(r"ingest 20\d\d-\d\d-\d\d \d\d:\d\d UTC .*/in: 25 of 25 files", name)
    left = _artifacts(prefect_server, flow_run)
    assert left["ingest-new-progress"] == 100.0
    page = left["ingest-new-summary"]
    assert "| labelled now | 24 (" in page
    assert "## New labels" in page
    assert "[Search, listen and judge](https://sounds.example)" in page
    assert "## Drift" not in page  # there is no run before
    assert r"bad\|\`&lt;b&gt;.wav" in page
    (failure,) = json.loads(left["ingest-new-failures"])
    assert failure["file"].endswith(r"bad\|\`&lt;b&gt;.wav")
    for seed in range(30, 54):
        write_clip(root / f"{seed}.wav", seed, 1.0)
    _ingest(lab, root)
    page = _artifacts(prefect_server, _flow_run(prefect_server, lab))["ingest-new-summary"]
    assert "## Drift" in page


@pytest.mark.slow
def test_many_failures_become_an_event(prefect_server: str, lab: Lab, root: Path) -> None:
    for number in range(10):
        (root / f"broken{number}.wav").write_text("not audio")
    _ingest(lab, root)
    (run_id,) = lab.rows("SELECT id FROM runs")[0]
    deadline = time.monotonic() + 30
    while True:
        found = _ask(
            prefect_server, "/events/filter",
            filter={"event": {"name": ["audioset.failures"]}},
        )["events"]  # fmt: skip
        mine = [e for e in found if e["resource"]["prefect.resource.id"].endswith(run_id)]
        if mine:
            break
        assert time.monotonic() < deadline
        time.sleep(0.5)
    (event,) = mine
    assert (event["payload"]["failed"], event["payload"]["opened"]) == (11, 35)
    assert event["payload"]["by_reason"] == {"not audio": 11}


def test_names_cannot_change_the_page() -> None:
    assert cleaned("a_b*c[d]<e>|f`g\\h\n") == "a\\_b\\*c\\[d\\]&lt;e&gt;\\|f\\`g\\\\h\\\\n"
    assert as_code("a[b]<d>\udcff") == "`a[b]<d>\\udcff`"


@pytest.mark.parametrize(
    ("n_failed", "n_labelled", "expected"),
    [(9, 0, False), (10, 0, True), (10, 190, True), (10, 191, False), (0, 5, False)],
)
def test_alarm_needs_a_number_and_a_share(n_failed: int, n_labelled: int, expected: bool) -> None:
    summary = Summary(n_labelled=n_labelled)
    summary.failures["damaged"] = n_failed
    assert is_alarming(summary, AlertOptions()) is expected


def test_alerts_and_what_is_wrong_with_rules_are_shown() -> None:
    summary = Summary(
        alerts={"shot": Counter(waiting=1_235, old=4)},
        alert_problems={"lost": "its site was removed"},
    )
    rows = dict(summary.rows())
    assert rows["alert shot"] == "1,239 (not told: 4 recorded too long ago)"
    assert rows["alert lost: its site was removed"] == "1"


def test_drift_is_the_largest_changes_of_share() -> None:
    before = {"n_labelled": 100, "labels": {"Music": 50, "Animal": 10, "Silence": 5}}
    found = drift({"Music": 10, "Animal": 20}, 100, before)
    assert found[0] == Share("Music", 0.5, 0.1)
    assert [share.category for share in found] == ["Music", "Animal", "Silence"]
    assert found[2].change == pytest.approx(-0.05)


@pytest.mark.parametrize(
    ("n_labelled", "before"),
    [
        (100, None),
        (100, {}),
        (100, {"n_labelled": 19, "labels": {"Music": 3}}),
        (19, {"n_labelled": 100, "labels": {"Music": 3}}),
    ],
)
def test_no_drift_without_a_basis(n_labelled: int, before: Any) -> None:
    assert drift({"Music": 3}, n_labelled, before) == ()


@pytest.mark.slow
def test_runs_of_hours_keep_one_task_run_per_shard_and_give_the_same(
    prefect_server: str, lab: Lab, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_clip(root / "long.flac", 99, 40.0)
    monkeypatch.setattr(shards, "MIN_SHARD_S", 5.0)
    home = tmp_path / "short"
    short = Lab(home, f"sqlite:///{home / 'labels.db'}", lab.weights)
    _ingest(short, root)
    monkeypatch.setattr(shard_runners, "LONG_RUN_S", 10.0)
    monkeypatch.setattr(shard_runners, "PART_S", 5.0)
    monkeypatch.setattr(shards, "MIN_SHARD_S", 20.0)
    summary = _ingest(lab, root)
    assert (summary.n_labelled, summary.n_failed) == (25, 1)
    lab.check()
    assert lab.results() == short.results()
    names = [
        task["name"]
        for task in _ask(
            prefect_server, "/task_runs/filter",
            flow_runs={"id": {"any_": [_flow_run(prefect_server, lab)]}},
        )
    ]  # fmt: skip
    assert 3 <= sum(name.startswith("label shard") for name in names) <= 5
    assert not [name for name in names if name.startswith("infer")]
    short.engine.dispose()
