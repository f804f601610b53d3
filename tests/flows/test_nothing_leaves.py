"""Nothing is sent anywhere, and nothing is written but to the home, the cache and the outputs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.flows.build import REPOSITORY, command, write_clip
from tests.flows.servers import ask, started, trigger, wait_until
from tests.flows.watched_calls import asked, changed, watched

# Devices, and what the kernel wants to know of a process.
NOWHERE = (Path("/dev"), Path("/proc"))


class _Person:
    """Somebody's machine: a home of their own, a folder to work in, recordings."""

    def __init__(self, folder: Path, weights: Path) -> None:
        self.folder = folder
        self.sounds, self.home, self.out = (folder / name for name in ("in", "home", "out"))
        self.cwd, self.own, self.passing = (folder / name for name in ("work", "own", "tmp"))
        for made in (self.cwd, self.own, self.passing, self.out):
            made.mkdir()
        for seed in range(3):
            write_clip(self.sounds / f"{seed}.wav", seed)
        # Nothing that forbids statistics, CI included, which some programs take for that.
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.own),
            "TMPDIR": str(self.passing),
            "PYTHONPATH": str(REPOSITORY),
            "PYTHONDONTWRITEBYTECODE": "1",
            "AUDIOSET_WEIGHTS": str(weights),
        }

    @property
    def allowed(self) -> tuple[Path, ...]:
        cache = self.own / ".cache" / "audioset-flows"
        # The folder of all caches is made where there is none.
        return (self.home, cache, cache.parent, self.out, self.passing, *NOWHERE)

    def run(self, *line: str | Path) -> Path:
        """Run a command to its end; the folder of its calls."""
        calls = self.folder / "calls" / str(line[0])
        done = subprocess.run(
            watched(command(*line), calls), cwd=self.cwd, env=self.environment,
            capture_output=True, timeout=240, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr.decode()
        return calls


@pytest.fixture
def person(tmp_path: Path, placeholder: Path) -> _Person:
    return _Person(tmp_path, placeholder)


def test_the_recorder_sees_what_a_process_and_its_children_do(tmp_path: Path) -> None:
    child = "import socket; socket.socket(type=socket.SOCK_DGRAM).connect(('192.0.2.1', 53))"
    lines = (
        "import os, pathlib, socket, subprocess, sys",
        f"subprocess.run([sys.executable, '-c', {child!r}])",
        "socket.socket(socket.AF_INET6, socket.SOCK_DGRAM).sendto(b'x', ('2001:db8::1', 53))",
        "pathlib.Path('here').mkdir()",
        "pathlib.Path('here/a').write_text('x')",
        "os.rename('here/a', 'b')",
        "open('/dev/null', 'w')",
        "open('/etc/hostname').read()",
        "socket.socket(type=socket.SOCK_DGRAM).connect(('127.0.0.1', 53))",
    )
    script = "\n".join((lines[0], lines[1], f"try: {lines[2]}\nexcept OSError: pass", *lines[3:]))
    calls = tmp_path / "calls"
    subprocess.run(watched([sys.executable, "-c", script], calls), cwd=tmp_path, check=True)
    assert asked(calls) == {"192.0.2.1", "2001:db8::1"}
    wanted = {str(tmp_path / name) for name in ("here", "here/a", "b")}
    assert changed(calls, tmp_path, NOWHERE) == wanted
    assert changed(calls, tmp_path, (*NOWHERE, tmp_path / "here")) == {str(tmp_path / "b")}


@pytest.mark.slow
def test_label_query_and_report(person: _Person) -> None:
    for line in (
        ("label", person.sounds, "--home", person.home),
        ("query", "--under", "Animal", "--min-score", "0.1", "--home", person.home),
        ("report", "--home", person.home, "--out", person.out / "page.html"),
    ):
        calls = person.run(*line)
        assert asked(calls) == set(), line
        assert changed(calls, person.cwd, person.allowed) == set(), line
    assert sorted(path.name for path in person.own.iterdir()) == [".cache"]
    assert [path.name for path in (person.own / ".cache").iterdir()] == ["audioset-flows"]
    assert list(person.cwd.iterdir()) == []


@pytest.mark.slow
@pytest.mark.server
def test_serve(person: _Person) -> None:
    calls = person.folder / "calls"
    line = ("serve", "--root", person.sounds, "--cron", "0 0 1 1 *", "--settle", "0",
            "--home", person.home)  # fmt: skip
    log = person.folder / "serve.log"
    with started(
        watched(command(*line), calls), person.environment, log, cwd=person.cwd
    ) as process:
        wait_until(lambda: "stop with Ctrl-C" in process.said, 240, what=lambda: process.said)
        url = process.said.split("Prefect's API: ")[1].split()[0]
        run = trigger(url, "ingest-new/scheduled")

        def is_over() -> bool:
            state = ask(url, "GET", f"/flow_runs/{run}")["state"]["type"]
            return state in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")

        wait_until(is_over, 240, what=lambda: process.said)
        assert process.end(signal.SIGTERM, 120) == 0, process.said
    assert "3 clips labelled" in process.said
    assert asked(calls) == set()
    assert changed(calls, person.cwd, person.allowed) == set()
