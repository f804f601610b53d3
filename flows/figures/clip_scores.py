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
    """Highest score per column of time; NaN where no patch lies.

    Shape: ``[n_columns, len(labels)]``

    Raises:
        UserError: the file of scores is missing; `audioset verify --repair` restores it.
    """
    nothing = np.full((n_columns, len(labels)), np.nan, np.float32)
    current = next((x for x in report.labellings if x.is_current), None)
    if current is None or not current.scores_path or not labels:
        return nothing
    name = f"{current.model}@{current.model_version}"
    by_mid = {mid: index for index, mid, _ in queries.categories_of(engine, name)}
    try:
        logits = read_scores(home / current.scores_path, mmap=True)
    except FileNotFoundError as error:
        message = f"the score file of this clip is missing ({current.scores_path})"
        raise UserError(f"{message}; audioset verify --repair --home {home}") from error
    spans = covering_patches(
        column_edges(report.clip.duration_s, n_columns),
        len(logits),
        hop_s=current.patch_hop_s,
        window_s=current.window_s,
    )
    return peak_scores(logits, np.array([by_mid[x.mid] for x in labels], np.int64), spans)
