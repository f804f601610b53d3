"""What `combine` and `label` with a taught model share: the work, with its progress shown."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Engine

from flows.terminal import progress_lines

if TYPE_CHECKING:
    from tasks.combining.combine import Combined
    from tasks.combining.recipe import Planned


def combine_shown(engine: Engine, home: Path, plans: Sequence[Planned]) -> list[Combined]:
    """What came of each plan; no run is recorded where there is nothing to do.

    Raises:
        UserError, DatabaseUserError: as `flows.run.combining.run_combination`.
    """
    from flows.run.combining import run_combination
    from tasks.combining.combine import Combined

    total = sum(each.n_clips(engine) for each in plans)
    if not total:
        return [Combined() for _ in plans]
    show, n_seen = progress_lines("clips"), 0

    def progress(some: Combined) -> None:
        nonlocal n_seen
        n_seen += some.n_clips + some.n_busy + len(some.failures)
        show(n_seen, max(total, n_seen))

    return run_combination(engine, home, plans, progress)
