"""Answers as pandas DataFrames, for notebooks: the questions of the command line in Python.

from flows.analysis.dataframes import open_labels

labels = open_labels("audioset-data")
labels.clips(under="Animal", min_score=0.3)
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass
from pathlib import Path
from typing import Any, Literal

import pandas as pd
from sqlalchemy import Engine, text

from db.answer_records import Hit
from db.engine import open_engine, reading
from db.migrate import ensure_schema
from db.query.find import find_clips, find_intervals
from db.query.hours import Grouping, HeardFor, hours_heard
from db.query.question import Question
from db.reports.model_coverage import score_floor
from db.score_files.comparable import vectors_of
from flows.analysis.similar import SIMILAR_COLUMNS, similar_clips
from flows.analysis.stored_scores import RANK_COLUMNS, exact_hours, rank_windows
from flows.asking import HIT_COLUMNS, clip_reference, ontology_of, site_names
from flows.options import database_url
from flows.terminal import plain

Names = str | Sequence[str]


@dataclass(frozen=True, slots=True)
class Labels:
    """The labels of a home folder. Classes are names, MIDs or paths of names."""

    home: Path
    engine: Engine

    def clips(self, under: Names = (), **conditions: Any) -> pd.DataFrame:
        """As ``audioset query``: a row for each clip. Conditions are the fields of
        `db.query.question.Question`."""
        return _hits(find_clips(self.engine, _question(self.engine, under, conditions)))

    def intervals(self, under: Names = (), **conditions: Any) -> pd.DataFrame:
        """As ``audioset query --intervals``: a row for each time that a class is heard."""
        return _hits(find_intervals(self.engine, _question(self.engine, under, conditions)))

    def hours(
        self,
        by: Grouping = "second-level",
        under: Names = (),
        *,
        exact: bool = False,
        **conditions: Any,
    ) -> pd.DataFrame:
        """As ``audioset hours``; without `under`, the whole ontology."""
        everything = [root.mid for root in ontology_of(self.engine).roots]
        question = _question(self.engine, under or everything, {"min_score": 0.5} | conditions)
        rows = hours_heard(self.engine, question, by)
        if exact:
            rows = exact_hours(self.engine, self.home, question, by, rows)
        return _frame(map(astuple, rows), HeardFor.__match_args__)

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
        rows, _ = rank_windows(
            self.engine, self.home, _question(self.engine, under, floor | conditions),
            window_s=window_s, stride_s=stride_s, top=top, pooling=pooling,
        )  # fmt: skip
        return _frame(rows, RANK_COLUMNS)

    def similar(
        self,
        clip: str,
        at_s: float | None = None,
        *,
        top: int = 20,
        exact: bool = False,
        **conditions: Any,
    ) -> pd.DataFrame:
        """As ``audioset similar``; `clip` is an id or a file; ``attrs`` name what was compared."""
        question = _question(self.engine, (), conditions)
        query = vectors_of(self.engine, clip_reference(clip), question.model)
        answer = similar_clips(self.engine, self.home, query, question, at_s, top, exact)
        frame = _frame(answer.rows, SIMILAR_COLUMNS)
        frame.attrs.update(compared_by=query.kind, model=query.model, how=answer.how)
        return frame

    def sql(self, query: str, **parameters: Any) -> pd.DataFrame:
        """Any SQL that reads, with ``:name`` parameters; the views are in docs/database.md."""
        with reading(self.engine) as conn:
            result = conn.execute(text(query), parameters)
            columns = list(result.keys())
            return pd.DataFrame([tuple(row) for row in result], columns=columns)


def open_labels(home: str | os.PathLike[str] = "audioset-data", db: str | None = None) -> Labels:
    """The labels in a home folder, or in the database of a URL.

    Raises:
        DatabaseUserError: there is no database.
    """
    folder = Path(home)
    engine = open_engine(database_url(folder, db), create=False)
    ensure_schema(engine)
    return Labels(folder, engine)


def _question(engine: Engine, under: Names, conditions: Mapping[str, Any]) -> Question:
    asked = dict(conditions)
    for name in ("all_of", "not_under"):
        if name in asked:
            asked[name] = _mids(engine, asked[name])
    for name in ("paths", "sites"):
        if isinstance(asked.get(name), str):
            asked[name] = (asked[name],)
    asked["sites"] = site_names(engine, asked.get("sites", ()))
    return Question(under=_mids(engine, under) or asked.get("all_of", ()), **asked)


def _mids(engine: Engine, names: Names) -> tuple[str, ...]:
    ontology = ontology_of(engine)
    listed = [names] if isinstance(names, str) else names
    return tuple(ontology.find(name).mid for name in listed)


def _hits(hits: Iterable[Hit]) -> pd.DataFrame:
    rows = ({**asdict(hit), "path": hit.path_text} for hit in hits)
    return _frame(([row[c] for c in HIT_COLUMNS] for row in rows), HIT_COLUMNS)


def _frame(rows: Iterable[Sequence[Any]], columns: Sequence[str]) -> pd.DataFrame:
    return pd.DataFrame([plain(list(row)) for row in rows], columns=list(columns))
