"""What every way has in common: files in, the time of the work out.

A way gets ready (imports, weights, one second of silence as a rehearsal, so that nothing is
compiled or allocated for the first time later) and then works, and only the work is timed. It
prints one line of JSON: ``work_s``, ``n_patches``, and ``note`` where there is something to say; or
``missing``, a package that is not installed.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

Work = Callable[[Sequence[Path]], int]
"""Labels the files; returns the number of patches."""

_OURS = ("audioset_core", "benchmarks", "db", "flows", "tasks")


def parser(doc: str | None) -> argparse.ArgumentParser:
    """The arguments of every way."""
    made = argparse.ArgumentParser(description=(doc or "").splitlines()[0])
    made.add_argument("--hop", type=float, required=True, help="seconds between two patches")
    made.add_argument("files", nargs="+", type=Path)
    return made


def run(prepare: Callable[[argparse.Namespace], Work], options: argparse.Namespace) -> None:
    """Get ready, work, report."""
    try:
        work = prepare(options)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if not package or package in _OURS:
            raise
        print(json.dumps({"missing": package}))
        return
    began = time.perf_counter()
    n_patches = work(options.files)
    report(work_s=time.perf_counter() - began, n_patches=n_patches)


def report(**said: Any) -> None:
    """Print the one line."""
    print(json.dumps(said), flush=True)


def require_hop(options: argparse.Namespace, hop_s: float) -> None:
    """Most ways know one hop only.

    Raises:
        SystemExit: another was asked for.
    """
    if options.hop != hop_s:
        raise SystemExit(f"--hop {options.hop}: this way has a hop of {hop_s} s")
