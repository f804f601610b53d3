"""Ctrl-C, SIGTERM, SIGHUP: a process that ends by `flows.stopping`, without Prefect."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from flows import stopping
from flows.prefect_server import own_server, tethered
from flows.stopping import LINE
from tests.flows.build import REPOSITORY, command
from tests.flows.servers import wait_until
from tests.flows.terminals import (
    CTRL_C,
    Terminal,
    catches,
    in_terminal,
    left_with,
    when,
)

CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}
Run = Callable[[str], AbstractContextManager[Terminal]]
# What is tried runs like a command does: watched, and then ended by what `main` does at its end.
_PROGRAM = """
import sys, time
from flows import stopping
stopping.GRACE_S = {grace_s}
stop = stopping.stopper()
stop.watch()
def main():
{body}
try:
    main()
    stop.begin_at_once()
except KeyboardInterrupt:
    print("in order")
if stop.code is not None:
    stop.tell()
sys.exit(stop.code or 0)
"""


def program(body: str, grace_s: float = 60.0) -> list[str | bytes]:
    indented = "\n".join(f"    {line}" for line in body.strip().splitlines())
    return [sys.executable, "-c", _PROGRAM.format(body=indented, grace_s=grace_s)]


@pytest.fixture
def mark() -> Iterator[str]:
    yield (mark := uuid.uuid4().hex)
    assert left_with(mark) == []


@pytest.fixture
def run(tmp_path: Path, mark: str) -> Callable[..., AbstractContextManager[Terminal]]:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}

    def start(body: str, grace_s: float = 60.0) -> AbstractContextManager[Terminal]:
        return in_terminal(program(body, grace_s), environment, tmp_path, mark)

    return start


def ready(terminal: Terminal) -> None:
    when(terminal, lambda: "ready" in terminal.said)


@pytest.mark.slow
def test_the_line_is_written_before_another_thread_ends_the_process(tmp_path: Path) -> None:
    # The pipe is full, so that the main thread waits inside `tell` when the signal comes.
    body = """
import fcntl, os
fcntl.fcntl(2, fcntl.F_SETPIPE_SZ, 4096)
os.write(2, b"." * 4096)
stop.begin_at_once()
print("ready", flush=True)
stop.tell()
time.sleep(60)
"""
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    with subprocess.Popen(
        program(body), env=environment, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as popen:
        assert popen.stdout is not None
        assert popen.stderr is not None
        popen.stdout.readline()
        time.sleep(0.3)
        popen.send_signal(signal.SIGINT)
        time.sleep(0.2)
        assert popen.poll() is None
        assert popen.stderr.read().decode().lstrip(".") == f"{LINE}\n"
        assert popen.wait(10) == 130


@pytest.mark.parametrize("number", CODES)
def test_the_code_says_which_signal_it_was(run: Run, number: signal.Signals) -> None:
    with run("print('ready'); time.sleep(60)") as terminal:
        ready(terminal)
        terminal.popen.send_signal(number)
        assert terminal.wait(10) == CODES[number]
        assert terminal.lines == ["ready", "in order", LINE]


def test_a_second_ctrl_c_ends_at_once(run: Run) -> None:
    body = """
try:
    print('ready'); time.sleep(60)
finally:
    print('waiting'); time.sleep(60)
"""
    with run(body) as terminal:
        ready(terminal)
        terminal.type(CTRL_C)
        when(terminal, lambda: "waiting" in terminal.said)
        time.sleep(stopping.SAME_REQUEST_S + 0.1)
        began = time.monotonic()
        terminal.type(CTRL_C)
        assert terminal.wait(10) == 130
        assert time.monotonic() - began < 3
        assert [line.replace("^C", "") for line in terminal.lines] == ["ready", "waiting", LINE]


def test_a_signal_sent_twice_at_once_is_one_request(run: Run) -> None:
    """As `timeout` sends it, to the process and to the group, and a terminal that closes."""
    body = """
try:
    print('ready'); time.sleep(60)
finally:
    time.sleep(0.5)
    print('put in order')
