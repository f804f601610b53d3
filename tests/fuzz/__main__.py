"""``python -m tests.fuzz``: spoilt files for as long as one likes; each that is not read or refused
as it should be is kept, with the line that shows it again. Exit code 1 if there is any.

Each target runs in a process of its own with a limit on its memory, and on the time for a file.
"""

from __future__ import annotations

import argparse
import hashlib
import mmap
import resource
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import numpy as np

from tests.fuzz.mutation import mutated
from tests.fuzz.targets import TARGETS

MEMORY_BYTES = 2 << 30
FILE_S = 30.0
_TURN_S = 20.0
_KEPT_OF_A_KIND = 2


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="in all (default: 10)")
    parser.add_argument("--seed", type=int, default=0, help="of the first round (default: 0)")
    parser.add_argument("--target", choices=TARGETS, action="append", help="default: all of them")
    parser.add_argument("--failures", type=Path, default=Path("fuzz-failures"), help="folder")
    parser.add_argument("--reproduce", type=Path, help="check this one file of a --target")
    parser.add_argument("--turn", type=float, help=argparse.SUPPRESS)  # in a process of its own
    options = parser.parse_args()
    targets = options.target or list(TARGETS)
    if options.reproduce:
        TARGETS[targets[0]].check(options.reproduce)
        print(f"{options.reproduce}: read, or refused as it should be")
    elif options.turn:
        turn(targets[0], options.seed, options.turn, options.failures)
    else:
        sys.exit(
            1 if campaign(targets, options.seed, options.minutes * 60, options.failures) else 0
        )


def campaign(targets: list[str], seed: int, duration_s: float, failures: Path) -> int:
    """Turns of all targets until the time is over; returns how many ended with a failure."""
    end, n_failed, n_turns = time.monotonic() + duration_s, 0, 0
    turn_s = min(_TURN_S, duration_s / len(targets))
    while time.monotonic() < end:
        for target in targets:
            if n_turns >= len(targets) and time.monotonic() >= end:
                break
            n_turns += 1
            line = ["--target", target, "--seed", str(seed), "--turn", str(turn_s)]
            done = subprocess.run(
                [sys.executable, "-m", "tests.fuzz", *line, "--failures", str(failures)],
                stderr=subprocess.PIPE,
                check=False,
            )
            if done.returncode:
                n_failed += 1
                said = done.stderr.decode(errors="replace")
                print(f"{target}, seed {seed}: exit code {done.returncode}\n{said}", flush=True)
        seed += 1
    return n_failed


def turn(target: str, seed: int, duration_s: float, failures: Path) -> None:
    """Spoilt files of one target in this process, which a crash or a limit may end."""
    failures.mkdir(parents=True, exist_ok=True)
    suffix = TARGETS[target].suffix
    current = failures / f"{target}-ended-its-process-{seed}{suffix}"
    n_files = n_failed = 0
    for data, error in outcomes(
        target, seed, duration_s, current, when_warm=_limit, time_limit=_in_time
    ):
        n_files += 1
        if error is not None:
            n_failed += 1
            path = failures / f"{target}-{hashlib.sha256(data).hexdigest()[:12]}{suffix}"
            path.write_bytes(data)
            where = "".join(traceback.format_exception(error)[-3:])
            print(
                f"{where}  again: python -m tests.fuzz --target {target} --reproduce {path}",
                file=sys.stderr,
            )
    current.unlink(missing_ok=True)
    print(f"{target}, seed {seed}: {n_files} files, {n_failed} kinds of failure", flush=True)
    sys.exit(1 if n_failed else 0)


def outcomes(
    target: str,
    seed: int,
    duration_s: float,
    current: Path,
    *,
    n_most: int | None = None,
    when_warm: Callable[[], None] = lambda: None,
    time_limit: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> Iterator[tuple[bytes, Exception | None]]:
    """Each spoilt file with what it raised, unless that was seen before at the same place."""
    rng = np.random.default_rng([seed, *target.encode()])
    seeds, check = TARGETS[target].seeds(), TARGETS[target].check
    seen: dict[str, int] = {}
    for data in seeds:  # the good ones first: what they raise is wrong in any case
        current.write_bytes(data)
        check(current)
    when_warm()  # with its libraries loaded
    n_files, end = 0, time.monotonic() + duration_s
    while time.monotonic() < end and (n_most is None or n_files < n_most):
        n_files += 1
        data = mutated(rng, seeds)
        current.write_bytes(data)
        error: Exception | None = None
        try:
            with time_limit():
                check(current)
        except Exception as raised:
            place = traceback.extract_tb(raised.__traceback__)[-1]
            kind = f"{type(raised).__name__} {place.filename}:{place.lineno}"
            seen[kind] = seen.get(kind, 0) + 1
            error = raised if seen[kind] <= _KEPT_OF_A_KIND else None
        yield data, error


@contextmanager
def _in_time() -> Iterator[None]:
    """The system ends this process if one file takes too long."""
    signal.setitimer(signal.ITIMER_REAL, FILE_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _limit() -> None:
    with open("/proc/self/statm") as file:  # noqa: PTH123
        own_bytes = int(file.read().split()[0]) * mmap.PAGESIZE
    most = own_bytes + MEMORY_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)


if __name__ == "__main__":
    main()
