"""Answers as pandas DataFrames, for notebooks: the questions of the command line in Python.

from flows.analysis.dataframes import open_labels

labels = open_labels("audioset-data")
labels.clips(under="Animal", min_score=0.3)
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import pandas as pd
from sqlalchemy import Engine, text

from audioset_core.ontology.graph import load_default
from db.answer_records import Hit
from db.engine import open_engine, reading
from db.migrate import ensure_schema
from db.query.find import find_clips, find_intervals
from db.query.hours import Grouping, hours_heard
from db.query.question import Question
from db.reports.model_coverage import score_floor
from db.score_files.comparable import describe, vectors_of
from flows.analysis.stored_scores import (
    exact_hours,
    moment_times,
    rank_windows,
    similar_clips,
    window_times,
)
from flows.asking import HIT_COLUMNS
from flows.options import database_url
from flows.terminal import plain

Names = str | Sequence[str]


@dataclass(frozen=True, slots=True)
class Labels:
    """The labels of a home folder. Classes are names, MIDs or paths of names."""

    home: Path
    engine: Engine

    def clips(self, under: Names = (), **conditions: Any) -> pd.DataFrame:
        """As ``audioset query``: one row a clip. Conditions are the fields of
        `db.query.find.Question`."""
        return _hits(find_clips(self.engine, _question(under, conditions)))

    def intervals(self, under: Names = (), **conditions: Any) -> pd.DataFrame:
        """As ``audioset query --intervals``: one row each time that a class is heard."""
        return _hits(find_intervals(self.engine, _question(under, conditions)))

    def hours(
        self,
        by: Grouping = "second-level",
        under: Names = (),
        *,
        exact: bool = False,
        **conditions: Any,
    ) -> pd.DataFrame:
        """As ``audioset hours``; without `under`, the whole ontology."""
        everything = [root.mid for root in load_default().roots]
        question = _question(under or everything, {"min_score": 0.5} | conditions)
        rows = hours_heard(self.engine, question, by)
        if exact:
            rows = exact_hours(self.engine, self.home, question, by, rows)
        return _frame(map(asdict, rows), ("what", "mid", "n_clips", "hours"))

    def rank(
        self,
        under: Names,
        *,
        window_s: float = 5.0,
        stride_s: float | None = None,
        top: int = 100,
        pooling: Literal["max", "mean"] = "max",
        **conditions: Any,
    ) -> pd.DataFrame:
        """As ``audioset rank``: the best windows of all recordings."""
        floor = {"min_score": score_floor(self.engine, conditions.get("model"))}
        ranking = rank_windows(
            self.engine, self.home, _question(under, floor | conditions),
            window_s=window_s, stride_s=window_s if stride_s is None else stride_s,
            top=top, mode=pooling,
        )  # fmt: skip
        columns = ("score", "mid", "name", "start_s", "end_s", "clip", "path")
        rows = (
            (found.score, *found.of.classes[found.category_index], *window_times(found),
             found.of.clip, found.of.path_text)
            for found in ranking.windows
        )  # fmt: skip
        return _frame((dict(zip(columns, row, strict=True)) for row in rows), columns)

    def similar(
        self, clip: str, at_s: float | None = None, *, top: int = 20, **conditions: Any
    ) -> pd.DataFrame:
        """As ``audioset similar``; `clip` is an id or a file; ``attrs`` say what is compared."""
        from flows.asking import clip_reference

        question = _question((), conditions)
        query = vectors_of(self.engine, clip_reference(clip), question.model)
        found, _ = similar_clips(self.engine, self.home, query, question, at_s, top)
        described = describe(self.engine, [each.clip for each in found], question.paths)
        columns = ("cosine", "start_s", "end_s", "clip", "path")
        rows = (
            (each.cosine, *moment_times(each, query, described[each.clip].duration_s),
             each.clip, described[each.clip].path_text)
            for each in found
        )  # fmt: skip
        frame = _frame((dict(zip(columns, row, strict=True)) for row in rows), columns)
        frame.attrs.update(compared_by=query.kind, model=query.model)
        return frame

    def sql(self, query: str, **parameters: Any) -> pd.DataFrame:
        """Any SQL that reads, with ``:name`` parameters; the views are in docs/database.md."""
        with reading(self.engine) as conn:
            result = conn.execute(text(query), parameters)
            columns = list(result.keys())
            return pd.DataFrame([tuple(row) for row in result], columns=columns)


def open_labels(home: str | os.PathLike[str] = "audioset-data", db: str | None = None) -> Labels:
    """The labels in a home folder (or a database of your own, by URL).

    Raises:
        DatabaseUserError: there are none.
    """
    folder = Path(home)
    engine = open_engine(database_url(folder, db), create=False)
    ensure_schema(engine)
    return Labels(folder, engine)


def _question(under: Names, conditions: Mapping[str, Any]) -> Question:
    asked = dict(conditions)
    for name in ("all_of", "not_under"):
        if name in asked:
            asked[name] = _mids(asked[name])
    if isinstance(asked.get("paths"), str):
        asked["paths"] = (asked["paths"],)
    return Question(under=_mids(under) or asked.get("all_of", ()), **asked)


def _mids(names: Names) -> tuple[str, ...]:
    ontology = load_default()
    listed = [names] if isinstance(names, str) else names
    return tuple(ontology.find(name).mid for name in listed)


def _hits(hits: Iterable[Hit]) -> pd.DataFrame:
    return _frame(
        ({**asdict(hit), "path": hit.path_text} for hit in hits),
        HIT_COLUMNS,
    )


def _frame(rows: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> pd.DataFrame:
    return pd.DataFrame([plain([row[c] for c in columns]) for row in rows], columns=list(columns))
