"""The time to the first answer: `audioset label one.wav` beside the simplest Prefect flow.

    AUDIOSET_WEIGHTS=yamnet.safetensors .venv/bin/python -m benchmarks.startup [--repeats 5]

Both start their own Prefect server, do their work, and end: "flow" is one task in one flow with
Prefect's own temporary server, "label" one recording of 5 s. A new home has no Prefect database
yet, an old one has been used before. For label, Prefect's tables are in the cache, as after any
first run (`flows.prefect_server.kept_database`); for the "first" run of all, only the weights are.
All take turns; printed are medians of the wall clock and of the CPU seconds of all processes, and
label's ratio to the flow. The goal is 1.2.

Measured on 2 busy cores, one turn: the first run 14.7 s of CPU against 13.8 (1.07; wall clock
0.75), a new home 8.6 s (0.63; 0.52), an old one 7.7 s against 9.9 (0.78; 0.42).
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import tempfile
from collections import defaultdict
from pathlib import Path

import numpy as np
import soundfile

from audioset_core.weights.locate import cache_dir
from benchmarks.processes import must_run

_PLAIN = """
from prefect import flow, task
@task
def one():
    return 1
@flow
def plain():
    return one()
plain()
"""
_RATE_HZ = 16_000
HOMES = ("first", "new", "old")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    n_repeats = parser.parse_args().repeats
    for name in [name for name in os.environ if name.startswith("PREFECT_")]:
        del os.environ[name]
    taken: dict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(-1, n_repeats):  # the first fills caches and makes the old homes
            for home in HOMES:
                for what in ("flow", "label"):
                    if (home, what) == ("first", "flow"):
                        continue  # to it, every new home is a first one
                    place = Path(folder) / what / (home if home == "old" else f"{home}{turn}")
                    seconds = _measured(what, place, turn, is_first=home == "first" and turn >= 0)
                    if turn >= 0:
                        taken[home, what].append(seconds)
    print(f"{'home':6}{'':8}{'wall s':>8}{'CPU s':>8}")
    for home in HOMES:
        medians = {}
        for what in ("flow", "label"):
            of = taken[("new" if home == "first" and what == "flow" else home), what]
            wall_s, cpu_s = map(statistics.median, zip(*of, strict=True))
            medians[what] = wall_s, cpu_s
            print(f"{home:6}{what:8}{wall_s:8.2f}{cpu_s:8.2f}")
        ratios = [a / b for a, b in zip(medians["label"], medians["flow"], strict=True)]
        print(f"{home:6}{'ratio':8}{ratios[0]:8.2f}{ratios[1]:8.2f}")


def _measured(what: str, place: Path, turn: int, *, is_first: bool) -> tuple[float, float]:
    """Wall and CPU seconds of one command and all that it started."""
    place.mkdir(parents=True, exist_ok=True)
    environment = {
        "PREFECT_HOME": str(place / "prefect"), "DO_NOT_TRACK": "1",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false", "PREFECT_LOGGING_LEVEL": "ERROR",
        # On a busy machine 20 s are not enough.
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "300",
    }  # fmt: skip
    if what == "flow":
        line = ["-c", _PLAIN]
    else:
        recording, home = place / f"{turn + 1}.wav", place / "home"
        rng = np.random.default_rng(turn + 1)
        soundfile.write(recording, 0.1 * rng.standard_normal(5 * _RATE_HZ), _RATE_HZ)
        line = ["-m", "flows.cli.program", "label", str(recording), "--home", str(home)]
    if is_first:
        environment["AUDIOSET_CACHE"] = str(place / "cache")
        shutil.copytree(cache_dir() / "weights", place / "cache" / "weights")
    outcome = must_run(line, environment=environment)
    return outcome.wall_s, outcome.cpu_s


if __name__ == "__main__":
    main()
