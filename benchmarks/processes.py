"""Children: every way runs as a process of its own, and is asked what it used.

Nothing heavy is imported here or in whoever calls this: a child's peak memory begins with its
parent's.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).resolve().parents[1]

_SHOWN_OF_ERROR = 400


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a child ended.

    ``cpu_s`` is of the process and of those that it waited for, ``peak_mb`` of the largest of them.
    ``said`` is the last JSON object that it printed.
    """

    wall_s: float
    cpu_s: float
    peak_mb: float
    said: dict[str, Any]
    error: str = ""


def run_python(
    arguments: Sequence[str],
    *,
    environment: Mapping[str, str] | None = None,
    timeout_s: float = 3600.0,
    tree: Path = ROOT,
) -> Outcome:
    """Run ``python arguments`` with a tree's packages; a failure is in the outcome, not raised."""
    own_path = os.pathsep.join(filter(None, (str(tree), os.environ.get("PYTHONPATH"))))
    variables = {**os.environ, "PYTHONPATH": own_path, **(environment or {})}
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        began = time.perf_counter()
        child = subprocess.Popen(
            [sys.executable, *arguments], cwd=tree, env=variables, stdout=output, stderr=errors
        )
        timer = threading.Timer(timeout_s, child.send_signal, (signal.SIGTERM,))
        timer.start()
        _, status, usage = os.wait4(child.pid, 0)
        wall_s = time.perf_counter() - began
        timer.cancel()
        child.returncode = os.waitstatus_to_exitcode(status)
        said = _last_object(_text(output))
        error = "" if child.returncode == 0 else _why(child.returncode, _text(errors))
    cpu_s = usage.ru_utime + usage.ru_stime
    return Outcome(wall_s, cpu_s, usage.ru_maxrss / 1024, said, error)


def must_run(arguments: Sequence[str], **settings: Any) -> Outcome:
    """As `run_python`; a failure ends the program."""
    outcome = run_python(arguments, **settings)
    if outcome.error:
        sys.exit(outcome.error)
    return outcome


def call(function: str, *arguments: Any) -> Outcome:
    """Call ``module:function`` in a process of its own; ``said`` has the ``result``.

    What the function uses (memory, CPU time) does not count as the caller's. A failure ends the
    program.
    """
    module, _, name = function.partition(":")
    given = ", ".join(repr(str(x) if isinstance(x, Path) else x) for x in arguments)
    program = f"import json, {module}\nprint(json.dumps({{'result': {module}.{name}({given})}}))"
    return must_run(["-c", program])


def _text(file: IO[str]) -> str:
    file.seek(0)
    return file.read()


def _last_object(printed: str) -> dict[str, Any]:
    for line in reversed(printed.splitlines()):
        if line.startswith("{"):
            found: dict[str, Any] = json.loads(line)
            return found
    return {}


def _why(code: int, printed: str) -> str:
    if code < 0:
        return f"killed by {signal.Signals(-code).name}"
    return f"exit code {code}: {printed.strip()[-_SHOWN_OF_ERROR:]}"
