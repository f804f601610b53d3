"""Commands in a pseudo-terminal of their own, and signals as a terminal sends them.

The command leads a session whose terminal this is, as a shell's foreground job: what is typed
reaches it, Ctrl-C goes to the whole foreground group, and closing the terminal hangs it up.
"""

from __future__ import annotations

import contextlib
import os
import pty
import re
import select
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.flows.servers import wait_until

CTRL_C = b"\x03"
_ESCAPES = re.compile(rb"\x1b\[[0-9;?]*[A-Za-z]")


class Terminal:
    """A command in a terminal, and all that it has written there."""

    def __init__(self, popen: subprocess.Popen[bytes], master: int) -> None:
        self.popen, self._master, self._data = popen, master, bytearray()
        self._is_closed = False
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        while not self._is_closed:
            if not select.select([self._master], [], [], 0.1)[0]:
                continue
            try:
                self._data += os.read(self._master, 65_536)
            except OSError:
                return  # nobody has the terminal open any more

    @property
    def raw(self) -> bytes:
        """What was written, escape codes and all."""
        return bytes(self._data)

    @property
    def said(self) -> str:
        """What was written, without colours and movements of the cursor."""
        return _ESCAPES.sub(b"", self.raw).decode(errors="replace")

    @property
    def lines(self) -> list[str]:
        """What stands on the lines at last: a bar is drawn over itself, with carriage returns."""
        ends = (line.rstrip("\r").rsplit("\r", 1)[-1] for line in self.said.split("\n"))
        return [line.strip() for line in ends if line.strip()]

    def type(self, keys: bytes) -> None:
        """Keys that a person presses."""
        os.write(self._master, keys)

    def hang_up(self) -> None:
        """Close the terminal: the kernel sends SIGHUP to the foreground group."""
        if not self._is_closed:
            self._is_closed = True
            self._reader.join()
            os.close(self._master)

    def wait(self, timeout_s: float) -> int:
        """The exit code, as a shell would show it."""
        code = self.popen.wait(timeout_s)
        self._reader.join(1)  # it ends with the last process that has the terminal open
        return code if code >= 0 else 128 - code


@contextmanager
def in_terminal(
    line: Sequence[str | bytes], environment: Mapping[str, str], cwd: Path, mark: str
) -> Iterator[Terminal]:
    """Run a command in a terminal; what carries the mark in its environment is killed at the end.

    Args:
        line: The command line.
        environment: Its environment, which gets ``STOP_TEST=mark``.
        cwd: Where it runs.
        mark: By which `left_with` finds the command and all that it started.
    """
    master, slave = pty.openpty()
    try:
        popen = subprocess.Popen(
            line, env={**environment, "STOP_TEST": mark, "TERM": "xterm"}, cwd=cwd, stdin=slave,
            stdout=slave, stderr=slave, preexec_fn=_take_terminal,
        )  # fmt: skip
    finally:
        os.close(slave)
    terminal = Terminal(popen, master)
    try:
        yield terminal
    finally:
        for pid in left_with(mark):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        popen.wait(10)
        terminal.hang_up()


def _take_terminal() -> None:
    import fcntl
    import termios

    os.setsid()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)  # a shell in the background has it ignored


def left_with(mark: str) -> list[int]:
    """Ids of the processes that carry the mark and are no zombies."""
    wanted = os.fsencode(f"STOP_TEST={mark}")
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if wanted in (folder / "environ").read_bytes().split(b"\0"):
                found.append(int(folder.name))
    return found


def wait_until_gone(mark: str, within_s: float) -> None:
    """No process with the mark is left after so many seconds."""

    def commands() -> list[bytes]:
        found = []
        for pid in left_with(mark):
            with contextlib.suppress(OSError):
                found.append(Path(f"/proc/{pid}/cmdline").read_bytes())
        return found

    wait_until(lambda: not left_with(mark), within_s, 0.05, commands)


def catches(pid: int, number: signal.Signals) -> bool:
    """Whether a process has a handler for the signal."""
    status = Path(f"/proc/{pid}/status").read_text()
    caught = next(line for line in status.splitlines() if line.startswith("SigCgt"))
    return bool(int(caught.split()[1], 16) >> (number - 1) & 1)


def when(terminal: Terminal, is_time: Callable[[], object], timeout_s: float = 60) -> None:
    """Wait for a moment in the command's life; fail if it ends before."""

    def look() -> bool:
        assert terminal.popen.poll() is None, (terminal.popen.returncode, terminal.lines)
        return bool(is_time())

    wait_until(look, timeout_s, 0.01, lambda: terminal.lines)