"""
    with run(body) as terminal:
        ready(terminal)
        terminal.popen.send_signal(signal.SIGINT)
        os.killpg(terminal.popen.pid, signal.SIGINT)
        assert terminal.wait(10) == 130
        assert terminal.lines == ["ready", "put in order", "in order", LINE]


def test_what_does_not_end_is_ended_when_the_time_is_over(run: Run) -> None:
    body = """
while True:
    try:
        print('ready'); time.sleep(60)
    except BaseException:
        pass
"""
    with run(body, grace_s=1.0) as terminal:
        ready(terminal)
        began = time.monotonic()
        terminal.type(CTRL_C)
        assert terminal.wait(10) == 130
        assert 1.0 <= time.monotonic() - began < 4
        assert terminal.lines[-1] == LINE


def test_who_has_handlers_of_its_own_is_ended_in_time_too(run: Run) -> None:
    body = """
import asyncio, signal
async def serve():
    stop.begin_at_once()
    loop = asyncio.get_running_loop()
    for number in stop.watched:
        loop.add_signal_handler(number, stop.end_in_time)
    print('ready')
    await asyncio.sleep(60)
asyncio.run(serve())
"""
    with run(body, grace_s=1.0) as terminal:
        ready(terminal)
        began = time.monotonic()
        terminal.type(CTRL_C)
        assert terminal.wait(10) == 0
        assert 1.0 <= time.monotonic() - began < 4


def test_native_code_that_looks_at_no_signal_is_ended_too(run: Run) -> None:
    body = """
import hashlib
print('ready')
hashlib.pbkdf2_hmac('sha256', b'', b'', 2**31 - 1)
"""
    with run(body, grace_s=1.0) as terminal:
        ready(terminal)
        time.sleep(0.1)
        terminal.type(CTRL_C)
        assert terminal.wait(10) == 130
        assert terminal.lines[-1] == LINE


def test_a_finalizer_that_swallows_the_exception_delays_nothing(run: Run) -> None:
    body = """
class Late:
    def __del__(self):
        print('ready')
        time.sleep(60)
late = Late()
del late
time.sleep(60)
"""
    with run(body) as terminal:
        ready(terminal)
        terminal.type(CTRL_C)
        assert terminal.wait(10) == 130
        assert [line.replace("^C", "") for line in terminal.lines] == ["ready", "in order", LINE]


def test_threads_that_fail_meanwhile_say_nothing(run: Run) -> None:
    body = """
import threading
stopped = threading.Event()
def work():
    stopped.wait()
    raise RuntimeError('the server is gone')
thread = threading.Thread(target=work)
thread.start()
try:
    print('ready'); time.sleep(60)
finally:
    stopped.set()
    thread.join()
"""
    with run(body) as terminal:
        ready(terminal)
        terminal.type(CTRL_C)
        assert terminal.wait(10) == 130
        assert [line.replace("^C", "") for line in terminal.lines] == ["ready", "in order", LINE]


def test_the_bar_makes_way_and_the_cursor_comes_back(run: Run) -> None:
    body = r"""
sys.stderr.write('\x1b[?25lready 50 %')
sys.stderr.flush()
with stop.at_once():
    time.sleep(60)
"""
    with run(body) as terminal:
        ready(terminal)
        terminal.type(CTRL_C)
        assert terminal.wait(10) == 130
        assert terminal.raw.rindex(b"\x1b[?25h") > terminal.raw.rindex(b"\x1b[?25l")
        assert terminal.raw.endswith(f"\r\x1b[2K\x1b[?25h{LINE}\r\n".encode())


def test_a_terminal_that_was_stopped_or_closed_holds_nobody_up(run: Run) -> None:
    for leave in (lambda t: t.type(b"\x13" + CTRL_C), lambda t: t.hang_up()):
        with run("print('ready'); time.sleep(60)") as terminal:
            ready(terminal)
            leave(terminal)
            assert terminal.wait(10) in (130, 129)


def test_what_is_ignored_stays_so(tmp_path: Path) -> None:
    """`nohup`, and a shell that starts a command in the background."""
    for number in (signal.SIGHUP, signal.SIGINT):
        with subprocess.Popen(
            program("print('ready', flush=True); time.sleep(60)"),
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)}, cwd=tmp_path,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            preexec_fn=lambda number=number: signal.signal(number, signal.SIG_IGN),  # type: ignore[misc]
        ) as popen:  # fmt: skip
            assert popen.stdout is not None
            assert popen.stdout.readline() == b"ready\n"
            popen.send_signal(number)
            time.sleep(0.2)
            assert popen.poll() is None
            popen.terminate()
            assert popen.wait(10) == 143


def test_a_file_that_has_the_descriptor_of_a_closed_stderr_stays_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "labels.db"
    text = f"""
