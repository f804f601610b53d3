"""Real Prefect servers and workers for tests, each in its own processes, ended with the block."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx

from tests.flows.build import REPOSITORY

T = TypeVar("T")

_PREFECT = Path(sys.executable).with_name("prefect")
# A test does not wait for the minute in which a person would not notice.
_FAST = {
    "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "2",
    "PREFECT_WORKER_QUERY_SECONDS": "1",
    "PREFECT_RUNNER_POLL_FREQUENCY": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    "PREFECT_CLI_PROMPT": "false",
}


@dataclass(slots=True)
class Process:
    """A started command whose output goes to a file."""

    popen: subprocess.Popen[bytes]
    log: Path

    @property
    def said(self) -> str:
        """All that it has printed so far."""
        return self.log.read_text(errors="replace")

    def end(self, kind: signal.Signals = signal.SIGTERM, timeout_s: float = 30) -> int:
        """Send a signal to the process alone, wait for its end; the exit code."""
        self.popen.send_signal(kind)
        return self.popen.wait(timeout_s)


@dataclass(frozen=True, slots=True)
class Server:
    """A Prefect server. ``environment`` is for commands and workers that report to it."""

    url: str
    environment: Mapping[str, str]
    process: Process

    def post(self, path: str, **body: Any) -> Any:
        """The answer to a POST of JSON, e.g. ``post("/flow_runs/filter", limit=1)``."""
        return ask(self.url, "POST", path, body, self.headers)

    def get(self, path: str) -> Any:
        return ask(self.url, "GET", path, headers=self.headers)

    @property
    def headers(self) -> Mapping[str, str]:
        """What tells the server that the requests are ours, where it was given a password."""
        password = self.environment.get("PREFECT_API_AUTH_STRING")
        if password is None:
            return {}
        own = {
            "authorization": f"Basic {b64encode(password.encode()).decode()}",
            "prefect-csrf-client": "tests",
        }
        token = ask(self.url, "GET", "/csrf-token?client=tests", headers=own)["token"]
        return {**own, "prefect-csrf-token": token}

    def deployment(self, name: str) -> Any:
        """A deployment by ``FLOW/DEPLOYMENT``."""
        return self.get(f"/deployments/name/{name}")

    def trigger(self, name: str, **parameters: Any) -> str:
        """Start a run of a deployment; the run's id."""
        return trigger(self.url, name, self.headers, **parameters)

    def state(self, run_id: str) -> str:
        """COMPLETED, RUNNING, CRASHED, ..."""
        return str(self.get(f"/flow_runs/{run_id}")["state_type"])


def ask(
    url: str, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None
) -> Any:
    """The API's answer to one request; a server that is busy (SQLite) is asked again.

    It may say so, or say nothing for longer than one waits. What only reads is asked again then.
    """
    only_reads = method == "GET" or path.endswith("/filter")
    for left in reversed(range(20)):
        try:
            answer = httpx.request(method, url + path, json=body, headers=headers, timeout=30)
        except httpx.ReadTimeout:
            if not only_reads or left < 17:
                raise
            continue
        if answer.status_code != httpx.codes.SERVICE_UNAVAILABLE:
            break
        time.sleep(0.5)
    answer.raise_for_status()
    return answer.json() if answer.content else None


def trigger(
    url: str, name: str, headers: Mapping[str, str] | None = None, **parameters: Any
) -> str:
    """Start a run of the deployment ``FLOW/DEPLOYMENT``; the run's id."""
    deployment = ask(url, "GET", f"/deployments/name/{name}", headers=headers)
    body = {"parameters": parameters, "state": {"type": "SCHEDULED"}}
    path = f"/deployments/{deployment['id']}/create_flow_run"
    return str(ask(url, "POST", path, body, headers)["id"])


def wait_until(
    predicate: Callable[[], T], timeout_s: float = 60, every_s: float = 0.2, what: object = ""
) -> T:
    """The predicate's first true value; fails after the time, with `what` or what it returns."""
    deadline = time.monotonic() + timeout_s
    while not (value := predicate()):
        if time.monotonic() > deadline:
            said = what() if callable(what) else what
            raise AssertionError(f"not within {timeout_s:g} s: {said}")
        time.sleep(every_s)
    return value


