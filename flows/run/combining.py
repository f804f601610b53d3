"""Runs that combine stored scores, or score stored embeddings: recorded, without Prefect."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import Engine

from audioset_core.errors import UserError
from db.engine import writing
from db.integrity.audit import stored_variants
from db.ledger.runs import note_progress
from flows.run.live_runs import LiveRun, recorded_run
from tasks.combining.combine import Combined, combine_clips
from tasks.combining.recipe import Planned
from tasks.combining.taught import heads_in_use, taught_plans
from tasks.evaluation.derive_intervals import need_folder
from tasks.labelling.job import now

_REASONS = {"scores": "score file cannot be used", "embeddings": "embeddings cannot be used"}


def run_combination(
    engine: Engine,
    home: Path,
    plans: Sequence[Planned],
    progress: Callable[[Combined], None] | None = None,
) -> list[Combined]:
    """Combine the clips of every plan; returns the result of each.

    `progress` is called with what came of some clips, after each transaction.

    Raises:
        UserError: the folder of scores, or of embeddings, is not there.
        DatabaseUserError: the database can only be read.
    """
    recipe = plans[0].recipe
    need_folder(home, recipe.reads)
    with writing(engine):  # refused where the database can only be read, before a lock is made
        pass
    described: dict[str, Any] = {
        "flow": "label" if recipe.heads else "combine",
        "model": recipe.name,
        "parts": sorted({part.title for plan in plans for part in plan.recipe.parts}),
    }
    results = []
    with recorded_run(engine, home, described) as run:
        run.summary.models = tuple(plan.recipe.title for plan in plans)
        for plan in plans:
            whole = Combined()
            for done in combine_clips(engine, home, plan, run.run_id):
                whole.add(done)
                _count(run, done, _REASONS[recipe.reads])
                note_progress(engine, run.run_id, run.summary.counts, now())
                if progress is not None:
                    progress(done)
            results.append(whole)
    return results


def follow_up(engine: Engine, home: Path, bases: Sequence[str]) -> tuple[dict[str, int], list[str]]:
    """Score what is new with taught models that are in use and learned from these bases.

    A run of its own for each of them. Returns clips by taught model, and problems.
    """
    counts: dict[str, int] = {}
    problems = []
    for name, file in heads_in_use(stored_variants(engine), bases).items():
        try:
            plans = taught_plans(engine, home, name, file)
            if not any(plan.n_clips(engine) for plan in plans):
                continue
            done = run_combination(engine, home, plans)
            counts[plans[0].recipe.title] = sum(each.n_clips for each in done)
            failures = [failure for each in done for failure in each.failures]
            problems += [f"{name}: {path}: {why}" for _, path, why in failures]
        except UserError as error:
            problems.append(f"not scored by {name}: {' '.join(str(error).split())}")
    return counts, problems


def _count(run: LiveRun, done: Combined, reason: str) -> None:
    summary = run.summary
    summary.n_labelled += done.n_clips
    summary.n_busy += done.n_busy
    summary.n_found += done.n_clips + done.n_busy + len(done.failures)
    summary.audio_s += done.audio_s
    summary.failures.update([reason] * len(done.failures))
    summary.shown_failures += [
        (file or clip, reason, detail) for clip, file, detail in done.failures
    ]