import os, time
assert os.open({str(file)!r}, os.O_CREAT | os.O_RDWR) == 2
from flows.stopping import stopper
stopper().watch()
with stopper().at_once():
    print('ready', flush=True)
    time.sleep(60)
"""
    line = ["sh", "-c", 'exec "$@" 2>&-', "sh", sys.executable, "-c", text]
    with subprocess.Popen(
        line, env={**os.environ, "PYTHONPATH": str(REPOSITORY)}, stdout=subprocess.PIPE
    ) as popen:
        assert popen.stdout is not None
        assert popen.stdout.readline() == b"ready\n"
        popen.terminate()
        assert popen.wait(10) == 143
    assert file.read_bytes() == b""


@pytest.mark.parametrize("number", CODES)
@pytest.mark.parametrize("as_group", [False, True])
def test_the_first_second_of_a_command(
    tmp_path: Path, mark: str, number: signal.Signals, as_group: bool
) -> None:
    """While modules are imported: there is nothing to put in order, and no traceback."""
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    line = command("query", "--home", tmp_path)
    with in_terminal(line, environment, tmp_path, mark) as terminal:
        when(terminal, lambda: catches(terminal.popen.pid, signal.SIGHUP))
        if as_group:
            os.killpg(terminal.popen.pid, number)
        else:
            terminal.popen.send_signal(number)
        assert terminal.wait(10) == CODES[number]
        assert terminal.lines == [LINE]


# --- what a command has started ------------------------------------------------------------------

_STARTER = """
import signal, sys, time
from pathlib import Path
from flows.prefect_server.own_server import MARK, OwnDatabase, _start
import os
log = Path(sys.argv[1])
process = _start(sys.argv[2:], dict(os.environ), log)
print(process.pid, flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("is_deaf", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.slow
def test_a_server_ends_with_the_process_that_started_it(tmp_path: Path, is_deaf: bool) -> None:
    """However that ends; also one that does not listen to SIGTERM."""
    (tmp_path / "serving.py").write_text(
        "import signal, time\n"
        + ("signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" if is_deaf else "")
        + "print('up', flush=True)\ntime.sleep(60)\n"
    )
    path = f"{REPOSITORY}:{tmp_path}"
    log = tmp_path / "log"
    with subprocess.Popen(
        [sys.executable, "-c", _STARTER, str(log), "serving"],
        env={**os.environ, "PYTHONPATH": path}, stdout=subprocess.PIPE,
    ) as popen:  # fmt: skip
        assert popen.stdout is not None
        server = int(popen.stdout.readline())
        wait_until(lambda: log.exists() and "up" in log.read_text(), 20)
        assert os.getpgid(server) == os.getsid(server) == server  # no signal of the terminal
        popen.kill()
        popen.wait(10)
    wait_until(lambda: not Path(f"/proc/{server}").exists(), 10)


def test_what_carries_the_mark_ends_and_nothing_else(tmp_path: Path) -> None:
    sleep = [sys.executable, "-c", "import time; time.sleep(60)"]
    mark = f"{tmp_path}/prefect.db"
    marked = subprocess.Popen(sleep, env={**os.environ, tethered.MARK: mark})
    other = subprocess.Popen(sleep, env={**os.environ, tethered.MARK: f"{mark}s"})
    try:
        wait_until(lambda: tethered._marked(f"{tethered.MARK}={mark}") == [marked.pid], 10)
        with own_server.own_database(tmp_path) as database:
            assert database.path == Path(mark)
        assert marked.wait(10) == -signal.SIGTERM
        assert other.poll() is None
    finally:
        for popen in (marked, other):
            popen.kill()
            popen.wait(10)
