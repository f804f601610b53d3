"""One run at a time on a GPU: here the GPU is none, and the server a real one."""

from __future__ import annotations

import asyncio
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitUpdate
from sqlalchemy import Engine

from audioset_core.inference.scorer import Cancelled
from db.ledger.runs import record_heartbeat
from flows.prefect_server.serve import _ensure_gpu_limit
from flows.run import gpu_slot as module
from flows.run.gpu_slot import LEASE_S, gpu_limit
from tests.flows.build import Lab, write_clip
from tests.flows.servers import ask

NAME = "audioset-gpu-here-2"


@pytest.fixture
def gpu(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to label, on what is taken for a GPU."""
    monkeypatch.setattr(module.socket, "gethostname", lambda: "here")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", " 2, 3")
    monkeypatch.setattr(module, "uses_gpu", lambda _: True)
    monkeypatch.setattr(module, "_ASK_EVERY_S", 1.0)
    write_clip(tmp_path / "in" / "a.wav", 1)
    return tmp_path / "in"


@pytest.fixture
def held(prefect_server: str) -> Any:
    """The slot's limit, with a lease that nobody renews."""
    path = "/v2/concurrency_limits"
    ask(prefect_server, "POST", f"{path}/", {"name": NAME, "limit": 1})
    lease = ask(
        prefect_server, "POST", f"{path}/increment-with-lease",
        {"names": [NAME], "slots": 1, "mode": "concurrency", "lease_duration": LEASE_S},
    )  # fmt: skip
    yield lease["lease_id"]
    ask(prefect_server, "DELETE", f"{path}/{NAME}")


def _n_taken(server: str) -> int:
    return int(ask(server, "GET", f"/v2/concurrency_limits/{NAME}")["active_slots"])


def test_the_name_is_of_the_machine_and_of_the_gpu_that_torch_takes(
    monkeypatch: pytest.MonkeyPatch, gpu: Path
) -> None:
    assert gpu_limit() == NAME
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert gpu_limit() == "audioset-gpu-here-0"


@pytest.mark.slow
def test_without_a_limit_nothing_is_waited_for(lab: Lab, gpu: Path) -> None:
    assert lab.label(gpu).n_labelled == 1


@pytest.mark.slow
def test_serve_makes_the_limit_and_leaves_what_a_person_has_set(
    prefect_server: str, gpu: Path
) -> None:
    async def ensure(*, is_own: bool) -> tuple[int, int]:
        async with get_client() as client:
            await _ensure_gpu_limit(client, is_own=is_own)
            limit = await client.read_global_concurrency_limit_by_name(NAME)
            await client.update_global_concurrency_limit(
                NAME, GlobalConcurrencyLimitUpdate(limit=2, active_slots=1)
            )
            return limit.limit, limit.active_slots

    try:
        assert asyncio.run(ensure(is_own=True)) == (1, 0)
        assert asyncio.run(ensure(is_own=False)) == (2, 1)
        # No run of a server of its own can be alive when `serve` begins.
        assert asyncio.run(ensure(is_own=True)) == (2, 0)
    finally:
        ask(prefect_server, "DELETE", f"/v2/concurrency_limits/{NAME}")


@pytest.mark.slow
def test_a_run_waits_for_the_slot_alive_and_gives_it_back(
    lab: Lab, gpu: Path, held: str, prefect_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    beats: list[str] = []

    def beat(engine: Engine, run_id: str, at: datetime) -> None:
        beats.append(run_id)
        record_heartbeat(engine, run_id, at)
        assert not lab.count("labellings")
        if len(beats) == 2:
            path = "/v2/concurrency_limits/decrement-with-lease"
            ask(prefect_server, "POST", path, {"lease_id": held})

    monkeypatch.setattr(module, "record_heartbeat", beat)
    assert lab.label(gpu).n_labelled == 1
    assert len(beats) >= 2
    assert _n_taken(prefect_server) == 0


@pytest.mark.slow
def test_a_run_that_is_stopped_while_it_waits_is_cancelled(
    lab: Lab, gpu: Path, held: str, prefect_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "is_stopping", lambda _: True)
    with pytest.raises(Cancelled):
        lab.label(gpu)
    assert lab.rows("SELECT status FROM runs") == [("cancelled",)]
    assert _n_taken(prefect_server) == 1
