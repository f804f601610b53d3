"""Answers that need the stored scores, not SQL alone: exact hours and sliding windows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace
from datetime import timedelta
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from sqlalchemy import Engine

from db.query.hours import Grouping, HeardFor
from db.query.question import Question
from db.score_files.comparable import Vectors
from db.score_files.ranked import ScoreFile, score_files

if TYPE_CHECKING:
    from audioset_core.arrays import Floats


Row = tuple[Any, ...]
RANK_COLUMNS = ("score", "mid", "name", "start_s", "end_s", "clip", "path")


def read_logits(home: Path, file: ScoreFile) -> Floats:
    """A clip's logits, memory-mapped; minus infinity where the question does not ask.

    Raises:
        AudioError: the file is damaged.
        FileNotFoundError: it is gone.
    """
    from audioset_core.storage.score_files import read_scores

    logits = read_scores(home / file.scores_path, mmap=True)
    if file.spans_s is None:
        return logits
    import numpy as np

    begins_s = np.arange(len(logits)) * file.patch_hop_s
    ends_s = np.minimum(begins_s + file.window_s, file.duration_s)
    is_asked = np.zeros(len(logits), bool)
    for begin_s, end_s in file.spans_s:
        is_asked |= (begins_s < end_s) & (ends_s > begin_s)
    return np.where(is_asked[:, None], logits, -np.inf).astype(logits.dtype)


def rank_windows(
    engine: Engine,
    home: Path,
    question: Question,
    *,
    window_s: float,
    stride_s: float | None,
    top: int,
    pooling: Literal["max", "mean"],
) -> tuple[list[Row], int]:
    """The best windows of the collection, as rows of `RANK_COLUMNS`; how many clips were read.

    Only clips whose peak can be among the best are read. No stride: the length of the window.
    """
    from audioset_core.scores.ranking import best_windows, patches_in

    def size(file: ScoreFile) -> tuple[int, int]:
        length = patches_in(window_s, hop_s=file.patch_hop_s, window_s=file.window_s)
        step_s = window_s if stride_s is None else stride_s
        return length, min(length, max(1, round(step_s / file.patch_hop_s)))

    ranking = best_windows(
        score_files(engine, question),
        lambda file: (read_logits(home, file), list(file.classes)),
        size,
        top=top,
        min_score=question.min_score,
        mode=pooling,
    )
    rows = [
        (found.score, *file.classes[found.category_index],
         *patch_times(file, found.first_patch, found.last_patch, file.duration_s),
         file.clip, file.path_text)
        for found in ranking.windows
        for file in [found.of]
    ]  # fmt: skip
    return rows, ranking.n_read


def exact_hours(
    engine: Engine, home: Path, question: Question, by: Grouping, rows: list[HeardFor]
) -> list[HeardFor]:
    """The rows, with only the hours of patches that reach the lowest score."""
    seconds: dict[Any, float] = defaultdict(float)
    n_clips: dict[Any, int] = defaultdict(int)
    branches = [row.mid for row in rows if row.mid] if by == "second-level" else [None]
    for branch in branches:
        asked = question if branch is None else replace(question, under=(branch,))
        files = score_files(engine, asked, by_clip=True)
        for _, of_clip in groupby(files, key=attrgetter("clip")):
            for key, heard_s in _heard_s(home, of_clip, question.min_score, by, branch).items():
                seconds[key] += heard_s
                n_clips[key] += heard_s > 0
    exact = [
        replace(row, hours=seconds[key] / 3600, n_clips=n_clips[key])
        for row in rows
        for key in [row.mid or row.what]
    ]
    return exact if by == "day" else sorted(exact, key=lambda row: (-row.hours, row.what))


def patch_times(
    of: ScoreFile | Vectors, first: int, last: int, duration_s: float
) -> tuple[float, float]:
    """From where to where in a clip its patches lie, in seconds."""
    from audioset_core.scores.coverage import end_s

    shape = {"hop_s": of.patch_hop_s, "window_s": of.window_s, "duration_s": duration_s}
    return round(first * of.patch_hop_s, 6), end_s(last, **shape)


def _heard_s(
    home: Path, of_clip: Iterable[ScoreFile], score: float, by: Grouping, branch: str | None
) -> dict[Any, float]:
    """Seconds of a clip by what they are grouped by; what several of the files say counts once."""
    import numpy as np

    from audioset_core.scores.coverage import patch_spans, union_s

    spans: dict[Any, list[Any]] = defaultdict(list)
    for file in of_clip:
        shape = {
            "hop_s": file.patch_hop_s,
            "window_s": file.window_s,
            "duration_s": file.duration_s,
        }
        for key, mark in _marks(home, file, score, by, branch).items():
            spans[key].append(patch_spans(mark, **shape))
    return {key: union_s(np.concatenate(some)) for key, some in spans.items()}


def _marks(
    home: Path, file: ScoreFile, score: float, by: Grouping, branch: str | None
) -> dict[Any, Any]:
    """The patches of a file that are heard, by what they are grouped by."""
    from audioset_core.scores.coverage import reaching

    together = branch or file.path_text or "(no longer anywhere)"
    groups: dict[Any, list[int]] = {together: list(file.classes)}
    if by == "class":
        groups = {mid: [index] for index, (mid, _) in file.classes.items()}
    marks = reaching(read_logits(home, file), groups, score)
    return _by_day(file, marks[together]) if by == "day" else marks


def _by_day(file: ScoreFile, mark: Any) -> dict[Any, Any]:
    """The marked patches of each day on the recorder's clock, for every time of recording."""
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
