"""A run that combines stored scores: recorded like a labelling run, without Prefect."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import Engine

from db.engine import writing
from db.ledger.runs import note_progress
from flows.run.live_runs import LiveRun, recorded_run
from tasks.combining.combine import Combined, combine_clips
from tasks.combining.recipe import Planned
from tasks.evaluation.derive_intervals import need_scores_folder
from tasks.labelling.job import now

_REASON = "score file cannot be used"


def run_combination(
    engine: Engine,
    home: Path,
    plans: Sequence[Planned],
    progress: Callable[[Combined], None] | None = None,
) -> list[Combined]:
    """Combine the clips of every plan; returns the result of each.

    `progress` is called with what came of some clips, after each transaction.

    Raises:
        UserError: the folder of scores is not there.
        DatabaseUserError: the database can only be read.
    """
    need_scores_folder(home)
    with writing(engine):  # refused where the database can only be read, before a lock is made
        pass
    described: dict[str, Any] = {
        "flow": "combine",
        "model": plans[0].recipe.name,
        "parts": sorted({part.title for plan in plans for part in plan.recipe.parts}),
    }
    results = []
    with recorded_run(engine, home, described) as run:
        run.summary.models = tuple(plan.recipe.title for plan in plans)
        for plan in plans:
            whole = Combined()
            for done in combine_clips(engine, home, plan, run.run_id):
                whole.add(done)
                _count(run, done)
                note_progress(engine, run.run_id, run.summary.counts, now())
                if progress is not None:
                    progress(done)
            results.append(whole)
    return results


def _count(run: LiveRun, done: Combined) -> None:
    summary = run.summary
    summary.n_labelled += done.n_clips
    summary.n_busy += done.n_busy
    summary.n_found += done.n_clips + done.n_busy + len(done.failures)
    summary.audio_s += done.audio_s
    summary.failures.update([_REASON] * len(done.failures))
    summary.shown_failures += [
        (file or clip, _REASON, reason) for clip, file, reason in done.failures
    ]