def free_port() -> int:
    """A loopback port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def clean_environment(folder: Path, **more: str) -> dict[str, str]:
    """This process's environment without Prefect's settings, a profile of its own, no server."""
    own = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PREFECT_", "AUDIOSET_"))
    }
    for name in ("AUDIOSET_ASSETS", "AUDIOSET_CACHE"):
        if name in os.environ:
            own[name] = os.environ[name]
    return {
        **own,
        **_FAST,
        "PREFECT_HOME": str(folder / "prefect"),
        "PYTHONPATH": str(REPOSITORY),
        **more,
    }


@contextmanager
def started(
    line: Sequence[str | bytes | Path],
    environment: Mapping[str, str],
    log: Path,
    cwd: Path | None = None,
) -> Iterator[Process]:
    """Run a command in a session of its own; at the end of the block the session is killed."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        popen = subprocess.Popen(
            [os.fspath(part) for part in line], env=dict(environment), cwd=cwd or log.parent,
            stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
        )  # fmt: skip
    try:
        yield Process(popen, log)
    finally:
        if popen.poll() is None:
            popen.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                popen.wait(60)  # a server of its own ends after it, and on a busy machine slowly
        # What it has left behind, such as flow runs in processes of their own.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(popen.pid, signal.SIGKILL)
        popen.wait(10)


@contextmanager
def running_server(
    folder: Path, database_url: str | None = None, address: str = "127.0.0.1", **settings: str
) -> Iterator[Server]:
    """``prefect server start`` on a free port, on SQLite in the folder or on a given URL.

    Args:
        folder: For its database, profile and log.
        database_url: ``postgresql+asyncpg://user:password@host/name``. None: SQLite.
        address: Where it listens.
        settings: Further environment variables, also of everything that reports to it.
    """
    port = free_port()
    url = f"http://{address}:{port}/api"
    environment = clean_environment(folder, **settings)
    own = {
        "PREFECT_SERVER_API_PORT": str(port),
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": database_url
        or f"sqlite+aiosqlite:///{folder.absolute() / 'server.db'}",
    }
    line = (_PREFECT, "server", "start", "--host", address, "--port", str(port))
    with started(line, {**environment, **own}, folder / "server.log") as process:
        wait_until(lambda: _answers(url, process), 120, what=lambda: process.said[-4000:])
        yield Server(url, {**environment, "PREFECT_API_URL": url}, process)


@contextmanager
def running_worker(
    server: Server,
    folder: Path,
    pool: str = "audioset",
    name: str = "worker",
    limit: int | None = None,
    before: Sequence[str] = (),
    **settings: str,
) -> Iterator[Process]:
    """A process worker; the pool is made if it is not there.

    Args:
        folder: Where it works, and for its log.
        pool: The work pool.
        name: Its name, and its log's.
        limit: So many flow runs at once.
        before: What stands before its command line, e.g. to run it on another host.
        settings: Further environment variables, which its flow runs inherit.
    """
    line: list[str | bytes | Path] = [
        *before,
        _PREFECT,
        "worker",
        "start",
        "--pool",
        pool,
        "--type",
        "process",
        "--name",
        name,
    ]
    if limit is not None:
        line += ["--limit", str(limit)]
    environment = {**server.environment, **settings}
    with started(line, environment, folder / f"{name}.log") as process:
        wait_until(
            lambda: _is_online(server, pool, name, process), 60, what=lambda: process.said[-4000:]
        )
        yield process


def prefect(
    *arguments: str | Path, server: Server, cwd: Path, timeout_s: float = 120
) -> subprocess.CompletedProcess[str]:
    """Run Prefect's own command line against a server."""
    return subprocess.run(
        [_PREFECT, *arguments], env=dict(server.environment), cwd=cwd, capture_output=True,
        stdin=subprocess.DEVNULL, text=True, timeout=timeout_s, check=False,
    )  # fmt: skip


def processes_with(marker: str) -> list[int]:
    """Ids of the processes whose command line or environment contains a text; not this one."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            seen = (folder / "cmdline").read_bytes() + (folder / "environ").read_bytes()
            if os.fsencode(marker) in seen and int(folder.name) != os.getpid():
                found.append(int(folder.name))
    return found


def kill_all_with(marker: str) -> None:
    """Kill what `processes_with` finds."""
    for pid in processes_with(marker):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _answers(url: str, process: Process) -> bool:
    assert process.popen.poll() is None, process.said[-4000:]
    with contextlib.suppress(httpx.HTTPError):
        return httpx.get(f"{url}/health", timeout=2).is_success
    return False


def _is_online(server: Server, pool: str, name: str, process: Process) -> bool:
    assert process.popen.poll() is None, process.said[-4000:]
    with contextlib.suppress(httpx.HTTPError):
        workers = server.post(f"/work_pools/{pool}/workers/filter")
        return any(w["name"] == name and w["status"] == "ONLINE" for w in workers)
    return False
