"""A run of many machines waits for its parts, also while Prefect's server is away."""

from __future__ import annotations

from contextlib import nullcontext
from threading import Event
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import httpx
import pytest
from prefect.states import Completed

from tasks import run_partition

REQUEST = httpx.Request("GET", "http://127.0.0.1/api/flow_runs")


def _status(code: int) -> httpx.HTTPStatusError:
    return httpx.HTTPStatusError("no", request=REQUEST, response=httpx.Response(code))


def _answering(monkeypatch: pytest.MonkeyPatch, *answers: object) -> None:
    left = iter(answers)

    def read_flow_run(_: object) -> Any:
        answer = next(left)
        if isinstance(answer, Exception):
            raise answer
        return SimpleNamespace(state=answer, name="part")

    client = SimpleNamespace(read_flow_run=read_flow_run)
    monkeypatch.setattr(run_partition, "get_client", lambda **_: nullcontext(client))
    monkeypatch.setattr(run_partition, "_POLL_S", 0.0)


def test_a_server_that_is_away_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    away = (_status(500), _status(503), httpx.ConnectError("refused"), httpx.ReadTimeout("late"))
    _answering(monkeypatch, *away, Completed())
    assert run_partition._wait(uuid4(), "run", "sqlite://").is_completed()


def test_a_server_that_stays_away_or_refuses_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    _answering(monkeypatch, _status(404))
    with pytest.raises(httpx.HTTPStatusError):
        run_partition._wait(uuid4(), "run", "sqlite://")
    monkeypatch.setattr(run_partition, "_AWAY_S", -1.0)
    _answering(monkeypatch, _status(500))
    with pytest.raises(httpx.HTTPStatusError):
        run_partition._wait(uuid4(), "run", "sqlite://")


def test_a_run_that_is_stopped_does_not_wait_for_the_server(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _answering(monkeypatch, _status(500))
    stop = Event()
    stop.set()
    monkeypatch.setattr(run_partition, "stop_event", lambda _: stop)
    with pytest.raises(httpx.HTTPStatusError):
        run_partition._wait(uuid4(), "run", "sqlite://")
