"""Reading stored scores again, where what is in SQL is not enough: exact hours, sliding windows."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from sqlalchemy import Engine

from db.query.hours import Grouping, HeardFor
from db.query.question import Question
from db.score_files.comparable import Vectors, comparable
from db.score_files.ranked import ScoreFile, score_files

if TYPE_CHECKING:
    from collections.abc import Iterator

    from audioset_core.arrays import Floats
    from audioset_core.scores.ranking import Ranking, Window
    from audioset_core.scores.similarity import Neighbour, Prepare


def read_logits(home: Path, file: ScoreFile) -> Floats:
    """A clip's logits, memory-mapped.

    Raises:
        AudioError: the file is damaged.
        FileNotFoundError: it is gone.
    """
    from audioset_core.storage.score_files import read_scores

    return read_scores(home / file.scores_path, mmap=True)


def rank_windows(
    engine: Engine,
    home: Path,
    question: Question,
    *,
    window_s: float,
    stride_s: float,
    top: int,
    mode: Literal["max", "mean"],
) -> Ranking[ScoreFile]:
    """The best windows of the collection; only clips whose peak can be among them are read."""
    from audioset_core.scores.ranking import best_windows, patches_in

    def size(file: ScoreFile) -> tuple[int, int]:
        length = patches_in(window_s, hop_s=file.patch_hop_s, window_s=file.window_s)
        return length, min(length, max(1, round(stride_s / file.patch_hop_s)))

    return best_windows(
        score_files(engine, question),
        lambda file: (read_logits(home, file), list(file.classes)),
        size,
        top=top,
        min_score=question.min_score,
        mode=mode,
    )


def window_times(found: Window[ScoreFile]) -> tuple[float, float]:
    """From where to where in its clip a window hears, in seconds."""
    from audioset_core.scores.coverage import end_s

    file = found.of
    shape = {"hop_s": file.patch_hop_s, "window_s": file.window_s, "duration_s": file.duration_s}
    return round(found.first_patch * file.patch_hop_s, 6), end_s(found.last_patch, **shape)


def moment_times(
    found: Neighbour, query: Vectors, duration_s: float
) -> tuple[float | None, float | None]:
    """From where to where a clip is like another one; of a whole clip, neither."""
    from audioset_core.scores.coverage import end_s

    if found.patch is None:
        return None, None
    shape = {"hop_s": query.patch_hop_s, "window_s": query.window_s, "duration_s": duration_s}
    return round(found.patch * query.patch_hop_s, 6), end_s(found.patch, **shape)


def exact_hours(
    engine: Engine, home: Path, question: Question, by: Grouping, rows: list[HeardFor]
) -> list[HeardFor]:
    """The rows with the hours of the patches alone that reach the least score."""
    seconds: dict[Any, float] = defaultdict(float)
    n_clips: dict[Any, int] = defaultdict(int)
    branches = [row.mid for row in rows if row.mid] if by == "second-level" else [None]
    for branch in branches:
        asked = question if branch is None else replace(question, under=(branch,))
        for file in score_files(engine, asked):
            for key, heard_s in _heard_s(home, file, question.min_score, by, branch).items():
                seconds[key] += heard_s
                n_clips[key] += heard_s > 0
    exact = [
        replace(row, hours=seconds[key] / 3600, n_clips=n_clips[key])
        for row in rows
        for key in [row.mid or row.what]
    ]
    return exact if by == "day" else sorted(exact, key=lambda row: (-row.hours, row.what))


def similar_clips(
    engine: Engine, home: Path, query: Vectors, question: Question, at_s: float | None, top: int
) -> tuple[list[Neighbour], int]:
    """The clips most like one (or its patch at a second), and how many were compared.

    Of the question counts what it says of clips and files.

    Raises:
        UserError: the clip ends before that second.
    """
    from audioset_core.errors import UserError
    from audioset_core.scores.pooling import sigmoid
    from audioset_core.scores.similarity import mean_vector, nearest
    from audioset_core.storage.score_files import read_scores

    if at_s is not None and at_s >= query.duration_s:
        raise UserError(f"the recording ends at {query.duration_s:.2f} s, before {at_s:g} s")
    prepare: Prepare = sigmoid if query.kind == "scores" else _as_they_are
    own = read_scores(home / query.path, mmap=True)
    if at_s is None:
        wanted = mean_vector(own, prepare)
    else:
        # The patch in whose middle the second lies, or nearly.
        patch = round((at_s - query.window_s / 2) / query.patch_hop_s)
        wanted = prepare(own[min(len(own) - 1, max(0, patch))][None])[0].astype("float64")
    n_compared = 0

    def others() -> Iterator[tuple[str, Floats]]:
        nonlocal n_compared
        for clip, path in comparable(engine, query, question):
            n_compared += 1
            yield clip, read_scores(home / path, mmap=True)

    found = nearest(wanted, others(), top=top, by_patch=at_s is not None, prepare=prepare)
    return found, n_compared


def _as_they_are(vectors: Floats) -> Floats:
    return vectors


def _heard_s(
    home: Path, file: ScoreFile, score: float, by: Grouping, branch: str | None
) -> dict[Any, float]:
    from audioset_core.scores.coverage import covered_s, reaching

    together = branch or file.path_text or "(no longer anywhere)"
    groups: dict[Any, list[int]] = {together: list(file.classes)}
    if by == "class":
        groups = {mid: [index] for index, (mid, _) in file.classes.items()}
    marks = reaching(read_logits(home, file), groups, score)
    if by == "day":
        marks = _by_day(file, marks[together])
    shape = {"hop_s": file.patch_hop_s, "window_s": file.window_s, "duration_s": file.duration_s}
    return {key: covered_s(mark, **shape) for key, mark in marks.items()}


def _by_day(file: ScoreFile, mark: Any) -> dict[Any, Any]:
    """The marked patches of each day on the recorder's clock; of both, recorded at two times."""
    if not file.recorded_at:
        return {"unknown": mark}
    import numpy as np

    marks: dict[Any, Any] = {}
    for began in file.recorded_at:
        midnight = began.replace(hour=0, minute=0, second=0, microsecond=0)
        since_s = (began - midnight).total_seconds() + np.arange(len(mark)) * file.patch_hop_s
        days = (since_s // 86_400).astype(int)
        for day in range(int(days[-1]) + 1 if len(days) else 0):
            date = str((midnight + timedelta(days=day)).date())
            marks[date] = marks.get(date, False) | (mark & (days == day))
    return marks
