"""A clip's scores over time, from its stored file, for a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from sqlalchemy import Engine

from audioset_core.arrays import F32, F64
from audioset_core.errors import UserError
from audioset_core.previews.columns import column_edges, covering_patches, peak_scores
from audioset_core.storage.score_files import read_scores
from db.answer_records import ClipReport, Label, LabellingReport
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
    edges_s = column_edges(report.clip.duration_s, n_columns)
    current = next((x for x in report.labellings if x.is_current), None)
    return scores_between(engine, current, home, [label.mid for label in labels], edges_s)


def scores_between(
    engine: Engine,
    current: LabellingReport | None,
    home: Path,
    mids: Sequence[str],
    edges_s: F64,
) -> F32:
    """As `scores_over_time`, between the times at which columns begin and the last one ends.

    A class that the model does not know has NaN.

    Shape: ``[n_columns + 1]`` -> ``[n_columns, len(mids)]``
    """
    found = np.full((len(edges_s) - 1, len(mids)), np.nan, np.float32)
    if current is None or not current.scores_path or not mids:
        return found
    name = f"{current.model}@{current.model_version}"
    by_mid = {mid: index for index, mid, _ in queries.categories_of(engine, name)}
    try:
        logits = read_scores(home / current.scores_path, mmap=True)
    except FileNotFoundError as error:
        message = f"the score file of this clip is missing ({current.scores_path})"
        raise UserError(f"{message}; audioset verify --repair --home {home}") from error
    spans = covering_patches(
        edges_s, len(logits), hop_s=current.patch_hop_s, window_s=current.window_s
    )
    known = [at for at, mid in enumerate(mids) if mid in by_mid]
    categories = np.array([by_mid[mids[at]] for at in known], np.int64)
    found[:, known] = peak_scores(logits, categories, spans)
    return found
