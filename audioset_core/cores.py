"""How many cores this process may keep busy."""

from __future__ import annotations

import os


def n_cores() -> int:
    """Those that the scheduler gives the process, or ``OMP_NUM_THREADS`` if that is fewer."""
    has_affinity = hasattr(os, "sched_getaffinity")
    present = len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    return min(present, int(wanted)) if wanted.isdecimal() and int(wanted) else present
