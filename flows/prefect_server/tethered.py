"""Runs a module as ``python -m`` would, and ends when the process that started it has ended.

    python -P tethered.py DESCRIPTOR MODULE [ARGUMENT...]

The descriptor reads from a pipe whose other end only that process holds, so that the system closes
it however the process ends. What carries the same mark in its environment ends with this process.
Only the standard library is imported here, and nothing of this project.
"""

from __future__ import annotations

import contextlib
import gc
import os
import runpy
import signal
import sys
import threading
import time
from pathlib import Path

MARK = "AUDIOSET_SERVES"
_END_WITHIN_S = 3.0


def main() -> None:
    """Run the module that the arguments name."""
    reading, sys.argv = int(sys.argv[1]), sys.argv[2:]
    threading.Thread(target=_end_with, args=(reading,), name="tether", daemon=True).start()
    # Imported modules stay: to search them for garbage takes an eighth of the start.
    gc.set_threshold(50_000, 20, 20)
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


def stop_marked(mark: str, within_s: float) -> None:
    """End the processes, but this one, that have ``NAME=VALUE`` in their environment."""
    left = _marked(mark)
    for kind in (signal.SIGTERM, signal.SIGKILL):
        _send(left, kind)
        deadline = time.monotonic() + within_s
        while left and time.monotonic() < deadline:
            time.sleep(0.1)
            left = [pid for pid in _marked(mark) if pid in left]


def kill_marked(mark: str) -> None:
    """As `stop_marked`, at once."""
    _send(_marked(mark), signal.SIGKILL)


def _send(pids: list[int], kind: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, kind)


def _end_with(reading: int) -> None:
    os.read(reading, 1)
    if MARK in os.environ:  # first the processes that report to this one
        stop_marked(f"{MARK}={os.environ[MARK]}", _END_WITHIN_S)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_END_WITHIN_S)
    os.kill(os.getpid(), signal.SIGKILL)


def _marked(mark: str) -> list[int]:
    found = []
    for environment in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if os.fsencode(mark) in environment.read_bytes().split(b"\0"):
                found.append(int(environment.parent.name))
    return [pid for pid in found if pid != os.getpid()]


if __name__ == "__main__":
    main()
