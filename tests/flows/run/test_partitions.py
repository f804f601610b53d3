"""A run of many machines waits for its parts, also while Prefect's server is away."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from datetime import timedelta
from threading import Event
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import httpx
import pytest
from prefect.client.schemas.objects import State
from prefect.states import Cancelling, Completed, Pending, Running

from tasks import run_partition
from tasks.labelling.job import now

REQUEST = httpx.Request("GET", "http://127.0.0.1/api/flow_runs")


def _status(code: int) -> httpx.HTTPStatusError:
    return httpx.HTTPStatusError("no", request=REQUEST, response=httpx.Response(code))


def _answering(monkeypatch: pytest.MonkeyPatch, *answers: object) -> Any:
    left = iter(answers)

    def read_flow_run(_: object) -> Any:
        answer = next(left)
        if isinstance(answer, Exception):
            raise answer
        return SimpleNamespace(state=answer, name="part")

    client = SimpleNamespace(read_flow_run=read_flow_run)
    monkeypatch.setattr(run_partition, "get_client", lambda **_: nullcontext(client))
    monkeypatch.setattr(run_partition, "_POLL_S", 0.0)
    return client


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


@pytest.mark.parametrize("state", [Pending, Running, Cancelling])
@pytest.mark.parametrize(
    ("seen_s", "in_state_s", "is_lost"),
    [
        (None, 1700, False),
        (None, 1900, True),
        (1900, 1900, True),
        (10, 9000, False),
        (9000, 9, False),
    ],
)
def test_a_part_that_is_silent_for_half_an_hour_is_given_up(
    monkeypatch: pytest.MonkeyPatch,
    state: Callable[[], State[Any]], seen_s: float | None, in_state_s: float, is_lost: bool,
) -> None:  # fmt: skip
    """Its worker may have died before the part had a row: it stays Pending for ever."""
    part, ago = uuid4(), lambda seconds: now() - timedelta(seconds=seconds)
    other = SimpleNamespace(flow_run_id=str(uuid4()), seen_at=now())
    mine = SimpleNamespace(flow_run_id=str(part), seen_at=seen_s and ago(seen_s))
    children = [other, mine] if seen_s else [other]
    monkeypatch.setattr(run_partition, "engine_for", lambda _: None)
    monkeypatch.setattr(run_partition, "child_runs", lambda *_: children)
    given_up = []

    def give_up(_: object, state: State[Any], *, force: bool) -> None:
        assert force
        given_up.append(state.name)

    silent = state().model_copy(update={"timestamp": ago(in_state_s)})
    client = _answering(monkeypatch, silent, Completed())
    client.set_flow_run_state = give_up
    run_partition._wait(part, "run", "sqlite://")
    assert given_up == ["Cancelled" if state is Cancelling else "Crashed"] * is_lost


def test_a_run_that_is_stopped_does_not_wait_for_the_server(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _answering(monkeypatch, _status(500))
    stop = Event()
    stop.set()
    monkeypatch.setattr(run_partition, "stop_event", lambda _: stop)
    with pytest.raises(httpx.HTTPStatusError):
        run_partition._wait(uuid4(), "run", "sqlite://")
