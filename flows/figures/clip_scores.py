"""A clip's scores over time, from its stored file, for a picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from sqlalchemy import Engine

from audioset_core.arrays import F32
from audioset_core.errors import UserError
from audioset_core.previews.columns import column_edges, covering_patches, peak_scores
from audioset_core.storage.score_files import read_scores
from db.answer_records import ClipReport, Label
from db.reports import model_coverage as queries


def best_labels(report: ClipReport, top: int) -> tuple[Label, ...]:
    """The classes that a picture shows, best mean score first among those with the best peaks."""
    return tuple(sorted(report.labels[:top], key=lambda label: (-label.mean, label.name)))


def scores_over_time(
    engine: Engine, report: ClipReport, home: Path, labels: tuple[Label, ...], n_columns: int
) -> F32:
    """Highest score per column of time, by the labellings that count; NaN where no patch lies.

    Shape: ``[n_columns, len(labels)]``

    Raises:
        UserError: the file of scores is missing; `audioset verify --repair` restores it.
    """
    found = np.full((n_columns, len(labels)), np.nan, np.float32)
    for own in report.labellings:
        if not (own.is_current or own.is_beside) or not own.scores_path:
            continue
        by_mid = {
            m: k for k, m, _ in queries.categories_of(engine, f"{own.model}@{own.model_version}")
        }
        which = [at for at, label in enumerate(labels) if label.mid in by_mid]
        if not which:
            continue
        try:
            logits = read_scores(home / own.scores_path, mmap=True)
        except FileNotFoundError as error:
            message = f"the score file of this clip is missing ({own.scores_path})"
            raise UserError(f"{message}; audioset verify --repair --home {home}") from error
        spans = covering_patches(
            column_edges(report.clip.duration_s, n_columns),
            len(logits),
            hop_s=own.patch_hop_s,
            window_s=own.window_s,
        )
        indices = np.array([by_mid[labels[at].mid] for at in which], np.int64)
        # Of a class that two models predict, the higher score.
        found[:, which] = np.fmax(found[:, which], peak_scores(logits, indices, spans))
    return found
